"""A study and its request in one form: both are taken, or neither."""

import json

import pytest

from tests.support.fake_fleet import FakeWorker
from tests.support.phantom_dicom import encoded, image
from tests.support.problems import problem

REQUEST = {"model": "chest", "targets": ["nodule"], "methods": ["saliency"], "artifacts": ["png"]}


@pytest.fixture
def post(client, dicom):
    """Send a form of a file and a request."""

    def send(request=None, content=dicom, **headers):
        files = [("file", ("DOE^JOHN.dcm", content, "application/dicom"))]
        if request is not None:
            text = request if isinstance(request, str) else json.dumps(request)
            files.append(("request", (None, text, "application/json")))
        return client.post("/v1/explanations", files=files, headers=headers)

    return send


@pytest.fixture
def nothing_stays(served, client):
    yield
    assert served.stored() == []
    assert served.uploads() == []
    assert client.get("/v1/explanations").json()["explanations"] == []


def test_one_request_takes_the_study_and_answers_with_its_explanation(client, worker, post):
    with worker.serving():
        answer = post(REQUEST, Prefer="wait=20")
    body = answer.json()
    assert (answer.status_code, body["state"]) == (200, "succeeded")
    assert client.get(f"/v1/studies/{body['study']}").status_code == 200


def test_the_same_key_and_files_give_the_same_job_and_one_study(client, post):
    first = post(REQUEST, **{"Idempotency-Key": "k"})
    second = post(REQUEST, **{"Idempotency-Key": "k"})
    assert second.json()["id"] == first.json()["id"]
    assert second.headers["idempotency-replayed"] == "true"
    assert len(client.get("/v1/studies").json()["studies"]) == 1


def test_a_repeated_form_needs_no_worker(served, client, post):
    first = post(REQUEST, **{"Idempotency-Key": "k"})
    FakeWorker(served.backends).retire()
    second = post(REQUEST, **{"Idempotency-Key": "k"})
    assert second.json()["id"] == first.json()["id"]
    assert len(client.get("/v1/studies").json()["studies"]) == 1


def test_the_same_key_with_another_file_is_refused(client, post):
    first = post(REQUEST, **{"Idempotency-Key": "k"})
    other = post(REQUEST, encoded(image(SOPInstanceUID="2.25.9")), **{"Idempotency-Key": "k"})
    problem(other, 422, "idempotency_key_reused")
    (study,) = client.get("/v1/studies").json()["studies"]
    assert study["id"] == first.json()["study"]


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize(
    ("change", "status", "code", "pointer"),
    [
        ({"model": "unheard-of"}, 404, "unknown_model", "/model"),
        ({"targets": ["fracture"]}, 422, "invalid_target", "/targets/0/of"),
        ({"methods": []}, 422, "invalid_request", "/request/methods"),
        ({"study": "st_1"}, 422, "invalid_request", "/request/study"),
    ],
)
def test_a_refused_request_keeps_no_study(post, change, status, code, pointer):
    body = problem(post(REQUEST | change), status, code)
    assert [each["pointer"] for each in body["errors"]] == [pointer]


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [(None, 422, "invalid_request"), ("{", 400, "malformed_body"), ("[]", 422, "invalid_request")],
)
def test_a_form_without_a_request_is_refused(post, request_, status, code):
    problem(post(request_), status, code)


@pytest.mark.usefixtures("nothing_stays")
def test_a_file_that_cannot_be_kept_queues_nothing(post):
    problem(post(REQUEST, b"no DICOM"), 400, "not_dicom")


@pytest.mark.usefixtures("nothing_stays")
def test_without_a_worker_no_study_is_kept(served, post):
    FakeWorker(served.backends).retire()
    problem(post(REQUEST), 503, "no_worker")
