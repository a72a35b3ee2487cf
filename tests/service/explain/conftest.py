import pytest

from service.backends import open_backends
from service.settings import Settings
from tests.support.fake_fleet import FakeWorker
from tests.support.redis_server import any_server, running


@pytest.fixture(scope="module")
def redis_server():
    with running(any_server()) as server:
        yield server


@pytest.fixture
def backends(redis_server, tmp_path):
    """A queue and a store with nothing in them, and a worker that says what it can do."""
    store = {"url": (tmp_path / "store").as_uri(), "reserve_bytes": 0}
    backends = open_backends(
        Settings.model_validate({"queue": {"url": redis_server.url}, "store": store})
    )
    with backends.server.client() as client:
        client.flushall()
    FakeWorker(backends).publish()
    yield backends
    backends.close()
