"""What a throw-away process gives up before it touches a file that may run code.

Every protection is the kernel's own and cannot be taken back by the process, nor
by what it loads. They overlap on purpose: the network is gone with its namespace,
by Landlock and by the filter of system calls.

Linux on x86-64 only: the filter knows system calls by number.
"""

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_LIBC = ctypes.CDLL(None, use_errno=True)

# linux/prctl.h
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, PR_SET_DUMPABLE = 38, 22, 4
SECCOMP_MODE_FILTER = 2
# linux/sched.h
CLONE_THREAD, CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWIPC = 0x10000, 0x10000000, 0x40000000, 0x8000000
# asm/unistd_64.h
CAPSET, LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 126, 444, 445, 446
OPENAT, OPEN, CLONE, CLONE3 = 257, 2, 56, 435
ALLOWED: Final = {
    "read": 0,
    "write": 1,
    "close": 3,
    "stat": 4,
    "fstat": 5,
    "lstat": 6,
    "poll": 7,
    "lseek": 8,
    "mmap": 9,
    "mprotect": 10,
    "munmap": 11,
    "brk": 12,
    "rt_sigaction": 13,
    "rt_sigprocmask": 14,
    "rt_sigreturn": 15,
    "pread64": 17,
    "readv": 19,
    "writev": 20,
    "access": 21,
    "sched_yield": 24,
    "mremap": 25,
    "madvise": 28,
    "dup": 32,
    "nanosleep": 35,
    "getpid": 39,
    "exit": 60,
    "uname": 63,
    "getcwd": 79,
    "readlink": 89,
    "gettimeofday": 96,
    "getrlimit": 97,
    "getrusage": 98,
    "sysinfo": 99,
    "times": 100,
    "getuid": 102,
    "getgid": 104,
    "geteuid": 107,
    "getegid": 108,
    "getppid": 110,
    "sigaltstack": 131,
    "gettid": 186,
    "futex": 202,
    "sched_getaffinity": 204,
    "getdents64": 217,
    "set_tid_address": 218,
    "restart_syscall": 219,
    "clock_gettime": 228,
    "clock_getres": 229,
    "clock_nanosleep": 230,
    "exit_group": 231,
    "newfstatat": 262,
    "readlinkat": 267,
    "faccessat": 269,
    "set_robust_list": 273,
    "getrandom": 318,
    "membarrier": 324,
    "statx": 332,
    "rseq": 334,
    "faccessat2": 439,
}
"""System calls that compute, read, and write to what is open already."""

WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
ENOSYS, EPERM = 38, 1

# linux/filter.h, linux/seccomp.h, linux/audit.h
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, ERROR, KILL = 0x7FFF0000, 0x00050000, 0x80000000
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16
X86_64 = 0xC000003E

READ_FILE, READ_DIR = 1 << 2, 1 << 3
FILE_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 5: 16}
"""By version of Landlock: how many rights over files there are from it on."""

LIBRARIES: Final = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64")
MACHINE: Final = ("/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu")
"""What tensor libraries ask of the processor; of other processes nothing can be read."""

READABLE: Final = (
    *(*LIBRARIES, *MACHINE),
    *("/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo"),
)
HOME: Final = Path(__file__).parents[1]
"""Where our own packages lie: a source tree, or among the libraries."""


class Unconfined(Exception):
    """A protection that must be there cannot be had; nothing was loaded."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a throw-away process may take."""

    memory_bytes: int
    """Address space beyond what it has when it is confined."""

    cpu_seconds: int
    output_bytes: int


def leave_network() -> tuple[str, ...]:
    """Leave the network and shared memory of the machine; while there is one thread.

    Who is not root gets a user namespace for it, where the kernel lets him.
    """
    spaces = CLONE_NEWNET | CLONE_NEWIPC
    for flags in (spaces, spaces | CLONE_NEWUSER):
        if _LIBC.unshare(flags) == 0:
            user = ["own user namespace"] if flags & CLONE_NEWUSER else []
            return ("own network namespace without interfaces", "own IPC namespace", *user)
    return ()


def confine(limits: Limits) -> tuple[str, ...]:
    """Give up all that is not needed to compute, read and write to open files.

    Returns
    -------
    tuple of str
        The protections that hold from now on, in words.

    Raises
    ------
    Unconfined
        No system calls can be filtered here.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise Unconfined
    _limit(limits)
    if _LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise Unconfined
    _LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    held = ["limits of memory, processor time and file size", "no new privileges"]
    if _without_capabilities():
        held.append("no capabilities")
    version = _landlocked()
    if version:
        held.append(f"Landlock {version}: files of the interpreter and its libraries, read only")
    _filter()
    held.append(
        "filter of system calls: no program, process, socket or signal; no file but to read"
    )
    return tuple(held)


def _limit(limits: Limits) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + limits.memory_bytes
    for kind, value in (
        (resource.RLIMIT_AS, most),
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_FSIZE, limits.output_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def _without_capabilities() -> bool:
    """Drop root's powers over other users' files and processes; whether it was done."""
    header = struct.pack("<Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    return bool(_LIBC.syscall(CAPSET, header, bytes(24)) == 0)


def _landlocked() -> int:
    """Allow no file but those of the interpreter, to read; return Landlock's version, 0 if none."""
    version = int(_LIBC.syscall(LANDLOCK_CREATE, None, 0, 1))
    if version < 1:
        return 0
    rights = (1 << max(bits for since, bits in FILE_RIGHTS.items() if since <= version)) - 1
    net, scoped = (3 if version >= since else 0 for since in (4, 6))  # ports; sockets and signals
    attributes = struct.pack("<QQQ", rights, net, scoped)
    size = 24 if scoped else 16 if net else 8
    rules = int(_LIBC.syscall(LANDLOCK_CREATE, attributes[:size], size, 0))
    if rules < 0:
        return 0
    for path in _readable():
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        read = READ_FILE | (READ_DIR if path.is_dir() else 0)
        _LIBC.syscall(LANDLOCK_ADD, rules, 1, struct.pack("<Qi", read, handle), 0)
        os.close(handle)
    held = _LIBC.syscall(LANDLOCK_RESTRICT, rules, 0) == 0
    os.close(rules)
    return version if held else 0


def _readable() -> Iterator[Path]:
    own = map(Path, filter(None, (sys.prefix, sys.base_prefix, *sys.path)))
    code = {HOME / "workers", HOME / "service"}  # a source tree holds more than that
    every = {*own, *map(Path, READABLE), *code} - {HOME}
    return (each for each in every if each.exists())


def _filter() -> None:
    """Let the kernel refuse every system call that is not on the list."""
    program = b"".join(struct.pack("<HBBI", *each) for each in _program())
    code = ctypes.create_string_buffer(program)
    filter_ = struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    if _LIBC.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter_, 0, 0):
        raise Unconfined


def _program() -> list[tuple[int, int, int, int]]:
    """Return the filter: instructions as code, steps if true, steps if false, constant."""
    return [
        (LOAD, 0, 0, ARCHITECTURE_AT),
        (EQUAL, 1, 0, X86_64),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER_AT),
        *(step for number in sorted(ALLOWED.values()) for step in _allow(number)),
        *_unless(OPENAT, 2, WRITING),
        *_unless(OPEN, 1, WRITING),
        (EQUAL, 0, 4, CLONE),  # threads, no processes
        (LOAD, 0, 0, ARGUMENTS_AT),
        (ANY_BIT, 0, 1, CLONE_THREAD),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, ERROR | EPERM),
        (EQUAL, 0, 1, CLONE3),  # glibc then takes clone, whose flags can be seen
        (RETURN, 0, 0, ERROR | ENOSYS),
        (RETURN, 0, 0, ERROR | EPERM),
    ]


def _allow(number: int) -> Sequence[tuple[int, int, int, int]]:
    return ((EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW))


def _unless(number: int, argument: int, bits: int) -> Sequence[tuple[int, int, int, int]]:
    """Allow a call unless an argument has one of these bits."""
    return (
        (EQUAL, 0, 4, number),
        (LOAD, 0, 0, ARGUMENTS_AT + 8 * argument),
        (ANY_BIT, 1, 0, bits),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, ERROR | EPERM),
    )
