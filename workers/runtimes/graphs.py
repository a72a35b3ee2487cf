"""CUDA graphs: a forward pass that the host launches as one, and not kernel by kernel.

Few rows of a network keep the device busy for less time than the host needs to
launch its kernels. A captured pass does the same kernels on the same weights, so
that its bits are those of the pass as it was.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typing_extensions import override

from workers.runtimes.memory import Ledger

AFTER: Final = 8
"""Passes of one kind before it is captured: capturing takes as long as dozens of them."""

LARGEST: Final = 64
"""Rows beyond which the device, and not the host, is what takes the time."""

KEPT: Final = 16
"""Graphs of one model; each holds its own input, and all share the rest of their memory."""

Given = tuple[Tensor, dict[str, Tensor]]
"""The outputs, and what each place put out."""

Places = tuple[str, ...]
Run = Callable[[Tensor, Places], Given]
Key = tuple[tuple[int, ...], Places]


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Graph:
    """A captured pass: what it reads, and what it writes at every replay."""

    graph: torch.cuda.CUDAGraph
    batch: Tensor
    given: Given

    def replay(self, batch: Tensor) -> Given:
        """Run the pass; what it gives is copied, for the next replay overwrites it."""
        self.batch.copy_(batch)
        self.graph.replay()
        outputs, found = self.given
        return outputs.clone(), {place: each.clone() for place, each in found.items()}


class Graphs:
    """A model's forward passes by shape, rows and places, captured once they are frequent.

    A model that cannot be captured runs as it is, and is not tried again.

    Parameters
    ----------
    ledger
        Where the memory that captured passes hold is counted: by how much that of the allocator
        grew meanwhile, which may be more.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._seen: Counter[Key] = Counter()
        self._graphs: OrderedDict[Key, Graph] = OrderedDict()
        self._able = True
        self._pool: Any = None
        """Where the graphs' memory lies; torch's own handle."""

    def forward(self, run: Run, batch: Tensor, places: Places) -> Given:
        """Return what `run`, always the same model's pass, gives for a batch."""
        key = (tuple(batch.shape), places)
        if len(batch) > LARGEST:
            return run(batch, places)
        self._seen[key] += 1
        if key not in self._graphs and self._able and self._seen[key] > AFTER:
            self._keep(key, self._captured(run, batch, places))
        if key not in self._graphs:
            return run(batch, places)
        self._graphs.move_to_end(key)
        return self._graphs[key].replay(batch)

    def _keep(self, key: Key, graph: Graph | None) -> None:
        """Remember a graph, or that there can be none; the graph used least recently goes."""
        if graph is None:
            self._able = False
            return
        self._graphs[key] = graph
        if len(self._graphs) > KEPT:
            gone, _ = self._graphs.popitem(last=False)
            del self._seen[gone]

    def _captured(self, run: Run, batch: Tensor, places: Places) -> Graph | None:
        """Capture a pass; `None` if it cannot be."""
        current = torch.cuda.current_stream(batch.device)
        before = torch.cuda.memory_reserved(batch.device)
        try:
            with torch.cuda.device(batch.device):
                graph = self._capture(run, batch.clone(), places)
        except Exception:  # noqa: BLE001 - a model is foreign code, and runs uncaptured as well
            torch.cuda.set_stream(current)  # a capture that breaks off leaves its own behind
            return None
        grown = torch.cuda.memory_reserved(batch.device) - before
        self._ledger.enter(graph, max(0, grown))
        return graph

    def _capture(self, run: Run, batch: Tensor, places: Places) -> Graph:
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        # libraries take their memory now, and not in the capture
        with torch.cuda.stream(beside), Blind(batch.device):
            run(batch, places)
        torch.cuda.current_stream().wait_stream(beside)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # other threads copy images to the device meanwhile
        with torch.cuda.graph(
            graph, pool=self._pool, stream=beside, capture_error_mode="thread_local"
        ):
            given = run(batch, places)
        return Graph(graph, batch, given)


class LooksError(Exception):
    """A pass looks at its own numbers."""


class Blind(TorchDispatchMode):
    """Raises `LooksError` where a pass could not be captured, for it needs numbers on the host.

    Told before, because a capture that breaks off leaves traces in torch's allocator.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device = device

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags):
            raise LooksError
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, Tensor) and each.device != self._device:
                raise LooksError
        return result


def padded(rows: int) -> int:
    """Return how many rows a pass of `rows` is filled up to, so that few graphs do for all.

    Powers of two and the middles between them: less than a half is added.
    """
    if rows > LARGEST:
        return rows
    size = 1 << (rows - 1).bit_length()
    middle = size * 3 // 4
    return middle if rows <= middle else size
