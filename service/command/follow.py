"""One explanation through the API: asked for, followed to its end, fetched."""

import sys
import time
from pathlib import Path
from typing import Any, TextIO

from service.command.client import Client

PAUSE = 0.15
BAR = 24
ENDED = frozenset({"succeeded", "failed", "cancelled"})


class Progress:
    """Shows how far a job is: one moving line at a terminal, else a line a stage.

    Parameters
    ----------
    title
        What is being explained.
    out
        Where to write.
    """

    def __init__(self, title: str, out: TextIO = sys.stdout) -> None:
        self._title = title
        self._out = out
        self._moving = out.isatty()
        self._said = ""

    def show(self, job: dict[str, Any]) -> None:
        """Show the job as it is now; what was said already is not said again."""
        stage = job.get("stage") or job["state"]
        if self._moving:
            full = int(BAR * float(job.get("progress") or 0.0))
            bar = "#" * full + "." * (BAR - full)
            self._write(f"\r  {self._title:<28} [{bar}] {stage:<10}")
        elif stage != self._said:
            self._write(f"  {self._title}: {stage}\n")
        self._said = stage

    def end(self, job: dict[str, Any], seconds: float) -> None:
        """Show how the job ended."""
        ended = f"{job['state']} in {seconds:.1f} s"
        if self._moving:
            self._write(f"\r  {self._title:<28} [{'#' * BAR}] {ended}\n")
        else:
            self._write(f"  {self._title}: {ended}\n")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def upload(client: Client, study: Path) -> str:
    """Send a DICOM file; return the study's identifier."""
    answer = client.json(
        "POST",
        "/v1/studies",
        content=study.read_bytes(),
        headers={"Content-Type": "application/dicom"},
    )
    return str(answer["id"])


def explain(client: Client, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Ask for an explanation and follow it; return the job as it ended."""
    began = time.monotonic()
    job: dict[str, Any] = client.json("POST", "/v1/explanations", json=request)
    while job["state"] not in ENDED:
        progress.show(job)
        time.sleep(PAUSE)
        job = client.json("GET", f"/v1/explanations/{job['id']}")
    progress.end(job, time.monotonic() - began)
    return job


def fetch(client: Client, job: dict[str, Any], folder: Path) -> list[Path]:
    """Write a job's artifacts and its document into `folder`; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    base = f"/v1/explanations/{job['id']}/artifacts"
    for artifact in client.json("GET", base)["artifacts"]:
        answer = client.ask("GET", f"{base}/{artifact['name']}")
        path = folder / Path(artifact["name"]).name
        path.write_bytes(answer.content)
        written.append(path)
    return written
