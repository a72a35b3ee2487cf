"""How far a change spreads in one layer, along each axis."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from workers.runtimes.incremental.windows import Place

Span = tuple[int, int]
"""First cell and the cell after the last."""

NOTHING: Final[Span] = (0, 0)
"""No cell."""


def hull(spans: Iterable[Span]) -> Span:
    """Return the shortest span that holds all of `spans`."""
    there = [span for span in spans if span[0] < span[1]]
    if not there:
        return NOTHING
    return min(low for low, _ in there), max(high for _, high in there)


@dataclass(frozen=True, slots=True)
class Reach:
    """Which cells of its input a cell of a layer's output sees."""

    kernel: Place
    stride: Place
    padding: Place
    """Cells before the first."""

    dilation: Place

    def reached(self, axis: int, span: Span, cells: int) -> Span:
        """Return the outputs, of `cells` along an axis, that see any cell of `span`.

        Nothing if there is none: a stride or the last window may leave cells out.
        """
        if span[0] >= span[1]:
            return NOTHING
        step, before = self.stride[axis], self.padding[axis]
        extent = self._extent(axis, 1)
        low = -((extent - 1 - before - span[0]) // step)  # the quotient, rounded up
        high = (span[1] - 1 + before) // step + 1
        low, high = max(0, low), min(cells, high)
        return (low, high) if low < high else NOTHING

    def needed(self, start: Place, sizes: Place) -> tuple[Place, Place]:
        """Return first cell and size of the inputs that a window of outputs sees."""
        axes = range(len(start))
        first = tuple(start[k] * self.stride[k] - self.padding[k] for k in axes)
        return first, tuple(self._extent(k, sizes[k]) for k in axes)

    def _extent(self, axis: int, outputs: int) -> int:
        """Return how many inputs some neighboring outputs see."""
        within = self.dilation[axis] * (self.kernel[axis] - 1)
        return (outputs - 1) * self.stride[axis] + within + 1
