"""Settings become open doors."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.backends import Backends, open_backends
from service.domain.job import State
from service.errors.jobs import OutOfStorage, QueueUnavailable
from service.keys import Scope
from service.queue.base import Outcome
from service.settings import LimitSettings, QueueSettings, Settings, StoreSettings
from tests.support.jobs import PACKAGE, HandClock, Jobs
from tests.support.packages import write_package, zipped
from tests.support.redis_server import Server, any_server, running

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(any_server(), "--requirepass", "let-me-in") as server:
        yield server


@pytest.fixture
def environment(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHYLIGHT_QUEUE__URL", server.url)
    monkeypatch.setenv("WHYLIGHT_QUEUE__PASSWORD", "let-me-in")
    monkeypatch.setenv("WHYLIGHT_STORE__URL", f"file://{tmp_path}/store")
    monkeypatch.setenv("WHYLIGHT_STORE__RESERVE_BYTES", "0")


@pytest.fixture
def backends(environment: None) -> Iterator[Backends]:  # noqa: ARG001 - it sets what is read
    opened = open_backends(Settings())
    yield opened
    opened.close()


def test_every_door_opens_from_the_environment(backends: Backends, tmp_path: Path) -> None:
    backends.ping()
    key, _ = backends.keys.create("clinic", [Scope.MODELS_ADMIN])
    assert backends.keys.verify(key).tenant == "clinic"
    folder = write_package(tmp_path / "package")
    record = backends.packages.add(zipped(folder, tmp_path / "a.zip"), LimitSettings())
    job = Jobs(HandClock())(package=record.package)
    backends.queue.submit(job, digest="d")
    lease = backends.queue.lease("w", "default", [PACKAGE, record.package])
    assert lease is not None
    assert backends.queue.settle(lease, Outcome(State.SUCCEEDED))
    assert backends.fleet.workers() == ()


def test_opening_asks_nothing_and_the_first_question_tells(tmp_path: Path) -> None:
    settings = Settings(
        queue=QueueSettings(url=f"unix://{tmp_path}/none.sock"),
        store=StoreSettings(url=f"file://{tmp_path}/store"),
    )
    backends = open_backends(settings)
    with pytest.raises(QueueUnavailable):
        backends.ping()


@pytest.mark.usefixtures("environment")
def test_a_full_store_fails_the_ping(tmp_path: Path) -> None:
    full = StoreSettings(url=f"file://{tmp_path}/store", reserve_bytes=2**62)
    with pytest.raises(OutOfStorage):
        open_backends(Settings(store=full)).ping()


def test_a_wrong_password_is_told_without_naming_it(server: Server, tmp_path: Path) -> None:
    settings = Settings(
        queue=QueueSettings.model_validate({"url": server.url, "password": "CANARY"}),
        store=StoreSettings(url=f"file://{tmp_path}/store"),
    )
    with pytest.raises(QueueUnavailable) as refused:
        open_backends(settings).ping()
    assert "CANARY" not in repr(refused.value) + repr(settings)
