import threading
from pathlib import Path

import pytest
import torch

from service.packages import ModelPackages
from service.settings import StoreSettings
from service.store.objects import open_store
from service.telemetry import Log
from tests.support.hospital import register
from workers.loading import Loader
from workers.scheduler import Scheduler
from workers.shelf import Shelf
from workers.slots import Slots


@pytest.fixture(scope="module")
def slots():
    with Slots(1, address_space_bytes=8 << 30) as running:
        yield running


@pytest.fixture
def desk(tmp_path, slots, monkeypatch):
    """Where an engineer sits, beside a worker's shelf."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "package").mkdir()
    store = open_store(StoreSettings(url=f"file://{tmp_path}/store", reserve_bytes=0))
    scheduler = Scheduler()
    owner = threading.Thread(target=scheduler.run_forever, daemon=True)
    owner.start()
    (tmp_path / "scratch").mkdir()
    loader = Loader(scheduler, torch.device("cpu"), slots, tmp_path / "scratch")
    shelf = Shelf(ModelPackages(store), loader, tmp_path / "cache", Log(worker="w1"), 8 << 30)

    def entry():
        record = register(store, Path("package"))
        shelf.sync()
        return shelf.entries()[record.package]

    yield entry
    scheduler.stop(drain=False)
    owner.join(10)
