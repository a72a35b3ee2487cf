import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from service.domain.catalog import ModelEntry
from service.errors.models import ModelUnavailable
from service.packages import ModelPackages, PackageRecord
from service.settings import StoreSettings
from service.store.base import BlobStore
from service.store.objects import open_store
from service.telemetry import Log
from tests.support.hospital import register
from tests.support.small_model import write_package
from workers.loading import Loader
from workers.scheduler import Scheduler
from workers.shelf import Shelf
from workers.slots import Slots


@dataclass(frozen=True)
class Room:
    """A shelf beside a real store, on a scheduler that runs."""

    store: BlobStore
    packages: ModelPackages
    shelf: Shelf
    folder: Path

    def register(self, name: str = "small", **options: Any) -> PackageRecord:
        """Write and register a package."""
        return register(self.store, write_package(self.folder / name, name=name, **options))

    def entry(self, record: PackageRecord) -> ModelEntry:
        """Return the catalog's entry of a package after a look into the store."""
        self.shelf.sync()
        return self.shelf.entries()[record.package]

    def refusal(self, record: PackageRecord) -> str:
        """Return the reason why a package is unavailable."""
        entry = self.entry(record)
        assert entry.state == "unavailable"
        assert record.package not in self.shelf.ready()
        with pytest.raises(ModelUnavailable):
            self.shelf.get(record.package)
        assert entry.failure is not None
        return entry.failure.detail


@pytest.fixture(scope="module")
def slots() -> Iterator[Slots]:
    with Slots(1, address_space_bytes=4 << 30) as running:
        yield running


@pytest.fixture
def room(tmp_path: Path, slots: Slots) -> Iterator[Room]:
    store = open_store(StoreSettings(url=f"file://{tmp_path}/store", reserve_bytes=0))
    scheduler = Scheduler()
    owner = threading.Thread(target=scheduler.run_forever)
    owner.start()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    loader = Loader(scheduler, torch.device("cpu"), slots, scratch)
    packages = ModelPackages(store)
    shelf = Shelf(packages, loader, tmp_path / "cache", Log(worker="w1"), 1 << 30)
    yield Room(store, packages, shelf, tmp_path)
    scheduler.stop(drain=False)
    owner.join(10)
