"""The doctor: each fault is found, told in words, and comes with what mends it."""

import os

import pytest

from service.command import own_redis
from service.command.home import Home
from service.command.stack import free_port


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
