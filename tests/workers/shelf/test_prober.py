"""Probes: one worker takes a registered package in at once, and tells what came of it."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from service.backends import Backends, open_backends
from service.domain.job import INSTALLATION, Job, State
from service.packages import ModelPackages, PackageRecord
from service.registrations import Registrations
from service.settings import QueueSettings, Settings, StoreSettings
from service.telemetry import Log
from tests.support.dead_store import dead_store
from tests.support.hospital import ended
from tests.support.redis_server import any_server, running
from tests.workers.shelf.conftest import Room
from workers import prober
from workers.loads import Loads
from workers.loop import Loop
from workers.prober import Prober

pytestmark = pytest.mark.redis

WAIT = 0.2


@dataclass(frozen=True)
class Bench:
    """A shelf whose probes are led as in a worker, by a thread of this process."""

    room: Room
    backends: Backends
    loop: Loop
    prober: Prober
    served: list[tuple[str, ...]]
    """What was ready each time the fleet was told."""

    def queue(self, record: PackageRecord) -> Job:
        """Queue a package's probe, as the gateway does when it comes again."""
        asked = Registrations(self.backends, self.room.packages, "default")
        return asked._queued(record, "default")

    def now(self, job: Job) -> Job:
        """Return a job as it is."""
        return self.backends.queue.get(job.tenant, job.id)

    def led(self, job: Job) -> Job:
        """Lead what waits; return a job as it is then."""
        self.prober.wait(WAIT)
        return self.now(job)


@pytest.fixture
def bench(room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(prober, "PAUSE", 0.0)
    with running(any_server()) as server:
        queue = QueueSettings(url=server.url, renew=timedelta(seconds=0.3))
        store = StoreSettings(url=f"file://{tmp_path}/store", reserve_bytes=0)
        settings = Settings(queue=queue, store=store)
        backends = open_backends(settings)
        loop = Loop(
            name="w1",
            queue=backends.queue,
            packages=tuple,
            lead=lambda _: None,
            settings=settings,
            log=Log(),
        )
        served: list[tuple[str, ...]] = []
        probing = Prober(
            name="w1",
            pool="default",
            queue=backends.queue,
            shelf=room.shelf,
            hand=loop.hand,
            publish=lambda: served.append(room.shelf.ready()),
            draining=loop.draining,
            ended=loop.ended,
            log=Log(),
        )
        loop.start()
        yield Bench(room, backends, loop, probing, served)
        loop.drain()
        loop.join()
        backends.close()


def test_a_probe_takes_a_package_in_at_once_and_ends_when_it_serves(bench: Bench) -> None:
    record = bench.room.register()
    job = bench.led(bench.queue(record))
    assert (job.state, job.attempt, job.failure) == (State.SUCCEEDED, 1, None)
    assert bench.room.shelf.ready() == (record.package,)
    assert bench.served == [(record.package,)]


def test_a_probe_fails_as_the_packages_entry_does_and_the_next_one_is_led(bench: Bench) -> None:
    tests = [{"title": "plain", "input": "plain.dcm", "logits": [9.0, 9.0, 9.0], "tolerance": 1e-3}]
    wrong = bench.queue(bench.room.register("wrong", changes={"selftests": tests}))
    sound = bench.queue(bench.room.register("sound"))
    failed = bench.led(wrong)
    assert failed.state is State.FAILED
    assert failed.failure is not None
    assert failed.failure.facts["selftest"] == "plain"
    assert failed.failure == bench.room.shelf.entries()[wrong.package].failure
    assert bench.now(sound).state is State.SUCCEEDED


def test_a_probe_is_led_between_two_packages_of_the_start(bench: Bench) -> None:
    asked, _, first = (bench.room.register(name) for name in ("asked", "between", "first"))
    job = bench.queue(asked)
    bench.room.shelf.open(threading.Event(), bench.prober.lead_waiting)
    assert bench.now(job).state is State.SUCCEEDED
    assert bench.served == [tuple(sorted((asked.package, first.package)))]
    assert len(bench.room.shelf.ready()) == 3


def test_what_the_shelf_found_itself_is_not_loaded_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = bench.room.register()
    bench.room.shelf.sync()
    monkeypatch.setattr(bench.room.shelf._loader, "load", None)
    assert bench.led(bench.queue(record)).state is State.SUCCEEDED


def test_a_package_that_is_registered_anew_is_tried_anew(bench: Bench) -> None:
    record = bench.room.register()
    path = f"models/packages/{record.package}/files/weights.safetensors"
    sound = bench.room.store.get(path)
    bench.room.store.put(path, sound[:-1])
    assert bench.led(bench.queue(record)).state is State.FAILED
    bench.room.store.put(path, sound)
    bench.room.shelf.sync()
    assert bench.room.shelf.ready() == ()  # what failed is not tried at each look
    renewed = bench.room.packages.renew(record)
    bench.backends.queue.forget(INSTALLATION, f"pr_{record.package}")
    job = bench.led(bench.queue(renewed))
    assert (job.state, job.attempt) == (State.SUCCEEDED, 1)


def test_a_package_given_up_by_its_loads_fails_its_probe_unloaded(bench: Bench) -> None:
    record = bench.room.register()
    bench.room.shelf._noted = Loads(bench.backends.fleet, "w1", Log()).noted
    job = bench.queue(record)
    for _ in range(2):
        bench.backends.fleet.begin_load(record.package, "w1", seconds=9)
    failed = bench.led(job)
    assert failed.failure is not None
    assert failed.failure.code == "model_crashed"


def test_a_probe_goes_back_uncounted_while_another_load_or_the_store_is_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = bench.room.register()
    fleet = bench.backends.fleet
    bench.room.shelf._noted = Loads(fleet, "w1", Log()).noted
    fleet.begin_load(record.package, "w2", seconds=9)
    fleet.begin_load(record.package, "w2", seconds=9)  # its first life was lost
    job = bench.led(bench.queue(record))
    assert (job.state, job.attempt) == (State.QUEUED, 0)
    fleet.end_load("w2")
    bench.room.shelf._packages = ModelPackages(dead_store(monkeypatch))
    job = bench.led(job)
    assert (job.state, job.attempt) == (State.QUEUED, 0)
    bench.room.shelf._packages = bench.room.packages
    assert bench.led(job).state is State.SUCCEEDED


def test_the_probe_of_a_package_that_was_withdrawn_fails(bench: Bench) -> None:
    record = bench.room.register()
    job = bench.queue(record)
    bench.room.packages.remove(record.name, record.version)
    failed = bench.led(job)
    assert failed.failure is not None
    assert "no longer registered" in failed.failure.detail


@pytest.fixture
def slow(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Have loads last until the function is called."""
    loader, over = bench.room.shelf._loader, threading.Event()
    load = loader.load

    def slowly(*asked: object) -> object:
        over.wait(20)
        return load(*asked)  # type: ignore[arg-type]

    monkeypatch.setattr(loader, "load", slowly)
    yield over.set
    over.set()


def beginning(bench: Bench, job: Job) -> threading.Thread:
    """Have a job led by a thread; return when it is under way."""
    thread = threading.Thread(target=bench.prober.wait, args=(WAIT,))
    thread.start()
    until = time.monotonic() + 10
    while bench.now(job).stage != "probe":
        assert time.monotonic() < until
        time.sleep(0.02)
    return thread


def test_a_probe_keeps_its_lease_however_long_the_load_and_goes_back_when_drained(
    bench: Bench, slow: Callable[[], None]
) -> None:
    job = bench.queue(bench.room.register())
    leading = beginning(bench, job)
    assert not bench.loop.hand.all()[0].stalled
    bench.loop.drain()
    bench.loop.join()  # within the test's time: nobody waits for the load
    after = bench.now(job)
    assert (after.state, after.attempt) == (State.QUEUED, 0)
    slow()
    leading.join(20)
    assert bench.now(job) == after
    assert bench.served == []  # a worker that has gone announces nothing


def test_a_probe_is_cancelled_at_once_though_its_load_goes_on(
    bench: Bench, slow: Callable[[], None]
) -> None:
    job = bench.queue(bench.room.register())
    leading = beginning(bench, job)
    bench.backends.queue.cancel(job.tenant, job.id)
    assert ended(bench.backends, job, 10).state is State.CANCELLED
    slow()
    leading.join(20)
    assert bench.now(job).state is State.CANCELLED
