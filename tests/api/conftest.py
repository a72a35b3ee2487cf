"""A served gateway a module, a clean tenant a test."""

import logging

import pytest

from service import telemetry
from tests.support.fake_fleet import FakeWorker
from tests.support.phantom_dicom import encoded, image
from tests.support.redis_server import any_server, running
from tests.support.served import TENANT, serve


@pytest.fixture(scope="session", autouse=True)
def strict_logs():
    """Whatever is logged must be declared."""
    telemetry.be_strict()
    logging.getLogger("whylight").setLevel(logging.INFO)
    yield
    telemetry._Discipline.strict = False


@pytest.fixture(scope="module")
def redis_server():
    with running(any_server()) as server:
        yield server


@pytest.fixture(scope="module")
def served_once(redis_server, tmp_path_factory):
    limits = {"body_bytes": 2_000_000, "json_bytes": 20_000, "instances": 5, "pixels": 1_000_000}
    limits |= {"archive_entries": 8, "archive_free_bytes": 1_000_000}
    folder = tmp_path_factory.mktemp("served")
    with serve(redis_server, folder, **limits) as served:
        yield served


@pytest.fixture
def served(served_once):
    """The gateway with one worker alive and nothing stored or queued."""
    FakeWorker(served_once.backends).publish()
    yield served_once
    with served_once.backends.server.client() as client:
        client.flushall()
    for folder in (TENANT, "other", "models"):
        served_once.backends.store.purge(folder)


@pytest.fixture
def worker(served):
    return FakeWorker(served.backends)


@pytest.fixture
def client(served):
    with served.client(served.key()) as client:
        yield client


@pytest.fixture
def nothing_is_queued(client):
    """Hold a test to leave no explanation behind."""
    yield
    assert client.get("/v1/explanations").json()["explanations"] == []


@pytest.fixture
def dicom():
    """Bytes of a small CR image."""
    return encoded(image())


@pytest.fixture
def study(client, dicom):
    """Identifier of a study of one CR image."""
    answer = client.post(
        "/v1/studies", content=dicom, headers={"Content-Type": "application/dicom"}
    )
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


@pytest.fixture
def ask(study):
    """A request that would be accepted."""
    return {
        "study": study,
        "model": "chest",
        "targets": ["nodule"],
        "methods": ["saliency"],
        "artifacts": ["dicom_sc", "png"],
    }


@pytest.fixture
def job(client, ask):
    """Identifier of a job that waits."""
    answer = client.post("/v1/explanations", json=ask)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


@pytest.fixture
def send(client):
    """Upload one image with changed elements; returns the answer."""

    def upload(**changes):
        content = encoded(image(**changes))
        headers = {"Content-Type": "application/dicom"}
        return client.post("/v1/studies", content=content, headers=headers)

    return upload


@pytest.fixture
def two_images(client):
    """Identifier of a study of two CR images."""
    files = [
        ("file", (f"{number}.dcm", encoded(image(SOPInstanceUID=f"2.25.1{number}"))))
        for number in (1, 2)
    ]
    answer = client.post("/v1/studies", files=files)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]
