"""The one room that opens Redis and stores."""

from dataclasses import dataclass, field

from service.fleet.base import Fleet
from service.fleet.redis import RedisFleet
from service.keys import KeyRing
from service.packages import ModelPackages
from service.queue.base import JobQueue
from service.queue.redis import RedisQueue
from service.redis_server import Clock, RedisServer, connect
from service.settings import Settings
from service.store.base import BlobStore
from service.store.objects import open_store


@dataclass(frozen=True, slots=True)
class Backends:
    """What a gateway or a worker reaches outside its own process."""

    queue: JobQueue
    fleet: Fleet
    store: BlobStore
    packages: ModelPackages
    keys: KeyRing
    server: RedisServer = field(repr=False)

    def ping(self) -> None:
        """Raise the first backend's failure, if one cannot serve."""
        self.queue.ping()
        self.store.ping()

    def close(self) -> None:
        """Close every connection."""
        self.server.close()


def open_backends(settings: Settings, *, clock: Clock | None = None) -> Backends:
    """Open what the settings name; nothing is sent to Redis yet.

    Parameters
    ----------
    settings
        The whole of the settings.
    clock
        Tells the queue's time; with `None` all processes use the Redis
        server's own, so that their clocks need not agree.
    """
    server = RedisServer(connect(settings.queue), settings.queue.prefix, clock)
    store = open_store(settings.store)
    return Backends(
        queue=RedisQueue(server, settings.queue),
        fleet=RedisFleet(server, store),
        store=store,
        packages=ModelPackages(store, scratch=settings.worker.scratch),
        keys=KeyRing(store),
        server=server,
    )
