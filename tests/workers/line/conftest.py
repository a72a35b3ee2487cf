import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest

from service import paths
from service.backends import Backends, open_backends
from service.domain.explanation import Explanation, Result
from service.domain.job import Job
from service.domain.study import Study
from service.packages import PackageRecord
from service.queue.base import Lease
from service.settings import QueueSettings, Settings, StoreSettings, WorkerSettings
from tests.support import redis_server
from tests.support.hospital import ask, document, ended, register, take_in
from tests.support.phantom_dicom import encoded
from tests.support.small_model import picture, write_image, write_package
from workers import line
from workers.held import Held
from workers.line import Line
from workers.wiring import Worker, assembled

SLOTS = 2
MODELS = Path(__file__).parents[3] / "models"
"""The packages that come with the service."""


@contextmanager
def opened(
    folder: Path, worker: dict[str, Any] | None = None, **more: Any
) -> Iterator[tuple[redis_server.Server, Settings, Backends]]:
    """A queue, a store below `folder`, and the settings of a worker of one slot on both."""
    with redis_server.running(redis_server.any_server()) as server:
        settings = Settings(
            queue=QueueSettings(url=server.url),
            store=StoreSettings(url=f"file://{folder}/store", reserve_bytes=0),
            worker=WorkerSettings(**{"slots": 1, "scratch": folder / "scratch", **(worker or {})}),
            **more,
        )
        backends = open_backends(settings)
        yield server, settings, backends
        backends.close()


@dataclass(frozen=True)
class House:
    """A worker at work in this process, on a real Redis and a real store."""

    server: redis_server.Server
    backends: Backends
    worker: Worker
    folder: Path
    scratch: Path
    package: PackageRecord
    thresholded: PackageRecord
    """The same network; no class can reach its threshold."""

    def image(self, name: str, **options: Any) -> Path:
        """Write a picture as a DICOM object."""
        stored = options.pop("stored", None)
        return write_image(
            self.folder / f"{name}.dcm", picture(3) if stored is None else stored, **options
        )

    def explain(
        self, file: Path | Study, package: PackageRecord | None = None, **request: Any
    ) -> tuple[Job, Explanation]:
        """Have an image explained; return the ended record and its document."""
        study = file if isinstance(file, Study) else take_in(self.backends.store, file)
        job = ask(self.backends, package or self.package, study, **request)
        record = ended(self.backends, job)
        return record, document(self.backends, record)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    with opened(folder, {"slots": SLOTS}) as (server, settings, backends):
        package = register(backends.store, write_package(folder / "package"))
        strict = write_package(folder / "strict", name="strict", threshold=0.999999)
        thresholded = register(backends.store, strict)
        with working(settings, backends, {package.package, thresholded.package}) as worker:
            yield House(server, backends, worker, folder, folder / "scratch", package, thresholded)


@dataclass(frozen=True)
class Clinic:
    """A worker at work in this process that serves models of ours."""

    backends: Backends
    folder: Path
    packages: dict[str, PackageRecord]
    """By the names of their folders."""

    def take_in(self, datasets: Iterable[pydicom.Dataset]) -> Study:
        """Store data sets as one study, in their order."""
        files = []
        for number, each in enumerate(datasets):
            files.append(self.folder / f"{number:03d}.dcm")
            files[-1].write_bytes(encoded(each))
        return take_in(self.backends.store, *files)

    def explain(self, model: str, study: Study, **request: Any) -> tuple[Job, Explanation]:
        """Have a study explained; return the ended record and its document."""
        job = ask(self.backends, self.packages[model], study, **request)
        record = ended(self.backends, job, 240)
        return record, document(self.backends, record)

    @property
    def unnoticed(self) -> list[str]:
        """What the self-tests of the packages would not notice, by field."""
        return [field for each in self.backends.fleet.catalog().models for field in each.unnoticed]

    def artifact(self, record: Job, entry: Result, format_: str) -> bytes:
        """Return the one file of a result in a format."""
        (file,) = [each for each in entry.artifacts if each.format == format_]
        return self.backends.store.get(paths.artifact(str(record.result), file.name))


@pytest.fixture(scope="module")
def clinic(served: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """A worker for the packages in the folders that the module's fixture `served` names."""
    folder = tmp_path_factory.mktemp("clinic")
    with opened(folder) as (_, settings, backends):
        packages = {each.name: register(backends.store, each) for each in served}
        with working(settings, backends, {each.package for each in packages.values()}):
            yield Clinic(backends, folder, packages)


class working:  # noqa: N801 - read as a verb: `with working(...)`
    """A worker on a thread of this process, drained at the end."""

    def __init__(self, settings: Settings, backends: Backends, packages: set[str]) -> None:
        self._rooms = assembled(settings)
        self._backends = backends
        self._packages = packages
        self._stop: Callable[[], None] = lambda: None

    def __enter__(self) -> Worker:
        worker = self._rooms.__enter__()
        thread = threading.Thread(target=worker.run, name="owner")
        thread.start()

        def stop() -> None:
            worker.drain()
            thread.join(60)

        self._stop = stop
        ready = threading.Event()
        for _ in range(600):
            served = {p for w in self._backends.fleet.workers() for p in w.packages}
            if self._packages <= served:
                return worker
            ready.wait(0.1)
        stop()
        raise AssertionError(self._backends.fleet.catalog())

    def __exit__(self, *error: object) -> None:
        self._stop()
        self._rooms.__exit__(None, None, None)


def served_by(house: House, wanted: set[str]) -> None:
    """Wait until the house's worker serves these packages."""
    for _ in range(300):
        if wanted <= {p for w in house.backends.fleet.workers() for p in w.packages}:
            return
        time.sleep(0.1)
    raise AssertionError(house.backends.fleet.catalog())


ELSEWHERE = "elsewhere"
"""A pool that the house's own worker does not serve."""


def leased(house: House, **request: object) -> Held:
    """Queue a job where nobody else looks, and lease it."""
    study = take_in(house.backends.store, house.image("end"))
    asked = ask(house.backends, house.package, study, pool=ELSEWHERE, targets=["top1"], **request)
    return Held(lease_of(house, asked))


def lease_of(house: House, job: Job) -> Lease:
    lease = house.backends.queue.lease("test", ELSEWHERE, [job.package])
    assert lease is not None
    assert lease.job.id == job.id
    return lease


@pytest.fixture
def own(house: House, monkeypatch: pytest.MonkeyPatch) -> Line:
    """The house's line, less patient."""
    monkeypatch.setattr(line, "PAUSE", 0.1)
    monkeypatch.setattr(line, "STORE_PATIENCE", 0.5)
    return house.worker._line
