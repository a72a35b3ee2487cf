"""The device: which one, how much of its memory, and what its failures mean."""

import math
import os
import time
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

HEADROOM: Final = 0.8
"""Share of free memory that models and batches may fill; the rest is the allocator's own."""

CPU_SHARE: Final = 0.5
"""Share of a host's free memory that models and batches may fill: pixels live there too."""

MEMORY: Final = Path("/proc/meminfo")
CONTAINER: Final = Path("/sys/fs/cgroup")

MESSAGES_OF_FULL_MEMORY: Final = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "failed to allocate memory",
    "bad_alloc",
)


class DeviceLostError(Exception):
    """The device context is broken; only a new process gets a new one."""


def choose(wish: str = "auto") -> torch.device:
    """Return the device named by `wish`; ``auto`` prefers CUDA when there is one."""
    if wish != "auto":
        return torch.device(wish)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def hardware(device: torch.device) -> str:
    """Return the device's name; of a CPU its instruction set, which sums depend on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return torch.backends.cpu.get_cpu_capability()


def rounds_to_tf32(device: torch.device) -> bool:
    """Tell whether convolutions or products of float32 numbers may drop their last 13 bits."""
    backends = torch.backends
    return device.type == "cuda" and (backends.cudnn.allow_tf32 or backends.cuda.matmul.allow_tf32)


def forbid_tf32() -> None:
    """Have float32 numbers multiplied as float32 on CUDA; convolutions round them by default."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def sent(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a host's tensor on the device: through pinned memory, with nobody waiting for it."""
    if device.type != "cuda":
        return tensor.to(device, dtype)
    return tensor.pin_memory().to(device, non_blocking=True).to(dtype)


def memory_budget(device: torch.device) -> int:
    """Return the bytes that models and batches may fill on `device`, as of now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * HEADROOM)
    return int(min(_host_free(), _container_free()) * CPU_SHARE)


def _host_free() -> float:
    """Return the bytes that the host could give, page cache included."""
    for line in MEMORY.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return float(line.split()[1]) * 1024
    return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _container_free() -> float:
    """Return the bytes that a container's limit leaves, infinite without one."""
    try:
        limit = (CONTAINER / "memory.max").read_text().strip()
        used = (CONTAINER / "memory.current").read_text().strip()
    except OSError:
        return math.inf
    return math.inf if limit == "max" else float(int(limit) - int(used))


def synchronize(device: torch.device) -> None:
    """Wait for the device, so that a measured time is the work's own."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Stopwatch:
    """How long a device works on what it is given from now on until `stop`.

    A CUDA device is given work faster than it does it; its own clock counts then,
    and only who reads the time waits for it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks = _marks() if device.type == "cuda" else None
        self._began = time.perf_counter()
        self._seconds = 0.0
        if self._marks is not None:
            self._marks[0].record(torch.cuda.current_stream(self._device))

    def stop(self) -> None:
        """End what is measured."""
        self._seconds = time.perf_counter() - self._began
        if self._marks is not None:
            self._marks[1].record(torch.cuda.current_stream(self._device))

    @property
    def seconds(self) -> float:
        """What was measured, once the device has come so far."""
        if self._marks is None:
            return self._seconds
        start, end = self._marks
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000


def _marks() -> tuple[torch.cuda.Event, torch.cuda.Event]:
    return torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether `error` means that a batch did not fit the memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return any(message in text for message in MESSAGES_OF_FULL_MEMORY)


def is_device_fault(error: BaseException) -> bool:
    """Tell whether `error` broke the device context, so that no call can succeed."""
    return isinstance(error, torch.AcceleratorError)


def release_memory(device: torch.device) -> None:
    """Give cached blocks back after a batch did not fit."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
