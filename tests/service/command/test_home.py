"""The stack's folder: private, for one stack at a time, and telling of it."""

import os
import stat
import subprocess
import sys

import pytest

from service.command.failure import CommandFailure
from service.command.home import Home, Running


@pytest.fixture
def home(tmp_path):
    return Home.at(tmp_path / "home")


def running(pid):
    return Running(pid=pid, url="http://127.0.0.1:1", queue_url="unix:///a")


def test_nobody_else_can_enter_even_a_folder_that_stood_open(tmp_path):
    (tmp_path / "home").mkdir(mode=0o755)
    home = Home.at(tmp_path / "home")
    for folder in (home.path, home.redis, home.store, home.logs):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_second_stack_is_refused_while_one_lives_here(home):
    with home.claim(), pytest.raises(CommandFailure, match="Another stack"), home.claim():
        pass


def test_a_home_is_free_again_after_its_stack(home):
    for _ in range(2):
        with home.claim():
            pass


def test_a_socket_path_too_long_for_the_kernel_is_moved_to_a_short_private_folder(tmp_path):
    deep = Home.at(tmp_path / ("d" * 120))
    with deep.socket() as socket:
        assert len(os.fsencode(socket)) <= 108
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    assert not socket.parent.exists()


def test_other_commands_find_the_stack_while_it_runs(home):
    with home.announce(running(os.getpid())):
        assert home.running() == running(os.getpid())
    assert home.running() is None


def test_a_stack_that_was_killed_is_not_taken_for_a_running_one(home):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with home.announce(running(ended.pid)):
        assert home.running() is None
