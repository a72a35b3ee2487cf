"""A job on its way: followed, asked for twice, cancelled, refused."""

import json
import time

import httpx
import pytest

from tests.support import journey

pytestmark = [pytest.mark.e2e, pytest.mark.redis]

LONG = {"name": "integrated_gradients", "parameters": {"steps": 512}}
"""Takes seconds on one core: long enough to be caught at work."""


@pytest.fixture(scope="module")
def study(client):
    return journey.upload(client)["id"]


def events(client, job_id, **headers):
    """Read a job's stream of events to its end; return ids and data."""
    ids, data = [], []
    with client.stream("GET", f"/v1/explanations/{job_id}/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            field, _, value = line.partition(":")
            if field == "id":
                ids.append(value.strip())
            elif field == "data":
                data.append(json.loads(value))
            if data and data[-1]["state"] in {"succeeded", "failed", "cancelled"}:
                break
    return ids, data


def test_the_events_tell_the_whole_way_and_never_go_back(client, study):
    job = client.post("/v1/explanations", json=journey.request(study)).json()
    _, seen = events(client, job["id"])
    states = [each["state"] for each in seen]
    assert states[0] == "queued"
    assert states[-1] == "succeeded"
    progress = [each["progress"] for each in seen if each["state"] == "running"]
    assert progress == sorted(progress)


def test_a_follower_that_lost_the_line_gets_what_it_missed_and_no_more(client, study):
    job = journey.explain(client, journey.request(study))
    ids, seen = events(client, job["id"])
    _, later = events(client, job["id"], **{"Last-Event-ID": ids[0]})
    assert later == seen[1:]


def test_asking_twice_with_one_key_does_the_work_once(client, study):
    headers = {"Idempotency-Key": "a-key-of-mine"}
    first = client.post("/v1/explanations", json=journey.request(study), headers=headers)
    again = client.post("/v1/explanations", json=journey.request(study), headers=headers)
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["idempotency-replayed"] == "true"
    other = journey.request(study, "saliency")
    assert client.post("/v1/explanations", json=other, headers=headers).status_code == 422


def test_a_running_job_stops_within_two_seconds_of_its_cancellation(client, study):
    job = client.post("/v1/explanations", json=journey.request(study, LONG)).json()
    path = f"/v1/explanations/{job['id']}"
    deadline = time.monotonic() + 30
    while client.get(path).json()["stage"] != "attribute" and time.monotonic() < deadline:
        time.sleep(0.02)
    began = time.monotonic()
    assert client.post(f"{path}/cancel").status_code == 202
    ended = client.get(path, params={"wait": 10}).json()
    assert ended["state"] == "cancelled"
    assert time.monotonic() - began < 2.0
    assert client.post(f"{path}/cancel").status_code == 200


def test_results_are_not_there_before_the_end_and_the_answer_says_when_to_ask_again(client, study):
    job = client.post("/v1/explanations", json=journey.request(study, LONG)).json()
    answer = client.get(f"/v1/explanations/{job['id']}/artifacts")
    client.post(f"/v1/explanations/{job['id']}/cancel")
    assert answer.status_code == 409
    assert answer.json()["code"] == "result_not_ready"
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("key", [None, "wl_live_0123456789abcdef_" + "0" * 64, "nonsense"])
def test_without_a_key_that_holds_nothing_is_told(stack, key):
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=stack.url, headers=headers, trust_env=False) as stranger:
        for path in ("/v1/studies", "/v1/explanations", "/v1/models", "/v1/workers"):
            answer = stranger.get(path)
            assert answer.status_code == 401
            assert answer.json()["code"] == "unauthenticated"
        assert stranger.get("/healthz/live").status_code == 200
