from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.backends import Backends, open_backends
from service.domain.study import Study
from service.packages import PackageRecord
from service.settings import QueueSettings, Settings, StoreSettings
from tests.support import redis_server, worker_process
from tests.support.hospital import register, take_in
from tests.support.small_model import picture, write_image, write_package
from tests.support.worker_process import WorkerProcess

SIDE = 160


@dataclass(frozen=True)
class Ward:
    """Redis, a store, a registered model that takes its time, and a study."""

    server: redis_server.Server
    backends: Backends
    package: PackageRecord
    study: Study
    folder: Path
    environment: dict[str, str]


@contextmanager
def opened(folder: Path) -> Iterator[Ward]:
    """Open a ward below a folder."""
    store = f"file://{folder}/store"
    options = ("--appendonly", "yes", "--appendfsync", "always")
    with redis_server.running(redis_server.any_server(), *options) as server:
        settings = Settings(
            queue=QueueSettings(url=server.url), store=StoreSettings(url=store, reserve_bytes=0)
        )
        backends = open_backends(settings)
        slow = {"stem": 32, "widths": [64, 64]}
        package = register(backends.store, write_package(folder / "package", side=SIDE, shape=slow))
        image = write_image(folder / "image.dcm", picture(7, SIDE, SIDE))
        study = take_in(backends.store, image)
        environment = {
            "WHYLIGHT_QUEUE__URL": server.url,
            "WHYLIGHT_STORE__URL": store,
            "WHYLIGHT_STORE__RESERVE_BYTES": "0",
            "WHYLIGHT_WORKER__SLOTS": "1",
            "WHYLIGHT_WORKER__SCRATCH": str(folder / "scratch"),
            "OMP_NUM_THREADS": "1",
        }
        yield Ward(server, backends, package, study, folder, environment)
        backends.close()


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    with opened(tmp_path) as ward:
        yield ward


@pytest.fixture
def start(ward: Ward) -> Iterator[Callable[..., WorkerProcess]]:
    """Start workers by name; all are ended with the test."""
    workers: list[WorkerProcess] = []

    def begin(name: str, *program: str, **environment: str) -> WorkerProcess:
        log = ward.folder / f"{name}.log"
        worker = WorkerProcess(name, log, {**ward.environment, **environment})
        worker.program = program or worker.program
        worker.start()
        workers.append(worker)
        return worker

    yield begin
    for worker in workers:
        worker.end()


@pytest.fixture
def pair(ward: Ward, start: Callable[..., WorkerProcess]) -> dict[str, WorkerProcess]:
    """Two workers that both serve the model."""
    workers = {name: start(name) for name in ("alpha", "beta")}
    worker_process.wait_ready(ward.backends, ward.package.package, *workers.values())
    return workers
