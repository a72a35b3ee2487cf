import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from workers.scratch import job_folder, scratch

HOLD = """
import sys, time
from pathlib import Path
from workers.scratch import job_folder, scratch
with scratch(Path(sys.argv[1])) as own, job_folder(own) as job:
    (job / "pixels.npy").write_bytes(b"a patient's pixels")
    print("ready", flush=True)
    time.sleep(60)
"""


def holding(root: Path) -> subprocess.Popen[str]:
    """Start a process that works in a scratch folder below `root`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def pixels(root: Path) -> list[Path]:
    return list(root.rglob("pixels.npy"))


def test_a_job_leaves_nothing_behind_even_when_it_fails(tmp_path: Path) -> None:
    with scratch(tmp_path) as own:
        with suppress(ZeroDivisionError), job_folder(own) as job:
            (job / "pixels.npy").write_bytes(b"x")
            _ = 1 / 0
        assert pixels(tmp_path) == []


def test_a_worker_leaves_nothing_behind(tmp_path: Path) -> None:
    with scratch(tmp_path) as own:
        (own / "packages").mkdir()
    assert list(tmp_path.iterdir()) == []


def test_nobody_else_may_enter(tmp_path: Path) -> None:
    with scratch(tmp_path / "new") as own, job_folder(own) as job:
        for folder in (tmp_path / "new", own, job):
            assert folder.stat().st_mode & 0o077 == 0


def test_what_a_killed_worker_left_goes_when_the_next_one_starts(tmp_path: Path) -> None:
    dead, alive = holding(tmp_path), holding(tmp_path)
    try:
        dead.kill()
        dead.wait(10)
        assert len(pixels(tmp_path)) == 2
        with scratch(tmp_path):
            assert len(pixels(tmp_path)) == 1  # the living one's
    finally:
        alive.kill()
        alive.wait(10)


def test_a_stopped_worker_keeps_its_folder(tmp_path: Path) -> None:
    paused = holding(tmp_path)
    try:
        os.kill(paused.pid, signal.SIGSTOP)
        time.sleep(0.1)
        with scratch(tmp_path):
            assert len(pixels(tmp_path)) == 1
    finally:
        os.kill(paused.pid, signal.SIGCONT)
        paused.kill()
        paused.wait(10)
