"""Bytes a row: live storage counted while a model runs at two batch sizes."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typing_extensions import override


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


def bytes_a_row(run: Callable[[int], object], model: torch.nn.Module) -> int:
    """Return the slope of peak memory in rows, from runs of one and of two rows.

    The fixed part is left out: what is made of parameters would count as
    fixed, and is the model's own.
    """
    kept = [*model.parameters(), *model.buffers()]
    one, two = (peak_bytes(partial(run, rows), kept) for rows in (1, 2))
    return max(1, two - one)
