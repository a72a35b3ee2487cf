"""A child process: ended in good time, and heard when it fails."""

import os
import sys
import time

from service.command.child import Child


def child(tmp_path, program):
    return Child("part", [sys.executable, "-uc", program], tmp_path / "part.log", os.environ)


def wait_for_line(process, line):
    deadline = time.monotonic() + 10.0
    while line not in process.last_lines() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert line in process.last_lines()


def test_a_child_that_ends_when_asked_is_not_killed(tmp_path):
    process = child(tmp_path, "import time; time.sleep(60)")
    assert process.ended() is None
    assert process.stop(10.0)
    assert process.ended() is not None


def test_a_child_that_does_not_end_is_killed_and_told_of(tmp_path):
    process = child(
        tmp_path,
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('deaf'); time.sleep(60)",
    )
    wait_for_line(process, "deaf")
    assert not process.stop(0.2)
    assert process.ended() is not None


def test_the_last_words_of_a_child_are_kept(tmp_path):
    process = child(tmp_path, "print(*range(100), sep='\\n'); raise SystemExit('it broke')")
    wait_for_line(process, "it broke")
    assert "\n10\n" not in process.last_lines()
