"""Asking for explanations, following them, and what comes out at the end."""

import threading
import time

import pytest

from service.domain.explanation import Result
from service.domain.parity import Pair, Parity, ParityReport
from service.domain.resolved import ResolvedTarget
from service.errors.studies import NothingToExplain, ParityMismatch
from service.precisions import Wishes
from tests.support.fake_fleet import PACKAGES, FakeWorker
from tests.support.problems import problem


def test_a_request_is_accepted_at_once_and_says_where_to_look(client, ask):
    answer = client.post("/v1/explanations", json=ask)
    body = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/explanations/{body['id']}"
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["preference-applied"] == "respond-async"
    assert (body["state"], body["position"], body["progress"]) == ("queued", 0, 0.0)
    assert client.get(answer.headers["location"]).json()["id"] == body["id"]


def test_the_chosen_instance_and_newest_version_are_frozen_in_the_job(client, ask):
    body = client.post("/v1/explanations", json=ask).json()
    assert body["instance"] == "in_0001"
    assert body["model"] == {
        **body["model"],
        "name": "chest",
        "version": "1.1.0",
        "package": PACKAGES["chest@1.1.0"],
    }


def test_a_version_can_be_named(client, ask):
    body = client.post("/v1/explanations", json=ask | {"model": "chest@1.0.0"}).json()
    assert body["model"]["version"] == "1.0.0"


def test_names_alone_stand_for_methods_and_targets(client, ask):
    long = ask | {
        "methods": [{"name": "saliency", "parameters": {}}],
        "targets": [{"kind": "class", "of": "nodule"}],
    }
    headers = {"Idempotency-Key": "k"}
    first = client.post("/v1/explanations", json=ask, headers=headers).json()
    second = client.post("/v1/explanations", json=long, headers=headers).json()
    assert first["id"] == second["id"]


def test_a_finished_job_shows_results_with_links_that_work(client, worker, job):
    worker.succeed()
    body = client.get(f"/v1/explanations/{job}").json()
    assert body["state"] == "succeeded"
    assert body["progress"] == 1.0
    (result,) = body["results"]
    assert (result["method"], result["version"]) == ("saliency", 2)
    assert result["target"]["key"] == "nodule"
    assert result["map"]["peak"] == [2.0, 1.5]
    for each in result["artifacts"]:
        assert client.get(each["href"]).status_code == 200


def test_a_failed_job_says_why(client, worker, job):
    worker.fail()
    answer = client.get(f"/v1/explanations/{job}")
    assert answer.status_code == 200
    assert answer.json()["state"] == "failed"
    assert answer.json()["failure"]["code"] == "undecodable_pixels"


PAIR = Pair(
    key="nodule",
    outcome=Parity.MISMATCHED,
    scale="probability",
    observed=0.25,
    found=0.75,
    tolerance=0.02,
    observed_positive=False,
    found_positive=True,
)
MISMATCHED = ParityReport(outcome=Parity.MISMATCHED, pairs=(PAIR,))


def test_whether_it_is_the_ais_answer_is_told_once_the_model_has_answered(client, worker, job):
    assert client.get(f"/v1/explanations/{job}").json()["parity"] is None
    worker.succeed(parity=MISMATCHED)
    body = client.get(f"/v1/explanations/{job}").json()
    assert body["parity"] == MISMATCHED.model_dump(mode="json")


def test_a_job_that_failed_for_its_mismatch_shows_both_figures(client, worker, job):
    error = ParityMismatch("The model says something else.", mismatched=[{"key": "nodule"}])
    worker.fail(error=error, parity=MISMATCHED)
    body = client.get(f"/v1/explanations/{job}").json()
    assert (body["state"], body["failure"]["code"]) == ("failed", "parity_mismatch")
    (pair,) = body["parity"]["pairs"]
    assert (pair["observed"], pair["found"]) == (0.25, 0.75)


def test_a_finding_below_its_threshold_says_so(client, worker, job):
    target = ResolvedTarget(
        key="nodule",
        label="Nodule",
        index=0,
        asked_as="nodule",
        score=-1.5,
        probability=0.18,
        threshold=0.5,
        above_threshold=False,
    )
    worker.succeed(
        results=(
            Result(method="saliency", version=1, parameters={}, target=target, status="succeeded"),
        )
    )
    (result,) = client.get(f"/v1/explanations/{job}").json()["results"]
    assert result["target"]["above_threshold"] is False


def test_nothing_above_its_threshold_is_a_success_with_the_reason(client, worker, job):
    reason = NothingToExplain("No class reaches its threshold on this image.").failure()
    worker.succeed(
        results=(
            Result(
                method="saliency",
                version=1,
                parameters={},
                target=None,
                status="skipped",
                reason=reason,
            ),
        )
    )
    body = client.get(f"/v1/explanations/{job}").json()
    (result,) = body["results"]
    assert (body["state"], result["status"]) == ("succeeded", "skipped")
    assert result["reason"]["code"] == "nothing_above_threshold"
    assert result["artifacts"] == []


def test_a_wait_that_suffices_answers_with_the_finished_job(client, worker, ask):
    with worker.serving():
        answer = client.post("/v1/explanations", json=ask, headers={"Prefer": "wait=20"})
    assert answer.status_code == 200
    assert answer.json()["state"] == "succeeded"
    assert answer.headers["content-location"] == f"/v1/explanations/{answer.json()['id']}"
    assert answer.headers["preference-applied"] == "wait=20"


def test_a_wait_answers_with_a_failed_job_too(client, worker, ask):
    thread = threading.Thread(target=worker.fail)
    thread.start()
    answer = client.post("/v1/explanations", json=ask, headers={"Prefer": "wait=20"})
    thread.join()
    assert (answer.status_code, answer.json()["state"]) == (200, "failed")


def test_a_wait_that_is_too_short_answers_as_without(client, ask):
    began = time.monotonic()
    answer = client.post("/v1/explanations", json=ask, headers={"Prefer": "wait=1"})
    assert 0.9 < time.monotonic() - began < 5
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "respond-async"


@pytest.mark.parametrize("prefer", ["wait=soon", "respond-async", "return=minimal", "wait=-1"])
def test_a_preference_that_is_not_ours_is_passed_over(client, ask, prefer):
    answer = client.post("/v1/explanations", json=ask, headers={"Prefer": prefer})
    assert answer.status_code == 202


def test_a_long_poll_answers_when_the_job_ends(client, worker, job):
    timer = threading.Timer(0.4, worker.succeed)
    timer.start()
    began = time.monotonic()
    answer = client.get(f"/v1/explanations/{job}", params={"wait": 20})
    timer.join()
    assert answer.json()["state"] == "succeeded"
    assert time.monotonic() - began < 10


def test_a_long_poll_with_an_etag_answers_at_the_first_change(client, worker, job):
    tag = client.get(f"/v1/explanations/{job}").headers["etag"]
    timer = threading.Timer(0.3, worker.lease)
    timer.start()
    answer = client.get(
        f"/v1/explanations/{job}", params={"wait": 20}, headers={"If-None-Match": tag}
    )
    timer.join()
    assert (answer.status_code, answer.json()["state"]) == (200, "running")


def test_what_has_not_changed_is_not_sent_again(client, worker, job):
    worker.succeed()
    tag = client.get(f"/v1/explanations/{job}").headers["etag"]
    answer = client.get(f"/v1/explanations/{job}", headers={"If-None-Match": tag})
    assert (answer.status_code, answer.content) == (304, b"")


def test_waiting_polls_hold_no_thread(served, client, worker, job):
    """More polls than the thread pool has threads, and others are still answered."""
    key = served.key()
    answers = []

    def poll():
        with served.client(key) as each:
            answers.append(each.get(f"/v1/explanations/{job}", params={"wait": 20}).json()["state"])

    polls = [threading.Thread(target=poll) for _ in range(60)]
    for each in polls:
        each.start()
    time.sleep(1)
    began = time.monotonic()
    assert client.get("/healthz/ready").status_code == 200
    assert time.monotonic() - began < 5
    worker.succeed()
    for each in polls:
        each.join(25)
    assert answers == ["succeeded"] * 60


def test_jobs_are_listed_newest_first_page_by_page(client, ask):
    ids = [client.post("/v1/explanations", json=ask).json()["id"] for _ in range(3)]
    first = client.get("/v1/explanations", params={"limit": 2}).json()
    rest = client.get("/v1/explanations", params={"limit": 2, "cursor": first["cursor"]}).json()
    assert [each["id"] for each in first["explanations"] + rest["explanations"]] == ids[::-1]
    assert rest["cursor"] is None


def test_jobs_are_found_by_state_model_study_label_and_time(client, worker, ask):
    labelled = client.post("/v1/explanations", json=ask | {"label": "x"}).json()
    older = client.post("/v1/explanations", json=ask | {"model": "chest@1.0.0"}).json()
    worker.succeed()

    def found(**which):
        listing = client.get("/v1/explanations", params=which).json()["explanations"]
        return {each["id"] for each in listing}

    both = {labelled["id"], older["id"]}
    assert found(label="x") == {labelled["id"]}
    assert found(model="chest@1.0.0") == {older["id"]}
    assert found(model="chest") == both
    assert found(study=ask["study"]) == both
    assert found(study="st_none") == set()
    assert found(state="succeeded") | found(state="queued") == both
    assert len(found(state="succeeded")) == 1
    assert found(created_to="2001-01-01T00:00:00Z") == set()
    assert found(created_from="2001-01-01T00:00:00Z") == both


def test_a_waiting_job_is_cancelled_at_once(client, job):
    answer = client.post(f"/v1/explanations/{job}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")


def test_a_running_job_is_asked_to_end(client, worker, job):
    worker.lease()
    answer = client.post(f"/v1/explanations/{job}/cancel")
    body = answer.json()
    assert (answer.status_code, body["state"], body["cancelling"]) == (202, "running", True)


def test_an_ended_job_cannot_be_cancelled_any_more(client, worker, job):
    worker.succeed()
    answer = client.post(f"/v1/explanations/{job}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (200, "succeeded")


def test_a_purged_job_leaves_nothing_but_the_count_of_its_objects(served, client, worker, job):
    worker.succeed()
    answer = client.delete(f"/v1/explanations/{job}")
    assert answer.status_code == 200
    assert answer.json() == {"id": job, "objects": 3}
    left = [path for path in served.stored() if job in path]
    assert all(path.startswith("clinic/additions/") for path in left)  # a PACS may hold them
    problem(client.get(f"/v1/explanations/{job}"), 404, "not_found")


def test_a_job_that_has_not_ended_is_not_purged(client, job):
    problem(client.delete(f"/v1/explanations/{job}"), 409, "conflict")


def test_results_whose_time_is_over_are_gone(served, client, worker, job):
    worker.succeed()
    served.backends.store.purge(f"clinic/jobs/{job}")
    problem(client.get(f"/v1/explanations/{job}"), 410, "gone")


def test_the_same_key_and_body_give_the_same_job(client, ask):
    headers = {"Idempotency-Key": "once"}
    first = client.post("/v1/explanations", json=ask, headers=headers)
    second = client.post("/v1/explanations", json=ask, headers=headers)
    assert second.json()["id"] == first.json()["id"]
    assert second.status_code == first.status_code == 202
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"


def test_the_same_key_with_another_body_is_refused(client, ask):
    headers = {"Idempotency-Key": "once"}
    client.post("/v1/explanations", json=ask, headers=headers)
    other = ask | {"targets": ["effusion"]}
    answer = client.post("/v1/explanations", json=other, headers=headers)
    problem(answer, 422, "idempotency_key_reused")


def test_the_same_key_and_body_are_answered_again_whatever_has_changed(served, client, ask):
    headers = {"Idempotency-Key": "once"}
    first = client.post("/v1/explanations", json=ask, headers=headers).json()
    client.post(f"/v1/explanations/{first['id']}/cancel")
    client.delete(f"/v1/studies/{ask['study']}")
    FakeWorker(served.backends).retire()
    again = client.post("/v1/explanations", json=ask, headers=headers)
    assert (again.status_code, again.json()["id"]) == (202, first["id"])
    assert again.headers["idempotency-replayed"] == "true"
    other = ask | {"targets": ["effusion"]}
    answer = client.post("/v1/explanations", json=other, headers=headers)
    problem(answer, 422, "idempotency_key_reused")
    headers = {"Idempotency-Key": "another"}
    problem(client.post("/v1/explanations", json=ask, headers=headers), 404, "not_found")


def test_another_tenants_key_is_its_own(served, client, ask):
    client.post("/v1/explanations", json=ask, headers={"Idempotency-Key": "once"})
    with served.client(served.key("other")) as other:
        answer = other.post("/v1/explanations", json=ask, headers={"Idempotency-Key": "once"})
        problem(answer, 404, "not_found")


def test_a_dry_run_tells_instance_parameters_and_cost_and_queues_nothing(client, ask):
    request = ask | {"methods": [{"name": "integrated_gradients", "parameters": {"steps": 8}}]}
    answer = client.post("/v1/explanations:validate", json=request)
    body = answer.json()
    assert answer.status_code == 200
    assert body["request"]["instance"] == "in_0001"
    assert body["request"]["methods"][0]["parameters"] == {"steps": 8, "path": "straight"}
    assert (body["model"], body["workers"]) == ("chest@1.1.0", 1)
    assert body["cost_seconds"] == pytest.approx(32 * 0.02)
    assert client.get("/v1/explanations").json()["explanations"] == []


@pytest.mark.parametrize(
    ("named", "method", "explained"),
    [
        ({"model": "chest"}, "saliency", "above_threshold"),
        ({"model": "blackbox"}, "occlusion", "top1"),
        ({"model": "blackbox", "targets": ["nodule"]}, "occlusion", "nodule"),
    ],
)
def test_without_targets_the_models_own_are_explained(client, ask, named, method, explained):
    fields = {name: value for name, value in ask.items() if name != "targets"}
    request = fields | named | {"methods": [method]}
    body = client.post("/v1/explanations:validate", json=request).json()
    assert [each["of"] for each in body["request"]["targets"]] == [explained]


def test_a_dry_run_shows_what_will_be_compared(client, ask):
    request = ask | {"observed": [{"of": "nodule", "score": 0.93}]}
    body = client.post("/v1/explanations:validate", json=request).json()
    assert body["request"]["observed"] == [
        {
            "of": "nodule",
            "score": 0.93,
            "scale": "probability",
            "positive": None,
            "tolerance": 0.02,
        }
    ]
    assert body["request"]["allow_mismatch"] is False


def test_a_dry_run_refuses_what_a_submit_would(client, ask):
    answer = client.post("/v1/explanations:validate", json=ask | {"targets": ["fracture"]})
    problem(answer, 422, "invalid_target")


def test_a_job_goes_to_a_pool_that_can_serve_its_model(served, client, ask):
    FakeWorker(served.backends).retire()
    elsewhere = FakeWorker(served.backends, "w2", "gpu")
    elsewhere.publish()
    job = client.post("/v1/explanations", json=ask).json()["id"]
    assert elsewhere.lease().job.id == job


def test_more_work_than_may_wait_is_refused(served, client, ask, monkeypatch):
    monkeypatch.setattr(served.backends.queue, "_capacity", 30)
    assert client.post("/v1/explanations", json=ask).status_code == 202
    body = problem(client.post("/v1/explanations", json=ask), 503, "queue_full")
    assert body["facts"] == {"waiting_ms": 20, "limit_ms": 30}


@pytest.mark.parametrize("asked_twice", [False, True])
def test_a_precision_that_nobody_measured_is_refused_and_wished_for(
    client, served, ask, asked_twice
):
    request = ask | {"precision": "bfloat16"}
    for _ in range(1 + asked_twice):
        body = problem(client.post("/v1/explanations", json=request), 422, "precision_not_offered")
    assert body["errors"][0]["pointer"] == "/precision"
    assert body["facts"]["reason"] == "not_measured"
    assert body["facts"]["precisions"] == ["float32"]
    (wish,) = Wishes(served.backends.store).of(PACKAGES["chest@1.1.0"])
    assert wish.name == "saliency"
    assert client.get("/v1/explanations").json()["explanations"] == []


def test_a_dry_run_wishes_for_nothing(client, served, ask):
    answer = client.post("/v1/explanations:validate", json=ask | {"precision": "bfloat16"})
    problem(answer, 422, "precision_not_offered")
    assert list(Wishes(served.backends.store).of(PACKAGES["chest@1.1.0"])) == []


def test_a_precision_that_there_is_not_is_no_precision(client, ask):
    problem(
        client.post("/v1/explanations", json=ask | {"precision": "int8"}), 422, "invalid_request"
    )
