"""API keys: who calls, for which tenant, with which rights.

A key is ``wl_{environment}_{id}_{secret}``. The secret has 256 random bits
and is shown once; the store keeps its SHA-256, for which a slow hash is not
needed, because so many bits cannot be guessed.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from threading import Lock

from pydantic import Field

from service.domain.ids import ALPHABET
from service.domain.value import Sha256, Slug, Value
from service.errors.requests import InvalidRequest, NotFound, Unauthenticated
from service.store.base import BlobStore

FOLDER = "keys"
RESERVED = frozenset({FOLDER, "models", "catalog"})
"""Names of the store's own folders, which no tenant may bear."""

ID_LENGTH = 16
REMEMBERED_FOR = 10.0
"""Seconds after which a revocation is seen everywhere."""

REMEMBERED_MOST = 1024
PATTERN = re.compile(r"wl_([a-z0-9]{1,16})_([0-9a-z]{16})_([0-9a-f]{64})")


class Scope(StrEnum):
    """What a key allows."""

    STUDIES_WRITE = "studies:write"
    STUDIES_READ = "studies:read"
    EXPLANATIONS_WRITE = "explanations:write"
    EXPLANATIONS_READ = "explanations:read"
    MODELS_READ = "models:read"
    MODELS_ADMIN = "models:admin"
    QUEUE_ADMIN = "queue:admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf something is done."""

    tenant: str
    key: str
    """Identifier of the API key; no secret."""


class KeyRecord(Value):
    """A key as the store keeps it. Times are milliseconds since the epoch."""

    id: str
    environment: str
    tenant: Slug
    scopes: tuple[Scope, ...]
    label: str
    created: int
    expires: int | None = None
    revoked: int | None = None
    secret_sha256: Sha256 = Field(repr=False)

    def holds(self, now: int) -> bool:
        """Tell whether the key is neither revoked nor expired."""
        return self.revoked is None and (self.expires is None or now < self.expires)


class KeyRing:
    """The keys of an installation, kept in the store.

    Parameters
    ----------
    store
        Where records lie, as ``keys/{id}.json``.
    clock
        Seconds since the epoch.

    Notes
    -----
    Thread-safe. A record that was read counts for ten seconds, so a busy key
    costs no look into the store, and a revoked one works no longer than that.
    """

    def __init__(self, store: BlobStore, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[str, tuple[float, KeyRecord]] = {}
        self._lock = Lock()

    def create(
        self,
        tenant: str,
        scopes: Iterable[Scope],
        *,
        label: str = "",
        expires_in: timedelta | None = None,
        environment: str = "live",
    ) -> tuple[str, KeyRecord]:
        """Make a key; return its text, which is shown only here, and its record.

        Raises
        ------
        InvalidRequest
            The tenant or the environment is not a name that may be used.
        """
        _check_names(tenant, environment)
        now = self._now()
        secret = secrets.token_hex(32)
        record = KeyRecord(
            id="".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH)),
            environment=environment,
            tenant=tenant,
            scopes=tuple(sorted(set(scopes))),
            label=label,
            created=now,
            expires=None if expires_in is None else now + expires_in // timedelta(milliseconds=1),
            secret_sha256=_digest(secret),
        )
        self._store.put(_path(record.id), record.model_dump_json().encode(), overwrite=False)
        return f"wl_{environment}_{record.id}_{secret}", record

    def verify(self, key: str) -> KeyRecord:
        """Return the record of a key that holds.

        Raises
        ------
        Unauthenticated
            The key is malformed, unknown, wrong, expired or revoked; the text
            does not tell which.
        """
        parts = PATTERN.fullmatch(key)
        if parts is None:
            raise _unauthenticated()
        environment, key_id, secret = parts.groups()
        record = self._recall(key_id)
        expected = "" if record is None else record.secret_sha256
        if not hmac.compare_digest(_digest(secret), expected) or record is None:
            raise _unauthenticated()
        if record.environment != environment or not record.holds(self._now()):
            raise _unauthenticated()
        return record

    def list(self) -> tuple[KeyRecord, ...]:
        """List every key, revoked and expired ones too, oldest first."""
        blobs = self._store.list(FOLDER)
        records = [KeyRecord.model_validate_json(self._store.get(each.path)) for each in blobs]
        return tuple(sorted(records, key=lambda each: (each.created, each.id)))

    def revoke(self, key_id: str) -> KeyRecord:
        """Revoke a key for good; `NotFound` if there is none."""
        record = self._read(key_id)
        if record is None:
            raise NotFound("There is no such API key.")
        if record.revoked is None:
            record = record.model_copy(update={"revoked": self._now()})
            self._store.put(_path(key_id), record.model_dump_json().encode())
        with self._lock:
            self._known.pop(key_id, None)
        return record

    def _recall(self, key_id: str) -> KeyRecord | None:
        now = self._clock()
        with self._lock:
            known = self._known.get(key_id)
        if known is not None and 0 <= now - known[0] < REMEMBERED_FOR:
            return known[1]
        record = self._read(key_id)
        if record is not None:
            self._remember(now, record)
        return record

    def _remember(self, now: float, record: KeyRecord) -> None:
        with self._lock:
            if len(self._known) >= REMEMBERED_MOST:
                self._known.clear()
            self._known[record.id] = (now, record)

    def _read(self, key_id: str) -> KeyRecord | None:
        if not re.fullmatch(r"[0-9a-z]{16}", key_id):
            return None
        try:
            return KeyRecord.model_validate_json(self._store.get(_path(key_id)))
        except FileNotFoundError:
            return None

    def _now(self) -> int:
        return int(self._clock() * 1000)


def _check_names(tenant: str, environment: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", tenant) or tenant in RESERVED:
        raise InvalidRequest(
            "A tenant's name is 1 to 64 of a-z, 0-9, '.', '_' and '-', begins with a letter or "
            "digit, and is none of the store's own folders.",
            pointer="/tenant",
            reserved=[*sorted(RESERVED)],
        )
    if not re.fullmatch(r"[a-z0-9]{1,16}", environment):
        raise InvalidRequest(
            "An environment's name is 1 to 16 letters and digits.", pointer="/environment"
        )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _path(key_id: str) -> str:
    return f"{FOLDER}/{key_id}.json"


def _unauthenticated() -> Unauthenticated:
    return Unauthenticated("Send a valid API key as 'Authorization: Bearer wl_...'.")
