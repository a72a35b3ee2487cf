"""The command as a terminal has it."""

import os
import subprocess
import sys


def test_a_reader_that_left_is_told_nothing():
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(
        [sys.executable, "-m", "service.command.main", "models", "schema"],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (ended.returncode, ended.stderr) == (1, b"")
