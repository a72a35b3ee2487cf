"""What operators see: the queue, the workers, dead letters, health, metrics."""

import urllib.request

import pytest

from service import telemetry
from service.settings import QueueSettings
from tests.support.fake_fleet import FakeWorker
from tests.support.ports import free_port
from tests.support.problems import problem
from tests.support.redis_server import any_server, running
from tests.support.served import NO_STUDY, NOBODY, serve


def test_the_queue_tells_what_waits_and_for_how_long(client, ask):
    for priority in ("stat", "normal", "normal"):
        request = ask | {"priority": priority, "methods": ["integrated_gradients"]}
        assert client.post("/v1/explanations", json=request).status_code == 202
    (pool,) = client.get("/v1/queue").json()["pools"]
    assert pool["waiting"] == {"stat": 1, "high": 0, "normal": 2, "low": 0}
    assert pool["workers"] == 1
    assert pool["estimated_wait_seconds"] == pytest.approx(3 * 32 * 0.02)


def test_an_idle_pool_is_listed_too(client):
    (pool,) = client.get("/v1/queue").json()["pools"]
    assert (pool["pool"], pool["running"], pool["estimated_wait_seconds"]) == ("default", 0, 0)


def test_live_workers_are_listed(served, client):
    FakeWorker(served.backends, "w2").publish()
    workers = client.get("/v1/workers").json()["workers"]
    assert {each["id"] for each in workers} == {"w1", "w2"}


def test_a_job_whose_workers_died_is_a_dead_letter(served, client, worker, job):
    for _ in range(QueueSettings().attempts):
        worker.lease()
        served.backends.queue.reclaim(worker.name)
    (letter,) = client.get("/v1/dead-letters").json()["dead_letters"]
    assert (letter["id"], letter["reason"]["code"]) == (job, "worker_lost")
    assert client.get(f"/v1/dead-letters/{job}").json() == letter
    assert client.get(f"/v1/explanations/{job}").json()["failure"]["code"] == "worker_lost"
    problem(client.get("/v1/dead-letters/ex_1"), 404, "not_found")


def test_health_needs_no_key(served):
    with served.client() as anonymous:
        assert anonymous.get("/healthz/live").json() == {"live": True}
        ready = anonymous.get("/healthz/ready")
    assert ready.status_code == 200
    assert ready.json() == {
        "ready": True,
        "checks": {"queue": "ok", "store": "ok", "fleet": "ok", "process": "ok"},
    }


def test_a_draining_gateway_is_alive_and_not_ready(served, client):
    served.gateway.drain.begun = True
    try:
        answer = client.get("/healthz/ready")
        live = client.get("/healthz/live")
    finally:
        served.gateway.drain.begun = False
    assert (answer.status_code, answer.json()["checks"]["process"]) == (503, "draining")
    assert int(answer.headers["retry-after"]) >= 1
    assert live.status_code == 200


def metrics():
    """What the metrics port shows."""
    stop = telemetry.serve_metrics(port := free_port())
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return answer.read().decode()
    finally:
        stop()


def test_metrics_count_by_template_and_show_the_queue(client, job, worker):
    client.get(f"/v1/explanations/{job}")
    text = metrics()
    assert 'route="/v1/explanations/{explanation_id}",status="200",verb="GET"' in text
    assert 'whylight_queue_depth{class="default",priority="normal"} 1.0' in text
    assert 'whylight_worker_up{class="default"} 1.0' in text
    assert "whylight_queue_up 1.0" in text
    assert 'whylight_jobs_submitted_total{method="saliency",model="chest@1.1.0"' in text
    assert job not in text
    assert worker.name + '"' not in text


@pytest.fixture(scope="module")
def lonely(tmp_path_factory):
    """A gateway whose Redis can be stopped."""
    with running(any_server()) as redis, serve(redis, tmp_path_factory.mktemp("lonely")) as served:
        yield served


def test_without_redis_everything_that_needs_it_says_wait(lonely):
    with lonely.client(lonely.key()) as client:
        assert client.get("/healthz/ready").status_code == 200
        lonely.redis.kill()
        ready = client.get("/healthz/ready")
        assert ready.status_code == 503
        assert ready.json()["checks"]["queue"] == "queue_unavailable"
        assert client.get("/healthz/live").status_code == 200
        request = {"study": NO_STUDY, "model": "chest", "methods": ["saliency"]}
        for verb, path, body in (
            ("POST", "/v1/explanations", request),
            ("POST", "/v1/explanations:validate", request),
            ("GET", "/v1/explanations", None),
            ("GET", f"/v1/explanations/{NOBODY}", None),
            ("GET", f"/v1/explanations/{NOBODY}/events", None),
            ("GET", f"/v1/explanations/{NOBODY}/artifacts", None),
            ("POST", f"/v1/explanations/{NOBODY}/cancel", None),
            ("GET", "/v1/queue", None),
            ("GET", "/v1/models", None),
        ):
            problem(client.request(verb, path, json=body), 503, "queue_unavailable")
        assert client.get("/v1/studies").status_code == 200
        lonely.redis.start()
        assert client.get("/v1/explanations").status_code == 200


def test_without_redis_metrics_still_answer(lonely):
    lonely.redis.kill()
    try:
        text = metrics()
    finally:
        lonely.redis.start()
    assert "whylight_queue_up 0.0" in text


def test_a_store_that_is_away_says_wait(lonely, tmp_path, dicom):
    with lonely.client(lonely.key()) as client:
        assert client.get("/v1/studies").status_code == 200
        lonely.store.rename(tmp_path / "away")
        try:
            ready = client.get("/healthz/ready")
            headers = {"Content-Type": "application/dicom"}
            answer = client.post("/v1/studies", content=dicom, headers=headers)
        finally:
            (tmp_path / "away").rename(lonely.store)
    assert ready.json()["checks"]["store"] == "store_unavailable"
    problem(answer, 503, "store_unavailable")
    assert lonely.uploads() == []
