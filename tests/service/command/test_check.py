"""The doctor: each fault is found, told in words, and comes with what mends it."""

import os

import pytest

from service.backends import open_backends
from service.command import own_redis
from service.command.home import Home
from service.command.stack import free_port
from service.domain.catalog import Catalog
from service.fleet.base import WorkerRecord
from service.settings import Settings
from workers.scratch import scratch


@pytest.fixture
def home(tmp_path):
    return Home.at(tmp_path / "home")


@pytest.fixture
def nobody():
    return f"http://127.0.0.1:{free_port('127.0.0.1')}"


def findings(out):
    """Return for each part whether it was fine."""
    marked = [line for line in out.splitlines() if line.startswith(("ok", "FAIL"))]
    return {line.split()[1]: line.startswith("ok") for line in marked}


def test_on_an_idle_machine_everything_that_is_missing_is_named(whylight, home, nobody):
    status, out, _ = whylight("check", "--home", home.path, "--url", nobody)
    assert status == 1
    assert findings(out) == {
        "settings": True,
        "redis": False,
        "store": True,
        "keys": False,
        "workers": False,
        "models": False,
        "gateway": False,
    }
    for mend in ("whylight up", "whylight keys create", "python -m api.main"):
        assert mend in out


@pytest.mark.redis
def test_a_redis_that_could_drop_jobs_is_a_fault(whylight, home, monkeypatch):
    with home.socket() as socket:
        server = own_redis.start(home.redis, socket, home.logs / "redis.log", os.environ)
        try:
            monkeypatch.setenv("WHYLIGHT_QUEUE__URL", f"unix://{socket}")
            assert whylight("check", "redis", "--home", home.path)[0] == 0
            with own_redis._client(socket) as client:
                client.config_set("maxmemory-policy", "allkeys-lru")
            status, out, _ = whylight("check", "redis", "--home", home.path)
        finally:
            server.stop(5.0)
    assert status == 1
    assert "noeviction" in out


@pytest.fixture
def fleet(home, monkeypatch):
    """A fleet to publish workers in, as another process would."""
    with home.socket() as socket:
        server = own_redis.start(home.redis, socket, home.logs / "redis.log", os.environ)
        monkeypatch.setenv("WHYLIGHT_QUEUE__URL", f"unix://{socket}")
        monkeypatch.setenv("WHYLIGHT_STORE__URL", home.store.as_uri())
        backends = open_backends(Settings())
        yield backends.fleet
        backends.close()
        server.stop(5.0)


def publish(fleet, name):
    fields = {"pool": "default", "device": "cpu", "started": 1, "version": "0.1.0"}
    record = WorkerRecord(id=name, packages=(), running=0, slots=1, **fields)
    fleet.publish(record, Catalog(), seconds=60)


@pytest.mark.redis
def test_a_machines_worker_is_its_own_and_no_other(whylight, home, fleet, monkeypatch, tmp_path):
    monkeypatch.setenv("WHYLIGHT_WORKER__SCRATCH", str(tmp_path / "scratch"))
    publish(fleet, "wk_elsewhere")
    words = ("check", "worker", "--home", home.path)
    status, out, _ = whylight(*words)
    assert (status, "No worker runs here" in out) == (1, True)
    with scratch(tmp_path / "scratch") as own:
        status, out, _ = whylight(*words)
        assert (status, own.name in out, "elsewhere" in out) == (1, True, False)
        publish(fleet, own.name)
        assert whylight(*words)[0] == 0
        fleet.retire(own.name)
        assert whylight(*words)[0] == 1
    assert whylight(*words)[0] == 1


@pytest.mark.redis
def test_a_worker_with_a_name_is_looked_for_by_it(whylight, home, fleet, monkeypatch):
    monkeypatch.setenv("WHYLIGHT_WORKER__NAME", "reading-room")
    assert whylight("check", "worker", "--home", home.path)[0] == 1
    publish(fleet, "reading-room")
    assert whylight("check", "worker", "--home", home.path)[0] == 0


def test_a_misspelt_variable_is_found(whylight, home, monkeypatch):
    monkeypatch.setenv("WHYLIGHT_QUEUE_URL", "redis://127.0.0.1:1/0")
    status, out, _ = whylight("check", "settings", "--home", home.path)
    assert status == 1
    assert "WHYLIGHT_QUEUE_URL" in out


def test_a_value_that_does_not_fit_is_told_by_its_variable_and_never_shown(
    whylight, home, monkeypatch
):
    monkeypatch.setenv("WHYLIGHT_HTTP__PORT", "swordfish")
    status, _, err = whylight("check", "--home", home.path)
    assert status == 1
    assert "WHYLIGHT_HTTP__PORT" in err
    assert "swordfish" not in err


def test_only_what_was_asked_for_is_looked_at(whylight, home):
    status, out, _ = whylight("check", "store", "--home", home.path)
    assert (status, findings(out)) == (0, {"store": True})


def test_a_part_that_does_not_exist_is_refused_with_those_that_do(whylight, home):
    status, _, err = whylight("check", "reddis", "--home", home.path)
    assert status == 1
    assert "redis" in err.splitlines()[1]


def test_a_store_of_an_unknown_kind_is_told(whylight, home, monkeypatch):
    monkeypatch.setenv("WHYLIGHT_STORE__URL", "ftp://somewhere")
    status, _, err = whylight("check", "--home", home.path)
    assert status == 1
    assert "WHYLIGHT_STORE__URL" in err
