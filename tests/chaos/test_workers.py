import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import pytest
import torch

from service import paths
from service.contents import pack
from service.domain.job import Job, Stage, State
from service.fleet.base import Leave
from service.registrations import Registrations
from service.settings import LimitSettings
from tests.chaos.conftest import Ward, opened
from tests.support import worker_process
from tests.support.exported import crashing, onnx_of, write_onnx_package
from tests.support.hospital import ask, document, ended, published
from tests.support.small_model import SIDE, network
from tests.support.worker_process import WorkerProcess

pytestmark = [pytest.mark.redis, pytest.mark.slow]

Start = Callable[..., WorkerProcess]
SHORT_LEASE = {"WHYLIGHT_QUEUE__LEASE": "PT4S", "WHYLIGHT_QUEUE__RENEW": "PT1S"}
"""Where it matters that a lease ends, and not when."""


class Standing(NamedTuple):
    """A ward, and a worker that outlives what is done to it."""

    ward: Ward
    worker: WorkerProcess


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    folder = tmp_path_factory.mktemp("ward")
    with (
        opened(folder) as ward,
        worker_process.running("alpha", folder, ward.environment) as alpha,
    ):
        worker_process.wait_ready(ward.backends, ward.package.package, alpha)
        yield Standing(ward, alpha)


def long_job(ward: Ward, steps: int = 512) -> Job:
    """Queue a job of many seconds."""
    methods = [{"name": "integrated_gradients", "parameters": {"steps": steps}}]
    return ask(ward.backends, ward.package, ward.study, methods=methods, targets=["nodule"])


def until(ward: Ward, job: Job, wanted: Callable[[Job], bool], seconds: float = 30.0) -> Job:
    """Wait until the record of a job is as wanted, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        record = ward.backends.queue.get(job.tenant, job.id)
        if wanted(record):
            return record
        time.sleep(0.02)
    record = ward.backends.queue.get(job.tenant, job.id)
    raise AssertionError(f"{record.state} {record.stage} {record.progress}")


def at_work(worker: str, record: Job) -> bool:
    """Whether a worker has begun to compute a job."""
    return record.worker == worker and record.progress > 0


def mid_job(ward: Ward, job: Job) -> str:
    """Wait until a job is in the midst of its passes; return its worker."""
    record = until(ward, job, lambda r: r.stage is Stage.ATTRIBUTE and r.progress > 20)
    assert record.worker is not None
    return record.worker


def assert_published_once(ward: Ward, record: Job) -> None:
    assert record.result is not None
    assert published(ward.backends, record)
    assert all(path.startswith(f"{record.result}/") for path in published(ward.backends, record))
    assert document(ward.backends, record).state == record.state


def test_a_killed_workers_job_ends_on_another_within_fifteen_seconds(
    ward: Ward, pair: dict[str, WorkerProcess]
) -> None:
    job = long_job(ward, steps=64)
    victim = mid_job(ward, job)
    pair[victim].end(signal.SIGKILL)
    killed = time.monotonic()
    record = ended(ward.backends, job)
    assert time.monotonic() - killed < 15.0, document(ward.backends, record).timings
    assert record.state is State.SUCCEEDED
    assert record.attempt == 2
    assert record.worker != victim
    assert_published_once(ward, record)


def test_a_paused_worker_that_comes_back_publishes_nothing_stale(ward: Ward, start: Start) -> None:
    pair = {name: start(name, **SHORT_LEASE) for name in ("alpha", "beta")}
    worker_process.wait_ready(ward.backends, ward.package.package, *pair.values())
    job = long_job(ward, steps=256)
    victim = mid_job(ward, job)
    pair[victim].send(signal.SIGSTOP)
    record = ended(ward.backends, job)
    assert record.worker != victim
    pair[victim].send(signal.SIGCONT)
    end = time.monotonic() + 20
    while "lease_lost" not in pair[victim].events():
        assert time.monotonic() < end
        time.sleep(0.1)
    after = ward.backends.queue.get(job.tenant, job.id)
    assert after == record
    assert_published_once(ward, after)
    again = ask(ward.backends, ward.package, ward.study)
    assert ended(ward.backends, again).state is State.SUCCEEDED


def test_a_running_job_stops_within_two_seconds_of_its_cancellation(standing: Standing) -> None:
    ward = standing.ward
    job = long_job(ward)
    mid_job(ward, job)
    asked = time.monotonic()
    ward.backends.queue.cancel(job.tenant, job.id)
    record = until(ward, job, lambda r: r.state.ended)
    assert time.monotonic() - asked < 2.0
    assert record.state is State.CANCELLED
    assert document(ward.backends, record).state == "cancelled"
    assert published(ward.backends, record) == [paths.document(str(record.result))]


def test_a_terminated_worker_gives_back_what_it_cannot_end(ward: Ward, start: Start) -> None:
    alpha = start("alpha", WHYLIGHT_WORKER__GRACE="PT1S")
    worker_process.wait_ready(ward.backends, ward.package.package, alpha)
    job = long_job(ward)
    mid_job(ward, job)
    asked = time.monotonic()
    assert alpha.end(signal.SIGTERM) == 0
    assert time.monotonic() - asked < 10.0
    record = ward.backends.queue.get(job.tenant, job.id)
    assert record.state is State.QUEUED
    assert record.attempt == 0  # a drain is nobody's fault
    assert published(ward.backends, job) == []
    assert [w.id for w in ward.backends.fleet.workers()] == []
    assert list((ward.folder / "scratch").iterdir()) == []
    events = alpha.events()
    assert events[-1] == "stopped"
    assert "unexpected_error" not in events


def test_a_terminated_worker_ends_what_it_can(ward: Ward, start: Start) -> None:
    alpha = start("alpha")
    worker_process.wait_ready(ward.backends, ward.package.package, alpha)
    job = long_job(ward, steps=192)
    mid_job(ward, job)
    assert alpha.end(signal.SIGTERM) == 0
    record = ward.backends.queue.get(job.tenant, job.id)
    assert record.state is State.SUCCEEDED
    assert record.attempt == 1


def test_a_job_outlives_a_restart_of_redis(standing: Standing) -> None:
    ward, alpha = standing
    before = len(alpha.events())
    job = long_job(ward, steps=384)
    mid_job(ward, job)
    ward.server.kill()
    time.sleep(2.0)
    ward.server.start()
    record = ended(ward.backends, job)
    assert record.state is State.SUCCEEDED
    assert record.attempt == 1
    assert_published_once(ward, record)
    assert alpha.process.poll() is None
    assert {"dependency_down", "dependency_back"} <= set(alpha.events()[before:])


def test_redis_gone_at_the_end_of_a_job_settles_it_later(standing: Standing) -> None:
    ward = standing.ward
    job = ask(
        ward.backends,
        ward.package,
        ward.study,
        methods=[{"name": "integrated_gradients", "parameters": {"steps": 64}}],
    )
    mid_job(ward, job)
    ward.server.kill()
    end = time.monotonic() + 30
    while len(published(ward.backends, job)) < 4:  # three maps and the document
        assert time.monotonic() < end
        time.sleep(0.1)
    ward.server.start()
    record = ended(ward.backends, job)
    assert record.state is State.SUCCEEDED
    assert_published_once(ward, record)


def test_a_poison_job_is_given_up_after_three_lost_workers(ward: Ward, start: Start) -> None:
    job = long_job(ward)
    for number in range(3):
        worker = start(f"victim-{number}", **SHORT_LEASE)
        until(ward, job, partial(at_work, worker.name), seconds=60)
        worker.end(signal.SIGKILL)
    survivor = start("survivor", **SHORT_LEASE)
    record = until(ward, job, lambda r: r.state.ended, seconds=60)
    assert record.state is State.FAILED
    assert record.attempt == 3
    assert record.failure is not None
    assert record.failure.code == "worker_lost"
    assert [letter.job.id for letter in ward.backends.queue.dead_letters()] == [job.id]
    worker_process.wait_ready(ward.backends, ward.package.package, survivor)
    healthy = ask(ward.backends, ward.package, ward.study)
    assert ended(ward.backends, healthy).state is State.SUCCEEDED


ENDLESS = """
import ctypes, os, pathlib
from workers.loading import Loader
from workers.main import main

def endless(*_):
    pathlib.Path(os.environ["MARK"]).touch()
    mutex = ctypes.create_string_buffer(64)
    for _ in "ab":  # the second call never returns, and no signal interrupts it
        ctypes.CDLL(None).pthread_mutex_lock(mutex)

owned = Loader._owned
Loader._owned = lambda self, _: owned(self, endless)
main()
"""
"""A worker whose device's owner gets stuck in its first load."""


def test_a_worker_that_is_terminated_in_a_long_load_leaves_and_the_load_is_no_crash(
    ward: Ward, start: Start
) -> None:
    mark = ward.folder / "begun"
    alpha = start("alpha", "-c", ENDLESS, MARK=str(mark))
    fleet, package = ward.backends.fleet, ward.package.package
    end = time.monotonic() + 60
    while not (mark.exists() and fleet.workers()):
        assert time.monotonic() < end, alpha.log.read_text()
        time.sleep(0.1)
    (record,) = fleet.workers()  # seen although it serves nothing yet
    assert (record.id, record.loading, record.packages) == ("alpha", True, ())
    asked = time.monotonic()
    assert alpha.end(signal.SIGTERM) == 0
    assert time.monotonic() - asked < 10.0
    assert alpha.events()[-1] == "stopped"
    assert fleet.workers() == ()
    assert list((ward.folder / "scratch").iterdir()) == []
    for worker in ("beta", "gamma"):  # after one load that was lost the second would have to wait
        assert fleet.begin_load(package, worker, seconds=9) is Leave.BEGUN


def test_a_package_that_ends_its_workers_is_given_up_after_two_and_others_are_served(
    ward: Ward, start: Start
) -> None:
    content = crashing(onnx_of(network(), torch.zeros(1, SIDE, SIDE)))
    folder = write_onnx_package(ward.folder / "crashing", {"model.onnx": content})
    pack(folder, archive := ward.folder / "crashing.zip")
    registrations = Registrations(ward.backends, ward.backends.packages, "default")
    record, probe = registrations.add(archive, LimitSettings(), ref="exported@1.0.0")
    poison = record.package
    # a first life of the worker ended there, with the probe in hand
    assert ward.backends.queue.lease("alpha", "default", (), probes=True) is not None
    ward.backends.fleet.begin_load(poison, "alpha", seconds=9)
    assert start("alpha").process.wait(120) == -signal.SIGFPE
    worker_process.wait_ready(ward.backends, ward.package.package, start("alpha"))
    assert probe is not None
    probe = ended(ward.backends, probe)
    assert (probe.state, probe.attempt) == (State.FAILED, 3)  # the third loads nothing
    assert probe.failure is not None
    assert probe.failure.code == "model_crashed"
    entries = {each.package: each for each in ward.backends.fleet.catalog().models}
    assert entries[ward.package.package].state == "ready"
    assert entries[poison].state == "unavailable"
    assert entries[poison].failure is not None
    assert entries[poison].failure.code == "model_crashed"
