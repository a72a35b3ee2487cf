"""Rows that differ from an image in a box, served incrementally where that is cheaper: exact."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from workers.device import memory_budget, synchronize
from workers.rows import INPUT, Box, Boxed, Patched
from workers.runtimes.base import Segment
from workers.runtimes.incremental.network import Layout, Network
from workers.runtimes.incremental.reach import Span
from workers.runtimes.incremental.trace import UntraceableError
from workers.runtimes.incremental.windows import Place, copy, empty

WORTH: Final = 0.75
"""Share of a network's multiplications under which windows are cheaper than whole rows."""

EQUAL: Final = 100
"""Roundings of the largest output by which both ways may differ."""

PLACES: Final = 4
"""Images whose clean values are held at once; rows of others are computed whole."""

MEMORY: Final = 0.5
"""Share of a batch's memory that the clean values of one image may take."""

TRIES: Final = 3
"""Runs of which the quickest counts; one is enough of those that take over `LONG` seconds."""

LONG: Final = 0.5

Layouts = list[Layout | None]


class Incremental:
    """Outputs of rows with a box each, computed where they differ from the clean image.

    Each image's clean values are computed once and live as long as its tensor.

    Parameters
    ----------
    model
        In evaluation mode. Convolutions whose weights do not lie channels last are copied.
    image
        Noise to try it on, shape ``(C, *spatial)``, of the model's type.

    Raises
    ------
    UntraceableError
        If the model cannot be followed, or not with the same outputs, or if
        nothing is gained.
    """

    def __init__(self, model: nn.Module, image: Tensor) -> None:
        self._model = model
        self._type = image.dtype
        self._held: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        with torch.no_grad():
            self._network = Network(model, image[None])
            self._require_gain(Patched(image, _samples(image.shape[1:]), 2.0))

    @classmethod
    def of(cls, model: nn.Module, image: Tensor) -> Self | None:
        """Return the ability; `None` for a model that lacks it, which is then served whole."""
        try:
            return cls(model, image)
        except Exception:  # noqa: BLE001 - a model is foreign code, and whole rows are right anyway
            return None

    def outputs(self, segments: Sequence[Segment]) -> Tensor:
        """Return the outputs of the segments' rows, shape ``(rows, ...)``; all are `Boxed`."""
        with torch.no_grad():
            return torch.cat(
                [
                    self._outputs(segment.work.rows, segment.start, segment.stop)
                    for segment in segments
                    if isinstance(segment.work.rows, Boxed)
                ]
            )

    def _outputs(self, rows: Boxed, start: int, stop: int) -> Tensor:
        boxes = _spans(rows, start, stop)
        layouts = self._layouts(boxes)
        clean = None if layouts is None else self._clean(rows.image)
        if layouts is None or clean is None:
            return self._whole(rows, start, stop)
        return self._windowed(clean, rows, start, boxes, layouts)

    def _layouts(self, boxes: Sequence[tuple[Span, ...]]) -> Layouts | None:
        """Return where rows differ in each step; `None` if whole rows are cheaper."""
        if not boxes:
            return None
        layouts = self._network.layouts(boxes)
        return layouts if layouts[0] and self._network.share(layouts) < WORTH else None

    def _clean(self, image: Tensor) -> list[Any] | None:
        """Return an image's clean values, if they are held or there is room for them."""
        clean: list[Any] | None = self._held.get(image)
        if clean is None and len(self._held) < PLACES:
            clean = self._network.clean(image.to(self._type))
            needed = sum(each.nbytes for each in clean if isinstance(each, Tensor))
            if needed > MEMORY * memory_budget(image.device):
                return None
            self._held[image] = clean
        return clean

    def _windowed(
        self,
        clean: Sequence[Any],
        rows: Boxed,
        first: int,
        boxes: Sequence[tuple[Span, ...]],
        layouts: Layouts,
    ) -> Tensor:
        """Return the outputs of as many rows from the first on as there are boxes."""
        assert layouts[0] is not None  # noqa: S101 - see `_layouts`
        sizes, starts = layouts[0]
        image: Tensor = clean[0]
        windows = empty(image.expand(len(boxes), *image.shape[1:]), sizes)
        for k, (window, start, box) in enumerate(zip(windows, starts, boxes, strict=True)):
            copy(image[0], (0,) * len(sizes), window, start)
            inside = (
                slice(low - at, high - at) for (low, high), at in zip(box, start, strict=True)
            )
            rows.paint(window[(..., *inside)], first + k)
        outputs: Tensor = self._network.outputs(clean, windows, layouts)
        return outputs

    def _whole(self, rows: Boxed, start: int, stop: int) -> Tensor:
        """Return the outputs of rows as the model itself computes them."""
        batch = rows.image.new_empty((stop - start, *rows.image.shape), dtype=self._type)
        rows.fill({INPUT: batch}, start, stop)
        outputs: Tensor = self._model(batch)
        return outputs

    def _require_gain(self, rows: Boxed) -> None:
        """Raise `UntraceableError` unless both ways agree on `rows` and windows are quicker."""
        boxes = _spans(rows, 0, rows.count)
        layouts, clean = self._layouts(boxes), self._network.clean(rows.image)
        if layouts is None:
            raise UntraceableError
        found = self._windowed(clean, rows, 0, boxes, layouts)
        expected = self._whole(rows, 0, rows.count)
        largest = EQUAL * torch.finfo(self._type).eps * expected.abs().max()
        if found.shape != expected.shape or not bool(((found - expected).abs() <= largest).all()):
            raise UntraceableError
        device = rows.image.device
        whole = _seconds(lambda: self._whole(rows, 0, rows.count), device)
        if _seconds(lambda: self._windowed(clean, rows, 0, boxes, layouts), device) >= whole:
            raise UntraceableError


def _spans(rows: Boxed, start: int, stop: int) -> list[tuple[Span, ...]]:
    """Return the boxes of some rows by first and last cells; none if one is no plain box."""
    grid = tuple(rows.image.shape[1:])
    boxes = rows.boxes[start:stop]
    return [_span(box, grid) for box in boxes] if all(_plain(box, grid) for box in boxes) else []


def _plain(box: Box, grid: Place) -> bool:
    return len(box) == len(grid) and all(each.step in (None, 1) for each in box)


def _span(box: Box, grid: Place) -> tuple[Span, ...]:
    pairs = [each.indices(cells)[:2] for each, cells in zip(box, grid, strict=True)]
    return tuple((low, max(low, high)) for low, high in pairs)


def _samples(grid: Place) -> tuple[Box, ...]:
    """Return boxes of an eighth of each edge: at both ends of the grid and between."""
    edges = [max(1, cells // 8) for cells in grid]
    return tuple(
        tuple(
            slice(int(share * (cells - edge)), int(share * (cells - edge)) + edge)
            for cells, edge in zip(grid, edges, strict=True)
        )
        for share in (0.0, 0.4, 1.0)
    )


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """Return the least seconds of a run, on a CPU those of this thread: others may be busy."""
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    spent = []
    for _ in range(TRIES):
        began = clock()
        run()
        synchronize(device)
        spent.append(clock() - began)
        if spent[-1] > LONG:
            break
    return min(spent)
