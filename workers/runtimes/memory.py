"""What memory a model takes: a fixed part, a part for each row, and what is made of it later."""

import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typing_extensions import override

STATUS: Final = Path("/proc/self/status")
PEAK_RESET: Final = Path("/proc/self/clear_refs")
RESET: Final = "5"
"""What has the kernel forget the most memory that the process ever had."""


class _LiveStorage(TorchDispatchMode):
    """Counts bytes of storages made under it that are still alive."""

    def __init__(self, kept: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ignored = {tensor.untyped_storage()._cdata for tensor in kept}  # noqa: SLF001 - its one identity
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak: int = 0

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self._ignored:  # noqa: SLF001 - its one identity
                    self._alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())  # noqa: SLF001
        self._alive = {key: each for key, each in self._alive.items() if not each[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return result


def peak_bytes(run: Callable[[], object], kept: Iterable[Tensor]) -> int:
    """Return the most bytes alive at once while `run` works, without the tensors `kept`."""
    mode = _LiveStorage(kept)
    with mode:
        run()
    return mode.peak


class Ledger:
    """Bytes that things take for as long as they live; any thread may ask."""

    def __init__(self) -> None:
        self.bytes = 0
        self._lock = threading.RLock()  # a thing may end in the midst of another's entry

    def enter(self, thing: object, size: int) -> None:
        """Count the bytes of a thing until it is no more."""
        self._add(size)
        weakref.finalize(thing, self._add, -size).atexit = False

    def _add(self, size: int) -> None:
        with self._lock:
            self.bytes += size


@dataclass(frozen=True, slots=True)
class Need:
    """Memory of a run as a line in its rows: ``fixed + rows * row`` bytes."""

    fixed: int
    """Beyond the weights themselves."""

    row: int


def needed(
    run: Callable[[int], object],
    model: torch.nn.Module,
    device: torch.device,
    rows: Sequence[int] = (1, 2),
) -> Need:
    """Return the line through the peaks of a run of one row and of one of two.

    Of a model that takes one row alone, `rows` is ``(1,)``, and all of it is the row's.
    On CUDA the peaks are the allocator's, so that workspaces of convolutions
    count; elsewhere tensors are counted.
    """
    if device.type == "cuda":
        run(1)  # what libraries take once is theirs, not the run's
        peaks = [_allocated(partial(run, count), device) for count in rows]
    else:
        kept = [*model.parameters(), *model.buffers()]
        peaks = [peak_bytes(partial(run, count), kept) for count in rows]
    return line(rows, peaks)


def line(rows: Sequence[int], peaks: Sequence[int]) -> Need:
    """Return the line through the peaks of one row and of the last of `rows`, if there are more."""
    one, *_ = peaks
    row = max(1, (peaks[-1] - one) // (rows[-1] - 1) if len(rows) > 1 else one)
    return Need(max(0, one - row), row)


def peaked(run: Callable[[], object]) -> int | None:
    """Return by how many bytes the process is larger at most while `run` works; at least 0.

    `None` if the kernel does not count that; `run` has worked all the same.
    """
    before = resident_bytes()
    try:
        PEAK_RESET.write_text(RESET)
    except OSError:
        run()
        return None
    run()
    (peak,) = (each for each in STATUS.read_text().splitlines() if each.startswith("VmHWM:"))
    return max(0, int(peak.split()[1]) * 1024 - before)


def resident_bytes() -> int:
    """Return the bytes of this process that lie in the host's memory, and are in use.

    What was freed is given back first: else it would be used again and not be seen.
    """
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def weight_bytes(model: torch.nn.Module) -> int:
    """Return the bytes of a model's parameters and buffers, each storage once."""
    storages = (each.untyped_storage() for each in (*model.parameters(), *model.buffers()))
    return sum({each.data_ptr(): each.nbytes() for each in storages}.values())


def _allocated(run: Callable[[], object], device: torch.device) -> int:
    """Return the most bytes that the CUDA allocator gave while `run` worked."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
