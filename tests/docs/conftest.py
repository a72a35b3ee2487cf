import os
import threading
from pathlib import Path

import pytest
import torch

from service.command.environment import API_KEY, GATEWAY_URL
from service.packages import ModelPackages
from service.settings import PREFIX, StoreSettings
from service.store.objects import open_store
from service.telemetry import Log
from tests.support import worker_process
from tests.support.hospital import register
from tests.support.redis_server import any_server, running
from tests.support.served import serve
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


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """A gateway, Redis, a store and a worker, each the real one."""
    folder = tmp_path_factory.mktemp("hospital")
    with running(any_server()) as redis, serve(redis, folder) as served:
        environment = {
            "WHYLIGHT_QUEUE__URL": redis.url,
            "WHYLIGHT_QUEUE__PREFIX": "t",
            "WHYLIGHT_STORE__URL": served.store.as_uri(),
            "WHYLIGHT_STORE__RESERVE_BYTES": "0",
            "WHYLIGHT_WORKER__SLOTS": "1",
            "WHYLIGHT_WORKER__SCRATCH": str(folder / "work"),
        }
        with worker_process.running("w1", folder, environment):
            yield served


@pytest.fixture
def engineer(hospital, tmp_path, monkeypatch):
    """A desk with an empty package on it, and a key for the gateway."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "package").mkdir()
    for name in [each for each in os.environ if each.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    key = hospital.key()
    monkeypatch.setenv(API_KEY, key)
    monkeypatch.setenv(GATEWAY_URL, hospital.url)
    with hospital.client(key) as client:
        client.timeout = 90.0
        yield client
