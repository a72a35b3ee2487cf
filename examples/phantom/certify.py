"""Measure every method on the bundled models, and put what was found into their packages.

``python -m examples.phantom.certify [FOLDER ...]`` runs what a worker does in
the background after a model is registered; with the records in the package no
worker needs to. What a package holds already is kept where it still fits.
Methods of few passes are measured in bfloat16 as well; ``--precisions`` does
that alone. ``--unasked`` leaves to workers what they measure at its first request.
"""

import argparse
import hashlib
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import yaml

from service.certificates import MethodRecords
from service.domain.certificate import MethodRecord
from service.domain.files import File
from service.domain.manifest import Manifest
from service.domain.precision import PrecisionRecord
from service.manifests import read_manifest
from service.precisions import PrecisionRecords, Wishes
from service.records import write_listed
from service.settings import StoreSettings
from service.store.objects import open_store
from service.telemetry import Log
from workers.catalog import defaults
from workers.certify.certifier import Certifier
from workers.certify.rounds import HERE_ALONE
from workers.certify.surveyor import Surveyor
from workers.certify.turns import Turns
from workers.loading import UNASKED, Loader
from workers.model import Model
from workers.scheduler import Scheduler
from workers.slots import Slots

MODELS = Path(__file__).parents[2] / "models"
NAME = "certificates.json"
PRECISIONS = "precisions.json"
CHEAP = 8
"""Forward passes to a map, or their like, up to which a method is measured in bfloat16."""

DECODER_BYTES = 4 << 30
"""Address space of the process that decodes the self-tests."""


@dataclass(frozen=True, slots=True)
class Workbench:
    """A loaded model and the device loop that serves it."""

    model: Model
    scheduler: Scheduler
    scratch: Path
    stopped: threading.Event

    @property
    def turns(self) -> Turns:
        """Turns on the device, with no job in hand."""
        return Turns(self.scheduler, self.stopped, lambda: False)


@contextmanager
def workbench(package: Path) -> Iterator[Workbench]:
    """Load a package as a worker does, on a device loop of its own."""
    torch.set_num_threads(1)
    scheduler = Scheduler()
    owner = threading.Thread(target=scheduler.run_forever)
    owner.start()
    try:
        with (
            tempfile.TemporaryDirectory() as scratch,
            Slots(1, address_space_bytes=DECODER_BYTES) as slots,
        ):
            manifest = read_manifest((package / "model.yaml").read_bytes())
            loader = Loader(scheduler, torch.device("cpu"), slots, Path(scratch))
            model = loader.load(manifest, package.name, package)
            yield Workbench(model, scheduler, Path(scratch), threading.Event())
    finally:
        scheduler.stop(drain=False)
        owner.join()


def measured(package: Path, *, unasked: bool = False) -> Iterator[tuple[MethodRecord, ...]]:
    """Measure every method that a package's model serves by default, one after the other.

    Parameters
    ----------
    unasked
        Whether to leave out what a worker measures when it is first asked for.

    Yields
    ------
    tuple of MethodRecord
        All that is known after each method.
    """
    with workbench(package) as bench:
        records = bench.model.records
        certifier = Certifier(
            models=lambda: (bench.model,),
            unpacked=package.parent,
            store=MethodRecords(open_store(StoreSettings(url=f"file://{bench.scratch}/store"))),
            turns=bench.turns,
            stopped=bench.stopped,
            log=Log(),
        )
        for method in defaults(bench.model.entry.methods, bench.model.facts).values():
            if unasked and method.estimate(bench.model.runtime.shape, 1).effort > UNASKED:
                continue
            records.record(method)
            certifier.serve(bench.model)
            yield tuple(
                each
                for _, each in records.all()
                if each != "pending" and each.certificate.reason not in HERE_ALONE
            )


def narrowed(package: Path) -> tuple[PrecisionRecord, ...]:
    """Return how near the maps of cheap methods are in bfloat16, with default parameters."""
    with workbench(package) as bench:
        model, store = bench.model, open_store(StoreSettings(url=f"file://{bench.scratch}/store"))
        for method in defaults(model.entry.methods, model.facts).values():
            if method.estimate(model.runtime.shape, 1).effort <= CHEAP:
                model.precisions.wish(method)
        Surveyor(
            models=lambda: (model,),
            unpacked=package.parent,
            wishes=Wishes(store),
            store=PrecisionRecords(store),
            turns=bench.turns,
            stopped=bench.stopped,
            log=Log(),
        ).serve(model)
        return tuple(sorted(model.precisions.all(), key=lambda each: each.method))


def bring(
    package: Path, name: str, role: Literal["certificates", "precisions"], content: bytes
) -> None:
    """Write records into a package, and list them in its manifest."""
    path = package / "model.yaml"
    manifest = read_manifest(path.read_bytes())
    (package / name).write_bytes(content)
    file = File(
        role=role,
        format="json",
        path=name,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
    )
    others = tuple(each for each in manifest.files if each.path != name)
    listed: Manifest = manifest.model_copy(update={"files": (*others, file)})
    fields = listed.model_dump(mode="json", exclude_unset=True)  # nothing else changes in the file
    path.write_text(yaml.safe_dump(fields, sort_keys=False, width=100))


def main() -> None:
    """Certify the packages named, or all that are bundled and have a calibration set."""
    parser = argparse.ArgumentParser(description="Measure methods on the bundled models.")
    parser.add_argument("package", nargs="*", type=Path, help="all if none is named")
    parser.add_argument("--precisions", action="store_true", help="no certificates")
    parser.add_argument("--unasked", action="store_true", help="no method of many passes")
    asked = parser.parse_args()
    for package in asked.package or sorted(MODELS.iterdir()):
        manifest = read_manifest((package / "model.yaml").read_bytes())
        if manifest.calibration is None:
            continue
        if not asked.precisions:
            _certify(package, manifest.ref, unasked=asked.unasked)
        if manifest.runtime == "torch":
            precisions = narrowed(package)
            bring(package, PRECISIONS, "precisions", write_listed(precisions))
            for each in precisions:
                print(f"{manifest.ref:28} {each.method:24} {each.outcome:12} {each.worst}")


def _certify(package: Path, ref: str, *, unasked: bool) -> None:
    """Certify what a package serves, and tell how each method fared."""
    records: tuple[MethodRecord, ...] = ()
    for records in measured(package, unasked=unasked):
        # each at once: a dear method takes many minutes
        bring(package, NAME, "certificates", write_listed(records))
    for each in records:
        found, calibration = each.certificate, each.calibration
        supported = "" if calibration is None else f"{calibration.supported:.0%} supported"
        print(f"{ref:28} {each.method:24} {found.outcome:16} {supported}")


if __name__ == "__main__":
    main()
