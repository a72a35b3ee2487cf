"""The whole job over HTTP: a 2048 x 2048 CR in, a Secondary Capture out.

    OMP_NUM_THREADS=1 python -m benchmarks.http_job [--runs 9]

A private stack (Redis, gateway and one worker as processes of their own) takes
the study in, explains it by Grad-CAM with the bundled model, and hands the
object back. What the caller waits is wall clock; the stages are the worker's
own timings out of the job's document. A first run warms everything up and is
not counted.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from benchmarks.measure import conditions, publish
from examples.phantom import dicom
from examples.phantom.chest import cases, draw
from service.command import environment, packages, stack
from service.command.client import Client
from service.command.home import Home
from service.command.keys import key_ring
from service.command.up import own_client, wait_until_ready
from tests.support.phantom_dicom import encoded

T = TypeVar("T")

MODEL = "chest-phantom"
SIDE = 2048
PACKAGES = ("fastapi", "uvicorn", "redis", "torch", "pydicom")
STAGES = ("fetch", "decode", "prepare", "attribute", "judge", "render", "deliver")


def radiograph(folder: Path) -> Path:
    """Write one phantom as an uncompressed 12-bit CR object."""
    case = next(iter(cases(11, 1)))
    path = folder / "cr.dcm"
    path.write_bytes(encoded(dicom.dataset(case, draw(case, (SIDE, SIDE)))))
    return path


def radiographs() -> Path:
    """Return the bundled package that reads radiographs of the chest."""
    return next(each for each in packages.bundled() if each.name == MODEL)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what `work` returned and how long it took, in milliseconds."""
    began = time.perf_counter()
    answer = work()
    return answer, (time.perf_counter() - began) * 1000


def one_job(client: Client, file: Path, model: str) -> dict[str, float]:
    """Upload, ask, wait, fetch; return milliseconds by step and by the worker's stage."""
    body = file.read_bytes()
    headers = {"Content-Type": "application/dicom"}
    study, upload = timed(lambda: client.json("POST", "/v1/studies", content=body, headers=headers))
    request = {
        "study": study["id"],
        "model": model,
        "targets": ["top1"],
        "methods": ["grad_cam"],
        "artifacts": ["dicom_sc"],
    }
    wait = {"Prefer": "wait=60"}
    job, explain = timed(
        lambda: client.json("POST", "/v1/explanations", json=request, headers=wait)
    )
    if job["state"] != "succeeded":
        raise SystemExit(f"the job ended as {job['state']}")
    name = job["results"][0]["artifacts"][0]["name"]
    _, fetch = timed(lambda: client.ask("GET", f"/v1/explanations/{job['id']}/artifacts/{name}"))
    stages = {each: 1000 * float(job["timings"][each]) for each in STAGES}
    return {"upload": upload, "explain": explain, "download": fetch, **stages}


def measure(runs: int) -> list[dict[str, float]]:
    """Run the stack and the jobs, one after the other."""
    environment.forget()
    with tempfile.TemporaryDirectory(prefix="whylight-bench-") as name:
        folder = Path(name)
        file = radiograph(folder)
        with (
            stack.running(Home.at(folder / "home"), port=0) as running,
            key_ring(running.plan.settings()) as keys,
            own_client(running, keys) as client,
        ):
            wait_until_ready(running, client)
            sent = packages.register(client, radiographs())
            packages.wait_until_probed(client, sent, lambda _: running.check())
            ref = sent.manifest.ref
            one_job(client, file, ref)
            return [one_job(client, file, ref) for _ in range(runs)]


def summary(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return median, least and greatest of each step, in milliseconds."""
    return {
        step: {
            "median": round(median(row[step] for row in rows), 1),
            "min": round(min(row[step] for row in rows), 1),
            "max": round(max(row[step] for row in rows), 1),
        }
        for step in rows[0]
    }


def write(steps: dict[str, dict[str, float]], runs: int) -> None:
    """Keep the result beside the benchmark."""
    result: dict[str, Any] = {
        "what": "2048x2048 12-bit uncompressed CR over HTTP, Grad-CAM, Secondary Capture; wall ms",
        "conditions": conditions(PACKAGES),
        "runs": runs,
        "steps": steps,
    }
    print(f"written to {publish('http_job', result)}")


def main() -> None:
    """Measure, print and publish."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=9)
    arguments = parser.parse_args()
    steps = summary(measure(arguments.runs))
    for step, figures in steps.items():
        print(
            f"{step:10} {figures['median']:8.1f} ms  ({figures['min']:.1f} to {figures['max']:.1f})"
        )
    write(steps, arguments.runs)


if __name__ == "__main__":
    main()
