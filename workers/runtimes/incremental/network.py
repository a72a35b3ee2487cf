"""A traced network at work: once on a clean image, then on windows alone."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from torch import Tensor, nn

from workers.runtimes.folding import layout
from workers.runtimes.incremental.layers import Local
from workers.runtimes.incremental.reach import NOTHING, Span, hull
from workers.runtimes.incremental.trace import Step, trace
from workers.runtimes.incremental.windows import Place, Windowed

MOST: Final = 0.8
"""Share of a grid from which on the whole of it is computed: windows cost copies."""

Layout = tuple[Place, tuple[Place, ...]]
"""Size of all rows' windows, and first cell of each row's."""


class Network:
    """A network that computes of a row only what differs from the clean image.

    Parameters
    ----------
    batch
        One row, shape ``(1, C, *spatial)``, for shapes.

    Raises
    ------
    UntraceableError
        If the model cannot be followed.

    References
    ----------
    Nakandala, Kumar, Papakonstantinou (2019). Incremental and approximate
    inference for faster occlusion-based deep CNN explanations. SIGMOD.
    """

    def __init__(self, model: nn.Module, batch: Tensor) -> None:
        self._steps, self._result = trace(model, batch)
        self._spread = lru_cache(maxsize=4096)(self._spread_from)
        self._last = _last_uses(self._steps, self._result)

    def clean(self, image: Tensor) -> list[Any]:
        """Return every step's value on an image ``(C, *spatial)``, if windows need it."""
        shape = (1, *image.shape)
        values: list[Any] = [image[None].contiguous(memory_format=layout(shape))]
        for number, step in enumerate(self._steps[1:], start=1):
            values.append(step.finish(step.run(*(values[each] for each in step.inputs))))
            for each in self._last[number]:
                if self._steps[each].grid is None:
                    values[each] = None
        return values

    def share(self, layouts: Sequence[Layout | None]) -> float:
        """Return the multiplications on windows, as a share of those on whole grids."""
        done = whole = 0.0
        for step, place in zip(self._steps, layouts, strict=True):
            if step.local is not None and step.grid is not None:
                all_of_it = step.local.work * math.prod(step.grid)
                whole += all_of_it
                done += all_of_it if place is None else step.local.work * math.prod(place[0])
        return done / whole if whole else 1.0

    def layouts(self, boxes: Sequence[tuple[Span, ...]]) -> list[Layout | None]:
        """Return each step's windows where rows differ in `boxes`; `None` for whole grids."""
        axes = range(len(boxes[0]))
        spread = [[self._spread(axis, *box[axis]) for box in boxes] for axis in axes]
        found: list[Layout | None] = []
        for number, step in enumerate(self._steps):
            if step.grid is None or any(found[each] is None for each in step.inputs):
                found.append(None)
                continue
            spans = [[row[number] for row in spread[axis]] for axis in axes]
            sizes = tuple(max(1, *(high - low for low, high in axis)) for axis in spans)
            if math.prod(sizes) > MOST * math.prod(step.grid):
                found.append(None)
                continue
            # windows of one size stay on the grid; what they hold too much is clean
            lows = [
                [min(low, cells - size) for low, _ in axis]
                for axis, size, cells in zip(spans, sizes, step.grid, strict=True)
            ]
            found.append((sizes, tuple(zip(*lows, strict=True))))
        return found

    def outputs(
        self, clean: Sequence[Any], windows: Tensor, layouts: Sequence[Layout | None]
    ) -> Any:
        """Return the network's outputs on rows that differ from the clean image in windows.

        Parameters
        ----------
        windows
            The rows inside their windows, shape ``(rows, C, *sizes)``.
        layouts
            Where they are, there and in each step.
        """
        assert layouts[0] is not None  # noqa: S101 - else there is nothing to gain
        values: dict[int, Any] = {0: Windowed(clean[0][0], windows, layouts[0][1])}
        for number, step in enumerate(self._steps[1:], start=1):
            inputs = [values[each] for each in step.inputs]
            place = layouts[number]
            if place is None:
                values[number] = step.finish(step.run(*(_whole(each) for each in inputs)))
            else:
                inside = step.finish(_inside(step, inputs, *place))
                values[number] = Windowed(clean[number][0], inside, place[1])
            for each in self._last[number]:
                del values[each]
        return _whole(values[self._result])

    def _spread_from(self, axis: int, low: int, high: int) -> tuple[Span, ...]:
        """Return which cells of each step may differ where pixels ``low`` to ``high`` do."""
        spans: list[Span] = [(low, high)]
        for step in self._steps[1:]:
            if step.grid is None:
                spans.append(NOTHING)
            elif step.local is not None:
                (number,) = step.inputs
                spans.append(step.local.reach.reached(axis, spans[number], step.grid[axis]))
            else:
                spans.append(hull(spans[number] for number in step.inputs))
        return tuple(spans)


def _inside(step: Step, inputs: Sequence[Any], sizes: Place, starts: tuple[Place, ...]) -> Tensor:
    """Run a step in windows; the value is nobody else's."""
    given: list[Windowed] = list(inputs)
    if step.local is not None:
        return _patched(step.local, given[0], sizes, starts)
    value: Tensor = step.run(*(each.crop(starts, sizes) for each in given))
    return value


def _patched(local: Local, given: Windowed, sizes: Place, starts: tuple[Place, ...]) -> Tensor:
    """Run a layer on what its windows see."""
    needs = [local.reach.needed(start, sizes) for start in starts]
    patch = given.crop(tuple(first for first, _ in needs), needs[0][1], local.padding)
    return local.on_patch(patch)


def _whole(value: Any) -> Any:
    return value.whole() if isinstance(value, Windowed) else value


def _last_uses(steps: Sequence[Step], result: int) -> list[list[int]]:
    """Return, by step, the steps whose values nobody needs after it."""
    last = {each: number for number, step in enumerate(steps) for each in step.inputs}
    ends: list[list[int]] = [[] for _ in steps]
    for each, number in last.items():
        if each != result:
            ends[number].append(each)
    return ends
