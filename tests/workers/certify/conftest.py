"""A small model with known cases, on a scheduler whose thread runs."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from service.certificates import MethodRecords
from service.domain.manifest import Manifest
from service.manifests import read_manifest
from service.settings import StoreSettings
from service.store.objects import open_store
from service.telemetry import Log
from tests.support.packages import entry
from tests.support.small_model import (
    CLASSES,
    LAYER,
    NETWORK,
    model_input,
    network,
    picture,
    write_package,
)
from workers.catalog import ready_model
from workers.certify.certifier import Certifier
from workers.certify.turns import Turns
from workers.document import model_ref
from workers.methods.base import ModelFacts
from workers.model import Model
from workers.precisions import Precisions
from workers.records import Records, Subject
from workers.replicas import Replicas
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler

torch.set_num_threads(1)

PACKAGE = "e" * 64
CASES = 26
SMALL = 24
"""Pixels along each edge: too few for a probe bank, and quick."""


def write_cases(folder: Path, side: int, **tensors: torch.Tensor) -> None:
    """Add a calibration set to a package: pictures, each of which shows one class."""
    stored = [picture(seed, side, side) for seed in range(CASES)]
    shifted = [np.roll(each, 5 * k, axis=(0, 1)) for k, each in enumerate(stored)]
    cases = {
        "images": torch.stack([model_input(each) for each in shifted]),
        "labels": torch.eye(3).repeat(CASES, 1)[:CASES],
    }
    save_file({**cases, **tensors}, folder / "cases.safetensors")
    fields = yaml.safe_load((folder / "model.yaml").read_text())
    fields["files"].append(entry(folder, "calibration", "safetensors", "cases.safetensors"))
    fields["calibration"] = {"cases": "cases.safetensors", "synthetic": True, "title": "Disks."}
    (folder / "model.yaml").write_text(yaml.safe_dump(fields))


@dataclass
class Bench:
    """A certifier beside a store, and the one model on its shelf."""

    folder: Path
    scheduler: Scheduler = field(default_factory=Scheduler)
    stopped: threading.Event = field(default_factory=threading.Event)
    shelf: list[Model] = field(default_factory=list)

    @property
    def store(self) -> MethodRecords:
        """The installation's records."""
        url = f"file://{self.folder}/store"
        return MethodRecords(open_store(StoreSettings(url=url, reserve_bytes=0)))

    @property
    def certifier(self) -> Certifier:
        """A certifier as a worker has it, with no job in hand."""
        return Certifier(
            models=lambda: tuple(self.shelf),
            unpacked=self.folder,
            store=self.store,
            turns=Turns(self.scheduler, self.stopped, lambda: False),
            stopped=self.stopped,
            log=Log(worker="w1"),
        )

    def model(self, side: int = SMALL, classes: int = 3, **tensors: torch.Tensor) -> Model:
        """Return the model on a new shelf, nothing measured yet."""
        package = self.folder / PACKAGE
        if not package.exists():
            specs = [{"key": key, "label": key, "threshold": 1e-6} for key in CLASSES[:classes]]
            write_package(
                package,
                side=side,
                shape={**NETWORK, "classes": classes},
                changes={"outputs": [{"classes": specs}]},
            )
            write_cases(package, side, **tensors)
        manifest = read_manifest((package / "model.yaml").read_bytes())
        self.shelf[:] = [loaded(manifest, side)]
        return self.shelf[0]


def loaded(manifest: Manifest, side: int) -> Model:
    """Return a small model as the loader makes it, its methods not asked for yet."""
    shape = (1, side, side)
    runtime = TorchRuntime(network(classes=len(manifest.classes)), shape, (LAYER,))
    facts = ModelFacts(layers=(LAYER,))
    subject = Subject(manifest, "float32")
    return Model(
        manifest=manifest,
        ref=model_ref(manifest, PACKAGE),
        facts=facts,
        entry=ready_model(manifest, PACKAGE, runtime.probed, shape, facts),
        records=Records(subject),
        precisions=Precisions(subject, "cpu"),
        replicas=Replicas(runtime),
    )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    owner = threading.Thread(target=made.scheduler.run_forever)
    owner.start()
    yield made
    made.stopped.set()
    made.scheduler.stop(drain=False)
    owner.join(20)
    assert not owner.is_alive()
