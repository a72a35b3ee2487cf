"""How a job ends when what it needs is away, or when it is not ours any more."""

import io
import logging
import math
import threading
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import torch

from service import paths
from service.domain.job import Job, State
from tests.support.dead_store import dead_store
from tests.support.hospital import blank_job, document, published
from tests.workers.line.conftest import ELSEWHERE, House, lease_of, leased
from workers import line
from workers.access import Access
from workers.device import DeviceLostError
from workers.held import Held
from workers.line import Line
from workers.parcels import Attributed, Prepared
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler
from workers.stages.attribute import attribute
from workers.stages.deliver import prefix_of


def record(house: House, held: Held) -> Job:
    return house.backends.queue.get(held.lease.job.tenant, held.lease.job.id)


def test_a_job_goes_back_when_the_store_is_away(
    house: House, own: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = leased(house)
    replace(own, store=dead_store(monkeypatch)).lead(held)
    job = record(house, held)
    assert job.state is State.QUEUED
    assert job.attempt == 0  # nobody's fault
    house.backends.queue.cancel(job.tenant, job.id)


def test_a_lost_lease_publishes_nothing_and_leaves_nothing(house: House, own: Line) -> None:
    held = leased(house)
    house.backends.queue.reclaim("test")
    own.lead(held)
    assert published(house.backends, held.lease.job) == []
    job = record(house, held)
    assert job.state is State.QUEUED
    house.backends.queue.cancel(job.tenant, job.id)


def test_a_job_taken_from_its_worker_is_published_by_the_other(house: House, own: Line) -> None:
    first = leased(house)
    house.backends.queue.reclaim("test")
    second = Held(lease_of(house, first.lease.job))
    lines = [threading.Thread(target=own.lead, args=(held,)) for held in (first, second)]
    for each in lines:
        each.start()
    for each in lines:
        each.join(30)
    job = record(house, second)
    assert job.state is State.SUCCEEDED
    assert job.result == prefix_of(second.lease)
    assert all(path.startswith(f"{job.result}/") for path in published(house.backends, job))


def test_results_whose_settlement_was_not_answered_stay_published(house: House, own: Line) -> None:
    """A second settlement is refused, and must not take away what the first published."""
    held = leased(house)
    own.lead(held)
    before = published(house.backends, held.lease.job)
    assert before
    own._withdraw(held)
    assert published(house.backends, held.lease.job) == before


def test_a_drained_job_leaves_no_results(house: House, own: Line) -> None:
    held = leased(house)
    held.drain()
    own.lead(held)
    job = record(house, held)
    assert (job.state, job.attempt) == (State.QUEUED, 0)
    assert published(house.backends, job) == []
    house.backends.queue.cancel(job.tenant, job.id)


def test_a_record_that_cannot_be_read_fails_as_a_bug_of_ours(
    house: House, own: Line, caplog: pytest.LogCaptureFixture
) -> None:
    broken = blank_job().model_copy(
        update={"pool": ELSEWHERE, "package": house.package.package, "request": '{"study": 7}'}
    )
    job = house.backends.queue.submit(broken, digest=broken.id).job
    with caplog.at_level(logging.ERROR, "whylight"):
        own.lead(Held(lease_of(house, job)))
    ended = house.backends.queue.get(job.tenant, job.id)
    assert ended.state is State.FAILED
    assert ended.failure is not None
    assert ended.failure.code == "internal"
    assert "ValidationError" not in ended.failure.model_dump_json()
    assert {entry.message for entry in caplog.records} == {"unexpected_error"}


def test_a_lost_device_leaves_its_jobs_to_other_workers(
    house: House, own: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends then: nothing is settled, so the end of the lease counts an attempt."""

    def fail(*_: object) -> None:
        raise torch.AcceleratorError("the device is gone")

    monkeypatch.setattr(TorchRuntime, "serve", fail)
    scheduler = Scheduler()
    broken: list[Exception] = []

    def run() -> None:
        try:
            scheduler.run_forever()
        except DeviceLostError as error:
            broken.append(error)

    owner = threading.Thread(target=run)
    owner.start()
    held = leased(house)
    replace(own, scheduler=scheduler).lead(held)
    owner.join(10)
    assert broken
    job = record(house, held)
    assert (job.state, job.attempt) == (State.RUNNING, 1)
    assert published(house.backends, job) == []
    house.backends.queue.reclaim("test")
    house.backends.queue.cancel(job.tenant, job.id)


def test_drawing_stops_when_its_job_is_cancelled(house: House, own: Line) -> None:
    held = leased(house, methods=["saliency", "grad_cam", "occlusion"], artifacts=["png"])
    drawn: list[int] = []
    advance = held.advance

    def cancel_at_first_map(share: float) -> None:
        drawn.append(1)
        held.cancel()
        advance(share)

    held.advance = cancel_at_first_map  # type: ignore[method-assign]
    own.lead(held)
    job = record(house, held)
    assert job.state is State.CANCELLED
    assert len(drawn) == 1


def test_a_late_job_that_has_part_of_a_map_publishes_it_marked_so(
    house: House, own: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is up while the method runs; what was done by then is a map."""
    serve = TorchRuntime.serve
    rows, deadlines = [0], [math.inf]

    def late(self: TorchRuntime, group: Any, segments: Any) -> Any:
        if rows[0] >= 16:  # enough for a map
            time.sleep(max(0.0, deadlines[0] - time.monotonic()))
        rows[0] += sum(each.count for each in segments)
        return serve(self, group, segments)

    def hurried(prepared: Prepared, access: Access) -> Attributed:
        deadlines[0] = time.monotonic() + 2.0
        return attribute(prepared, replace(access, deadline=deadlines[0]))

    monkeypatch.setattr(TorchRuntime, "serve", late)
    monkeypatch.setattr(line, "attribute", hurried)
    name = "integrated_gradients"
    held = leased(house, methods=[{"name": name, "parameters": {"steps": 512}}])
    own.lead(held)
    job = record(house, held)
    assert (job.state, job.partial) == (State.SUCCEEDED, True)
    (result,) = document(house.backends, job).results
    assert result.partial
    assert result.map is not None
    assert 8 <= result.extras["steps"] < 512
    assert result.trust is not None
    assert "partial" in result.trust.flags
    by_whole_maps = {"completeness", "template"}
    assert "pass" not in {each.outcome for each in result.checks if each.name in by_whole_maps}
    assert result.artifacts
    told = {each.name: each.partial_map for each in house.backends.fleet.catalog().methods}
    assert told[name]
    assert not told["saliency"]


def test_a_job_beside_a_late_one_publishes_its_whole_and_equal_map(
    house: House, own: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of the one is up within a batch that both share."""

    def asked(samples: int) -> Held:
        method = {"name": "smooth_grad", "parameters": {"samples": samples}}
        return leased(house, methods=[method], artifacts=["npy"], checks="none")

    alone = asked(256)
    own.lead(alone)
    late, healthy = asked(2048), asked(256)
    serve, shared = TorchRuntime.serve, threading.Event()
    of_both: list[int] = []
    deadline = time.monotonic() + 3.0

    def outlasting(self: TorchRuntime, group: Any, segments: Any) -> Any:
        of_both.append(min(s.count for s in segments) if len(segments) == 2 else 0)
        if not shared.is_set() and sum(of_both) > 32:  # enough for a map
            shared.set()
            time.sleep(max(0.0, deadline - time.monotonic()))
        return serve(self, group, segments)

    def hurried(prepared: Prepared, access: Access) -> Attributed:
        if access.held is late:
            access = replace(access, deadline=deadline)
        return attribute(prepared, access)

    monkeypatch.setattr(TorchRuntime, "serve", outlasting)
    monkeypatch.setattr(line, "attribute", hurried)
    lines = [threading.Thread(target=own.lead, args=(held,)) for held in (late, healthy)]
    for each in lines:
        each.start()
    for each in lines:
        each.join(60)
    assert shared.is_set()
    jobs = [record(house, held) for held in (late, healthy, alone)]
    assert [(job.state, job.partial) for job in jobs] == [
        (State.SUCCEEDED, partial) for partial in (True, False, False)
    ]
    cut, whole, expected = (map_of(house, job) for job in jobs)
    assert cut.shape == whole.shape
    np.testing.assert_allclose(whole, expected, rtol=1e-4, atol=1e-6)


def map_of(house: House, job: Job) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the one map of a job."""
    (result,) = document(house.backends, job).results
    (file,) = [each for each in result.artifacts if each.format == "npy"]
    data = house.backends.store.get(paths.artifact(str(job.result), file.name))
    values: np.ndarray[Any, np.dtype[np.float32]] = np.load(io.BytesIO(data))
    return values


def test_a_late_job_ends_by_its_deadline(
    house: House, own: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No method has a map before its first row."""
    serve = TorchRuntime.serve

    def slowly(self: TorchRuntime, *asked: Any) -> Any:
        time.sleep(0.1)
        return serve(self, *asked)

    monkeypatch.setattr(TorchRuntime, "serve", slowly)
    worker = own.settings.worker.model_copy(update={"job_limit": timedelta(seconds=0.05)})
    settings = own.settings.model_copy(update={"worker": worker})
    held = leased(house, methods=["integrated_gradients"])
    start = time.monotonic()
    replace(own, settings=settings).lead(held)
    assert time.monotonic() - start < 5
    job = record(house, held)
    assert job.state is State.FAILED
    assert job.failure is not None
    assert job.failure.code == "deadline_exceeded"
