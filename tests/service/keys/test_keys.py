"""API keys: made once, kept hashed, refused with one voice."""

from datetime import timedelta
from pathlib import Path

import pytest

from service.errors.requests import InvalidRequest, NotFound, Unauthenticated
from service.keys import KeyRing, Scope
from service.settings import StoreSettings
from service.store.objects import ObjectBlobStore, open_store

READ = (Scope.STUDIES_READ,)


class Clock:
    """Seconds since the epoch, driven by hand."""

    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> ObjectBlobStore:
    return open_store(StoreSettings(url=f"file://{tmp_path}/store", reserve_bytes=0))


@pytest.fixture
def ring(store: ObjectBlobStore, clock: Clock) -> KeyRing:
    return KeyRing(store, clock)


def test_a_key_opens_with_the_rights_it_was_given(ring: KeyRing) -> None:
    key, record = ring.create("clinic", [Scope.STUDIES_WRITE, Scope.STUDIES_READ], label="pacs")
    seen = ring.verify(key)
    assert seen == record
    assert (seen.tenant, seen.label) == ("clinic", "pacs")
    assert set(seen.scopes) == {Scope.STUDIES_WRITE, Scope.STUDIES_READ}


def test_a_key_has_the_announced_form(ring: KeyRing) -> None:
    key, record = ring.create("clinic", READ, environment="test")
    prefix, environment, key_id, secret = key.split("_")
    assert (prefix, environment, key_id) == ("wl", "test", record.id)
    assert len(bytes.fromhex(secret)) * 8 == 256


def test_the_store_never_holds_the_secret(ring: KeyRing, store: ObjectBlobStore) -> None:
    key, record = ring.create("clinic", READ)
    secret = key.rpartition("_")[2]
    for blob in store.list("keys"):
        assert secret.encode() not in store.get(blob.path)
    assert record.secret_sha256 not in repr(record)


def test_no_two_keys_are_alike(ring: KeyRing) -> None:
    assert len({ring.create("clinic", READ)[0] for _ in range(20)}) == 20


def test_every_wrong_key_is_refused_with_the_same_words(ring: KeyRing, clock: Clock) -> None:
    good, _ = ring.create("clinic", READ)
    short, _ = ring.create("clinic", READ, expires_in=timedelta(minutes=1))
    revoked, record = ring.create("clinic", READ)
    ring.revoke(record.id)
    clock.now += 60
    wrong_secret = good[:-1] + ("0" if good[-1] != "0" else "1")
    unknown = "wl_live_" + "0" * 16 + "_" + "0" * 64
    other_environment = good.replace("wl_live_", "wl_test_")
    malformed = [
        "",
        "wl",
        "Bearer x",
        good.upper(),
        good + "0",
        " " + good,
        good + "\n",
        "wl_live_.._x",
    ]
    texts = set()
    for key in [short, revoked, wrong_secret, unknown, other_environment, *malformed]:
        with pytest.raises(Unauthenticated) as refused:
            ring.verify(key)
        texts.add((refused.value.detail, str(refused.value.facts)))
    assert len(texts) == 1
    assert ring.verify(good)


def test_a_key_holds_until_it_expires(ring: KeyRing, clock: Clock) -> None:
    key, _ = ring.create("clinic", READ, expires_in=timedelta(hours=1))
    clock.now += 3599
    ring.verify(key)
    clock.now += 1
    with pytest.raises(Unauthenticated):
        ring.verify(key)


def test_a_revocation_elsewhere_is_seen_within_ten_seconds(
    ring: KeyRing, store: ObjectBlobStore, clock: Clock
) -> None:
    key, record = ring.create("clinic", READ)
    ring.verify(key)
    KeyRing(store, clock).revoke(record.id)
    clock.now += 10
    with pytest.raises(Unauthenticated):
        ring.verify(key)


def test_a_revocation_here_is_seen_at_once(ring: KeyRing) -> None:
    key, record = ring.create("clinic", READ)
    ring.verify(key)
    ring.revoke(record.id)
    with pytest.raises(Unauthenticated):
        ring.verify(key)


def test_a_busy_key_costs_no_look_into_the_store(ring: KeyRing, store: ObjectBlobStore) -> None:
    key, _ = ring.create("clinic", READ)
    ring.verify(key)
    store.purge("keys")
    assert ring.verify(key)


def test_a_key_made_elsewhere_is_known_at_once(ring: KeyRing, store: ObjectBlobStore) -> None:
    key, _ = KeyRing(store).create("clinic", READ)
    assert ring.verify(key).tenant == "clinic"


def test_the_list_shows_every_key_oldest_first(ring: KeyRing, clock: Clock) -> None:
    made = []
    for tenant in ("a", "b", "c"):
        clock.now += 1
        made.append(ring.create(tenant, READ)[1].id)
    ring.revoke(made[1])
    assert [(each.id, each.revoked is not None) for each in ring.list()] == [
        (made[0], False),
        (made[1], True),
        (made[2], False),
    ]


def test_revoking_twice_keeps_the_first_time(ring: KeyRing, clock: Clock) -> None:
    _, record = ring.create("clinic", READ)
    first = ring.revoke(record.id)
    clock.now += 5
    assert ring.revoke(record.id) == first


@pytest.mark.parametrize("key_id", ["0" * 16, "../../etc", "", "x"])
def test_revoking_no_key_is_told(ring: KeyRing, key_id: str) -> None:
    with pytest.raises(NotFound):
        ring.revoke(key_id)


@pytest.mark.parametrize(
    "tenant", ["", "A", "a b", "../x", "a/b", "-a", "a" * 65, "keys", "models", "catalog", "a\n"]
)
def test_a_tenant_that_is_no_name_is_refused(ring: KeyRing, tenant: str) -> None:
    with pytest.raises(InvalidRequest):
        ring.create(tenant, READ)


@pytest.mark.parametrize("environment", ["", "a_b", "LIVE", "a" * 17])
def test_an_environment_that_is_no_name_is_refused(ring: KeyRing, environment: str) -> None:
    with pytest.raises(InvalidRequest):
        ring.create("clinic", READ, environment=environment)
