"""``whylight demo``: a stack of its own explains the bundled studies, and is gone."""

import shutil
import tempfile
import time
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.command import environment, follow, packages, report, stack
from service.command.client import Client
from service.command.failure import CommandFailure
from service.command.home import Home
from service.command.keys import key_ring
from service.command.lesions import Lesions
from service.command.report import Explained
from service.command.signals import Interrupted, interruptible
from service.command.up import own_client, wait_until_ready
from service.domain.manifest import Manifest

STUDIES = Path(__file__).resolve().parents[2] / "examples" / "studies" / "chest"
OUTPUT = Path("demo-output")
FORMATS = ("dicom_sc", "png", "json", "npy")
METHODS = ("saliency", "integrated_gradients", "grad_cam", "occlusion")
CLASSIFIER = "chest-phantom"
SHORTCUT = ("chest-phantom-marker", "chest-phantom-control")
"""Trained with a marker that came with nodules, and with the marker at random."""

SHORTCUT_METHODS = ("grad_cam", "occlusion")
TOLERANCE = 0.1
"""Of issued logits: room for another resampling arithmetic."""

CARD = (
    "Synthetic phantoms, explained by a model that was trained on such phantoms. "
    "Not for clinical use."
)


@dataclass(frozen=True, slots=True)
class Task:
    """One explanation that the demo asks for."""

    study: Path
    model: Manifest
    methods: tuple[str, ...]

    target: str = "above_threshold"

    @property
    def folder(self) -> str:
        """Where its files go, below the output."""
        suffix = self.model.id.removeprefix(CLASSIFIER)
        return f"{self.study.stem}{suffix}"

    @property
    def issuer(self) -> str:
        """The model whose results are explained; the ONNX package is the classifier again."""
        return CLASSIFIER if self.model.runtime == "onnx" else self.model.id


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's words."""
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, help=f"folder for the results (default {OUTPUT})"
    )


def run(options: Namespace) -> int:
    """Explain every bundled study; leave files and a summary, and stop what was started."""
    lesions = Lesions(STUDIES)
    environment.forget()  # the demo uses nothing of a service that is set up here
    try:
        with interruptible(), tempfile.TemporaryDirectory(prefix="whylight-demo-") as folder:
            explained = _explain_all(Home.at(Path(folder)), lesions, options.output)
    except Interrupted:
        print("Stopped.")
        return 130
    page = report.summary(explained, CARD)
    (options.output / "SUMMARY.md").write_text(page)
    print(f"\n{report.predictions(explained)}\n\n{report.maps(explained)}\n")
    print(f"{report.shortcut(explained)}\n")
    print(f"The results lie in {options.output}/, the tables in {options.output / 'SUMMARY.md'}.")
    return 0 if all(each.job["state"] == "succeeded" for each in explained) else 1


def _explain_all(home: Home, lesions: Lesions, output: Path) -> list[Explained]:
    """Run the stack and every task on it, one after the other."""
    began = time.monotonic()
    print("Starting Redis, gateway and worker ...", flush=True)
    with (
        stack.running(home, port=0) as running,
        key_ring(running.plan.settings()) as keys,
        own_client(running, keys) as client,
    ):
        wait_until_ready(running, client)
        sent = [packages.register(client, each) for each in packages.bundled()]
        if not sent:
            raise CommandFailure("No model is bundled with this installation.")
        for each in sent:
            packages.wait_until_probed(client, each, lambda _: running.check())
        models = [each.manifest for each in sent]
        print(f"Ready after {time.monotonic() - began:.1f} s at {running.plan.url}", flush=True)
        _empty(output)
        return [_explain(client, task, lesions, output) for task in _tasks(lesions, models)]


def _tasks(lesions: Lesions, models: list[Manifest]) -> list[Task]:
    """Every study by every method; one on ONNX; the marker by the pair of the shortcut."""
    known = {each.id: each for each in models}
    plain = [each for each in lesions.studies() if not lesions.marked(each)]
    marked = [each for each in lesions.studies() if lesions.marked(each)]
    tasks = [Task(study, known[CLASSIFIER], METHODS) for study in plain if CLASSIFIER in known]
    tasks += [
        Task(plain[0], each, ("occlusion",)) for each in models if each.runtime == "onnx" and plain
    ]
    return tasks + [
        Task(study, known[name], SHORTCUT_METHODS, "nodule")
        for study in marked
        for name in SHORTCUT
        if name in known
    ]


def _explain(client: Client, task: Task, lesions: Lesions, output: Path) -> Explained:
    """Upload, ask, follow, fetch, and look where the peaks lie."""
    began = time.monotonic()
    request = {
        "study": follow.upload(client, task.study),
        "model": task.model.ref,
        "targets": [{"kind": "class", "of": task.target}],
        "observed": [
            {"of": key, "score": score, "scale": "logit", "tolerance": TOLERANCE}
            for key, score in lesions.issued(task.study, task.issuer).items()
        ],
        "methods": [{"name": each} for each in task.methods],
        "artifacts": list(FORMATS),
    }
    job = follow.explain(client, request, follow.Progress(task.folder))
    if job["state"] != "succeeded":
        failure = job.get("failure") or {}
        raise CommandFailure(
            f"{task.folder} ended as {job['state']}.", str(failure.get("detail", ""))
        )
    follow.fetch(client, job, output / task.folder)
    return Explained(
        study=task.study.stem,
        model=task.model.id,
        job=job,
        folder=task.folder,
        drawn=lesions.findings(task.study),
        hits=tuple(_hit(lesions, task.study, result) for result in job["results"]),
        marks=tuple(_mark(lesions, task.study, result) for result in job["results"]),
        seconds=time.monotonic() - began,
    )


def _hit(lesions: Lesions, study: Path, result: dict[str, Any]) -> bool | None:
    """Tell whether the map's peak lies in the lesion that its target names."""
    peak = (result["map"] or {}).get("peak")
    if peak is None:
        return None
    return lesions.hit(study, result["target"]["key"], (peak[0], peak[1]))


def _mark(lesions: Lesions, study: Path, result: dict[str, Any]) -> bool | None:
    """Tell whether the map's most relevant cell covers part of the planted marker."""
    found = result["map"] or {}
    peak = found.get("peak")
    return None if peak is None else lesions.on_marker(study, tuple(peak), tuple(found["cell"]))


def _empty(output: Path) -> None:
    """Make the output folder empty of an earlier demo; a foreign folder is refused."""
    if output.exists() and any(output.iterdir()) and not (output / "SUMMARY.md").exists():
        raise CommandFailure(
            f"{output} holds something else.", "Choose another folder with --output."
        )
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    (output / "SUMMARY.md").touch()
