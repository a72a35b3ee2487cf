"""The stream of a job's events: complete, in order, resumable."""

import json
import threading

import pytest

from service.domain.job import Stage
from tests.support.problems import problem


def read(client, job, **headers):
    """Return the stream's events as (id, event, data) until it ends."""
    found = []
    with client.stream("GET", f"/v1/explanations/{job}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        event = {}
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                event[name] = value
            elif "event" in event:
                found.append((event.get("id"), event["event"], json.loads(event["data"])))
                event = {}
    return found


def test_the_stream_tells_every_step_and_ends_with_the_job(served, client, worker, job):
    def work():
        lease = worker.lease()
        served.backends.queue.report(lease, Stage.ATTRIBUTE, 500)
        worker.succeed(lease)

    thread = threading.Timer(0.3, work)
    thread.start()
    events = read(client, job)
    thread.join()
    states = [data["state"] for _, _, data in events]
    assert states[0] == "queued"
    assert "running" in states
    assert states[-1] == "succeeded"
    assert {"stage": "attribute", "progress": 0.5}.items() <= events[-2][2].items()
    assert {name for _, name, _ in events} == {"progress"}
    ids = [int(each) for each, _, _ in events]
    assert ids == sorted(set(ids))


def test_a_reader_who_comes_back_misses_nothing_and_hears_nothing_twice(client, worker, job):
    worker.succeed()
    whole = read(client, job)
    rest = read(client, job, **{"Last-Event-ID": whole[0][0]})
    assert rest == whole[1:]


def test_a_reader_who_heard_everything_is_told_to_stop(client, worker, job):
    worker.succeed()
    last = read(client, job)[-1][0]
    answer = client.get(f"/v1/explanations/{job}/events", headers={"Last-Event-ID": last})
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("mark", ["x", "-1", "1-1", "9" * 20])
def test_an_event_id_that_is_none_is_refused(client, job, mark):
    answer = client.get(f"/v1/explanations/{job}/events", headers={"Last-Event-ID": mark})
    problem(answer, 422, "invalid_request")


def test_a_drain_asks_readers_to_come_back_elsewhere(served, client, job):
    def drain():
        served.gateway.drain.begun = True

    timer = threading.Timer(0.3, drain)
    timer.start()
    try:
        events = read(client, job)
    finally:
        timer.join()
        served.gateway.drain.begun = False
    assert [name for _, name, _ in events] == ["progress", "reconnect"]


def test_a_reader_of_a_purged_job_is_asked_to_reconnect(served, client, job):
    def purge():
        served.backends.queue.cancel("clinic", job)
        served.backends.queue.forget("clinic", job)

    timer = threading.Timer(0.3, purge)
    timer.start()
    names = [name for _, name, _ in read(client, job)]
    timer.join()
    assert names[-1] in {"reconnect", "progress"}
    problem(client.get(f"/v1/explanations/{job}/events"), 404, "not_found")
