"""A load is noted in the fleet while it lasts; a package given up is refused, then tried anew."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.fleet.base import Leave
from service.fleet.redis import RedisFleet
from service.redis_server import RedisServer, connect
from service.settings import QueueSettings, StoreSettings
from service.store.objects import open_store
from service.telemetry import Log
from tests.support.redis_server import any_server, running
from tests.workers.shelf.conftest import Room
from workers import loads, shelf
from workers.loads import Loads
from workers.shelf import Shelf

pytestmark = pytest.mark.redis


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[RedisFleet]:
    with running(any_server()) as server:
        settings = QueueSettings(url=server.url)
        opened = RedisServer(connect(settings), settings.prefix)
        yield RedisFleet(opened, open_store(StoreSettings(url=f"file://{tmp_path}/fleet")))
        opened.close()


def test_a_slow_load_is_held_and_taken_back_at_its_end(
    fleet: RedisFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loads, "EVERY", 0.05)
    monkeypatch.setattr(loads, "SILENT_FOR", 0.5)
    with Loads(fleet, "slow", Log()).noted("p1") as may:
        assert may
        time.sleep(0.8)
        fleet.begin_load("p1", "other", seconds=9)
        # the other's own first life alone was lost, so this one waits for the slow one
        assert fleet.begin_load("p1", "other", seconds=9) is Leave.WAIT
    for _ in range(2):
        assert fleet.begin_load("p1", "other", seconds=9) is Leave.BEGUN


def test_a_package_given_up_is_refused_until_it_is_forgiven(
    room: Room, fleet: RedisFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "AGAIN", 0.0)
    noted = Loads(fleet, "w1", Log()).noted
    package = room.register().package
    loader = room.shelf._loader
    mine = Shelf(room.packages, loader, room.folder / "mine", Log(), 1 << 30, noted=noted)
    for _ in range(2):
        fleet.begin_load(package, "w1", seconds=9)
    for _ in range(2):
        mine.sync()
        failure = mine.entries()[package].failure
        assert failure is not None
        assert failure.code == "model_crashed"
        assert mine.ready() == ()
    fleet.forgive_loads(package)
    mine.sync()
    assert mine.entries()[package].failure is None
    assert mine.ready() == (package,)
