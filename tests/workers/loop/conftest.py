from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from service.backends import Backends, open_backends
from service.settings import QueueSettings, Settings, StoreSettings, WorkerSettings
from tests.support import redis_server


@pytest.fixture
def server() -> Iterator[redis_server.Server]:
    with redis_server.running(
        redis_server.any_server(), "--appendonly", "yes", "--appendfsync", "always"
    ) as running:
        yield running


@pytest.fixture
def settings(server: redis_server.Server, tmp_path: Path) -> Settings:
    """Settings of a worker that loses patience ten times faster than a real one."""
    return Settings(
        queue=QueueSettings(
            url=server.url, lease=timedelta(seconds=1.2), renew=timedelta(seconds=0.3)
        ),
        store=StoreSettings(url=f"file://{tmp_path}/store", reserve_bytes=0),
        worker=WorkerSettings(jobs=2, grace=timedelta(seconds=0.5)),
    )


@pytest.fixture
def backends(settings: Settings) -> Iterator[Backends]:
    opened = open_backends(settings)
    yield opened
    opened.close()
