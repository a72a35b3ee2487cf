"""The stack's own Redis: private, durable, never evicting, gone when it should be."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from service.command import own_redis
from service.command.failure import CommandFailure
from service.command.home import Home

pytestmark = pytest.mark.redis

SERVERS = {"system": own_redis.find_server, "bundled": own_redis._bundled_server}


@pytest.fixture(params=list(SERVERS))
def server_program(request, monkeypatch):
    program = SERVERS[request.param]()
    assert program is not None
    monkeypatch.setattr(own_redis, "find_server", lambda: program)


@pytest.fixture
def home(tmp_path):
    return Home.at(tmp_path / "home")


def start(home, socket):
    return own_redis.start(home.redis, socket, home.logs / "redis.log", os.environ)


@pytest.mark.usefixtures("server_program")
def test_keeps_what_was_written_over_a_restart(home):
    with home.socket() as socket:
        for value in (None, b"kept"):
            server = start(home, socket)
            with redis.Redis(unix_socket_path=str(socket)) as client:
                assert client.get("word") == value
                client.set("word", "kept")
            assert server.stop(5.0)


@pytest.mark.usefixtures("server_program")
def test_listens_on_no_port_and_never_evicts(home):
    with home.socket() as socket:
        server = start(home, socket)
        try:
            with redis.Redis(unix_socket_path=str(socket), decode_responses=True) as client:
                told = client.config_get()
        finally:
            server.stop(5.0)
    expected = {
        "port": "0",
        "maxmemory-policy": "noeviction",
        "appendonly": "yes",
        "appendfsync": "everysec",
    }
    assert {name: told[name] for name in expected} == expected


def test_only_the_owner_reaches_the_socket(home):
    with home.socket() as socket:
        server = start(home, socket)
        try:
            assert stat.S_IMODE(socket.stat().st_mode) == 0o700
            assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
        finally:
            server.stop(5.0)


def test_takes_the_place_of_a_server_that_a_killed_command_left_behind(home):
    with home.socket() as socket:
        orphan = start(home, socket)
        successor = start(home, socket)
        try:
            assert orphan.ended() is not None
            assert own_redis.answers(socket)
        finally:
            successor.stop(5.0)


def test_a_server_that_cannot_start_is_told_with_its_own_words(home):
    home.redis.rmdir()
    with home.socket() as socket, pytest.raises(CommandFailure, match="did not start") as caught:
        start(home, socket)
    assert "redis.log" in caught.value.mend


def test_without_any_server_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setattr(own_redis.shutil, "which", lambda _name: None)
    monkeypatch.setattr(own_redis, "_bundled_server", lambda: None)
    with pytest.raises(CommandFailure) as caught:
        own_redis.find_server()
    assert "redis-server" in caught.value.mend


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent signal is Linux's")
def test_ends_with_its_parent_when_that_is_killed(home):
    with home.socket() as socket:
        program = (
            "import os, time; from pathlib import Path; from service.command import own_redis;"
            f"own_redis.start(Path({str(home.redis)!r}), Path({str(socket)!r}),"
            f" Path({str(home.logs / 'redis.log')!r}), os.environ); print('up', flush=True);"
            "time.sleep(60)"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path.cwd()
        ) as parent:
            assert parent.stdout is not None
            assert parent.stdout.readline() == b"up\n"
            assert own_redis.answers(socket)
            parent.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 10.0
        while own_redis.answers(socket) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not own_redis.answers(socket)
