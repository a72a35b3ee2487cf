"""Memory and time of explaining a CT of 512 x 512 x 300 voxels window by window.

    OMP_NUM_THREADS=1 python -m benchmarks.windows [--shape 300 512 512]

A drawn series goes through the whole line of a worker in a process of its own: decoded,
prepared, segmented by the U-Net of `models/spheres-unet` in windows, explained for what
it outlines, and written. The worker's peak is the most memory that its process ever had;
beside it stands the largest of its slots. The figure for an answer of one graph is not
measured: it does not fit.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from numpy.typing import NDArray
from safetensors.torch import load_file
from typing_extensions import override

from benchmarks.measure import MISSED, conditions, publish
from examples.spheres.phantom import draw
from examples.spheres.scans import SCANS
from examples.spheres.train import stepped
from examples.spheres.unet import KNOWN, NETWORK, logits
from service.backends import Backends, open_backends
from service.domain.inputs import SlidingWindow, StepChoice
from service.domain.study import Study
from service.packages import PackageRecord
from service.settings import QueueSettings, Settings, StoreSettings, WorkerSettings
from tests.support import redis_server
from tests.support.hospital import ask, document, register, take_in
from tests.support.phantom_dicom import encoded
from tests.support.volumes import Series
from workers.tiling import Tiling
from workers.wiring import assembled

PACKAGES = ("numpy", "torch", "pydicom")
SHAPE = (300, 512, 512)
SPACING = 2.25
"""Of every axis, in mm: what the network was trained on, so that nothing is resampled."""

EDGE = 96
OVERLAP = 0.125
METHODS = ("saliency", "grad_cam")
BAR = 8.0
"""GiB of the worker at most."""

LIMIT = timedelta(hours=3)
"""For the whole, also on a machine that does other things meanwhile."""

GIB = 1024**3


class Spheres(Series):
    """Soft tissue with noise, and dense spheres at known places."""

    @property
    def centers(self) -> NDArray[np.int64]:
        """Two spheres: one within a window, one where several overlap."""
        return np.array(self.shape) * [[1], [2]] // 3

    @cached_property
    @override
    def stored(self) -> NDArray[np.uint16]:
        """Stored values, shape ``shape``."""
        values = np.random.default_rng(0).normal(1064, 25, self.shape).astype(np.float32)
        for center in self.centers:
            box = tuple(slice(at - 4, at + 5) for at in center)
            ball = sum(np.square(np.mgrid[-4:5, -4:5, -4:5])) <= 3**2
            values[box] += 260 * ball
        return values.astype(np.uint16)


def write_series(folder: Path, series: Spheres) -> None:
    """Write the slices as Part 10 files."""
    for number in range(series.shape[0]):
        data = series.dataset(number)
        (folder / f"{number:04d}.dcm").write_bytes(encoded(data))


def write_package(folder: Path, edge: int) -> None:
    """Write the U-Net of spheres with larger windows, and with nothing cropped or resampled."""
    source = Path(__file__).parents[1] / "models" / "spheres-unet"
    fields = yaml.safe_load((source / "model.yaml").read_text())
    for each in fields["files"]:
        path = folder / each["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((source / each["path"]).read_bytes())
    steps = fields["inputs"][0]["steps"]
    fields["inputs"][0]["steps"] = [
        each for each in steps if each["name"] not in {"crop_foreground", "resample"}
    ]
    fields["sliding_window"] |= {"size": [edge] * 3, "overlap": OVERLAP}
    network = NETWORK.build()
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    windows = SlidingWindow.model_validate(fields["sliding_window"])
    kept = [StepChoice.model_validate(each) for each in fields["inputs"][0]["steps"]]
    known = zip(fields["selftests"], KNOWN, SCANS, strict=True)
    for each, (finding, seed), scan in known:
        image = np.ascontiguousarray(stepped(scan(draw(seed, [finding])), kept).values)
        said = logits(network.eval(), image, windows).flatten(1).double().mean(1)
        each["logits"] = said.tolist()
    (folder / "model.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))


class Peaks(threading.Thread):
    """Watches the slots of this process; a slot that ends takes its figure with it."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.slots: dict[int, int] = {}
        self.ended = threading.Event()

    @override
    def run(self) -> None:
        while not self.ended.wait(0.2):
            for each in psutil.Process().children(recursive=True):
                with suppress(psutil.Error, FileNotFoundError, ValueError):
                    if "slot" in " ".join(each.cmdline()):
                        self.slots[each.pid] = max(self.slots.get(each.pid, 0), peak(each.pid))


def peak(pid: int | str = "self") -> int:
    """Return the most memory that a process ever had, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (each for each in lines if each.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def child(folder: Path) -> None:
    """Explain the series in `folder` and say what it took."""
    peaks = Peaks()
    peaks.start()
    with redis_server.running(redis_server.any_server()) as server:
        settings = Settings(
            queue=QueueSettings(url=server.url),
            store=StoreSettings(url=f"file://{folder}/store", reserve_bytes=0),
            worker=WorkerSettings(
                slots=1, scratch=folder / "scratch", job_limit=LIMIT, load_limit=LIMIT
            ),
        )
        backends = open_backends(settings)
        package = register(backends.store, folder / "package")
        study = take_in(backends.store, *sorted((folder / "series").glob("*.dcm")))
        with assembled(settings) as worker:
            owner = threading.Thread(target=worker.run)
            owner.start()
            while not any(package.package in each.packages for each in backends.fleet.workers()):
                time.sleep(0.2)
            before = peak()
            told = explained(backends, package, study, series_of(folder))
            worker.drain()
            owner.join(60)
        peaks.ended.set()
        backends.close()
    slots = max(peaks.slots.values(), default=0)
    print(json.dumps({**told, "idle": before, "worker": peak(), "largest_slot": slots}))


def around(center: NDArray[np.int64]) -> list[float]:
    """Return the box of source pixels about a sphere."""
    return [float(each) for each in (*(center - 4), *(center + 5))]


def series_of(folder: Path) -> Spheres:
    """Return the series that lies in a folder, as it was drawn."""
    shape = json.loads((folder / "shape.json").read_text())
    return Spheres(shape=tuple(shape), spacing=(SPACING,) * 3)


def explained(
    backends: Backends, package: PackageRecord, study: Study, series: Spheres
) -> dict[str, Any]:
    """Ask, follow the job to its end, and return what came of it."""
    began = time.monotonic()
    job = ask(
        backends,
        package,
        study,
        targets=[
            {"kind": "segmentation", "of": "dense", "region": {"kind": "box", "box": around(each)}}
            for each in series.centers
        ],
        methods=list(METHODS),
        artifacts=["npz", "dicom_seg"],
        checks="none",
    )
    events, after = 0, None
    while True:
        found = backends.queue.events(job.tenant, job.id, after=after)
        events += len(found)
        after = found[-1].id if found else after
        record = backends.queue.get(job.tenant, job.id)
        if record.state.ended:
            break
        time.sleep(1)
    told = document(backends, record)
    return {
        "state": record.state.value,
        "failure": told.failure and told.failure.code,
        "seconds": round(time.monotonic() - began, 1),
        "stages": {name: round(each, 1) for name, each in told.timings.items()},
        "events": events,
        "cells": [each.cells for each in told.predictions],
        "peaks": [each.map.peak if each.map else None for each in told.results],
    }


def main() -> None:
    """Measure, print and publish."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE)
    parser.add_argument("--edge", type=int, default=EDGE, help="of a window, in cells")
    asked = parser.parse_args()
    if asked.child:
        child(asked.child)
        return
    shape = tuple(asked.shape)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "series").mkdir()
        (folder / "shape.json").write_text(json.dumps(shape))
        write_series(folder / "series", series_of(folder))
        write_package(folder / "package", asked.edge)
        command = [sys.executable, "-m", "benchmarks.windows", "--child", str(folder)]
        out = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
        found = json.loads(out.stdout.splitlines()[-1])
    for each in ("idle", "worker", "largest_slot"):
        found[each] = round(found[each] / GIB, 2)
    right = [near(place, Spheres(shape=shape).centers) for place in found["peaks"]]
    held = found["state"] == "succeeded" and all(right) and found["worker"] <= BAR
    tiling = Tiling(SlidingWindow(size=(asked.edge,) * 3, overlap=OVERLAP), shape)
    found |= {"windows": tiling.count, "peaks_in_spheres": right}
    print(found)
    print(f"bar {BAR} GiB of the worker: {'holds' if held else 'FAILS'}")
    result = {
        "what": f"a CT of {shape} voxels in windows of {asked.edge}; GiB and seconds",
        "conditions": conditions(PACKAGES),
        "bar_gib": BAR,
        "found": found,
    }
    print(f"written to {publish('windows', result)}")
    sys.exit(0 if held else MISSED)


def near(place: list[float] | None, centers: NDArray[np.int64]) -> bool:
    """Tell whether a map's peak lies in a sphere, or next to it."""
    return place is not None and bool((np.linalg.norm(centers - place, axis=1) < 6).any())


if __name__ == "__main__":
    main()
