"""One way to Redis for queue and fleet: scripts, trust, and one kind of failure.

Every state change is one Lua script, sent by digest and by text when the
server does not know it. Scripts are files: ``common.lua`` of their folder
comes first, then the script itself. They compute with integers only; a
fraction has crashed an embedded Redis 6.2 build.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from service.errors.jobs import QueueUnavailable
from service.settings import QueueSettings

Clock = Callable[[], int]
"""Tells the time in integer milliseconds since the epoch."""

OLDEST = (6, 2)
SOCKET_SECONDS = 3.0
"""How long one command may take; blocking waits are kept shorter."""

SERVER_TIME = 0
"""What a script is told as the time when the server's own clock is to be used."""


class Script:
    """A Lua script of a folder, with that folder's ``common.lua`` before it."""

    def __init__(self, package: str, name: str) -> None:
        folder = files(package) / "scripts"
        self.text = "\n".join((folder / f).read_text() for f in ("common.lua", f"{name}.lua"))
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class RedisServer:
    """A Redis or Valkey server that is trusted only after a look at it.

    Parameters
    ----------
    client
        A client that answers text (``decode_responses``) and never retries.
    prefix
        First part of every key.
    clock
        The time as scripts see it. With `None` the server's own clock is
        used, so that machines whose clocks differ agree on every deadline.

    Notes
    -----
    Thread-safe. Every failure to get an answer is `QueueUnavailable`; nothing
    is retried here, because only the caller knows how long it may wait.
    """

    def __init__(self, client: "Redis", prefix: str, clock: Clock | None = None) -> None:
        self._client = client
        self._prefix = prefix
        self._clock = clock
        self._trusted = False

    def check(self) -> None:
        """Raise `QueueUnavailable` unless the server answers and may be trusted."""
        with answering():
            facts: dict[str, Any] = self._client.info()
        version = str(facts.get("redis_version", "0"))
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
            raise QueueUnavailable(
                "The Redis server is too old; version 6.2 or newer is needed.", found=version
            )
        policy = str(facts.get("maxmemory_policy", "unknown"))
        if policy != "noeviction":
            raise QueueUnavailable(
                "The Redis server may drop jobs; set its maxmemory-policy to noeviction.",
                found=policy,
            )
        self._trusted = True

    def run(self, script: Script, *arguments: str | int) -> Any:
        """Run a script; it sees the prefix as its key and the time first."""
        now = SERVER_TIME if self._clock is None else self._clock()
        with self.client() as client:
            try:
                return client.evalsha(script.digest, 1, self._prefix, now, *arguments)
            except NoScriptError:
                return client.eval(script.text, 1, self._prefix, now, *arguments)

    def wait(self, keys: Sequence[str], seconds: float) -> None:
        """Block until something is pushed to one of the lists, or time is up."""
        with self.client() as client:
            client.blpop([self.key(each) for each in keys], min(seconds, SOCKET_SECONDS / 2))

    def key(self, *parts: str) -> str:
        """Return the full name of a key."""
        return ":".join((self._prefix, *parts))

    @contextmanager
    def client(self) -> Iterator[Any]:
        """Lend the client; its failures become `QueueUnavailable`.

        It is untyped because its annotations allow for bytes and coroutines,
        neither of which this client ever answers.
        """
        if not self._trusted:
            self.check()
        with answering():
            yield self._client

    def close(self) -> None:
        """Close every connection."""
        self._client.close()


@contextmanager
def answering() -> Iterator[None]:
    """Turn a failure of the server, or of the way to it, into `QueueUnavailable`."""
    try:
        yield
    except (RedisError, OSError):
        raise QueueUnavailable("The queue does not answer; try again shortly.") from None


def connect(settings: QueueSettings) -> "Redis":
    """Return a client for the configured server; nothing is sent yet."""
    password = None if settings.password is None else settings.password.get_secret_value()
    return Redis.from_url(
        settings.url,
        password=password,
        decode_responses=True,
        protocol=2,  # the one that lets the pool notice a connection that was cut
        socket_timeout=SOCKET_SECONDS,
        socket_connect_timeout=SOCKET_SECONDS,
        health_check_interval=15,
        retry=Retry(NoBackoff(), 0),
    )
