"""Boxes under windows: what windows say is not blended, and a box is followed in its own windows.

A method is run on the part of the image that a box's windows cover, as if that was the
image: the one window of a proposal, or the windows that see something of the box. It has
no say in anything else, and costs nothing there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from service.errors.models import UnservablePass
from workers.methods.base import Maps, cells
from workers.methods.cam import enlarged
from workers.passes import Forward, Plan, Step, Targets
from workers.rows import Box
from workers.sliding.rows import Source
from workers.targets.expected import demand_fixed
from workers.targets.scalars import OfWindows
from workers.tiling import Tiling


def gathered(source: Source) -> Plan[Tensor]:
    """Return what every window says of a row, shape ``(1, windows, ...)``.

    Raises
    ------
    ModelUnavailable
        How many proposals a window has depends on what is in it.
    """
    count = source.tiling.count
    every: Tensor | None = None

    def fold(start: int, step: Step) -> None:
        nonlocal every
        outputs = step.outputs
        assert outputs is not None  # noqa: S101 - they were asked for
        if every is None:
            every = outputs.new_empty(count, *outputs.shape[1:])
        demand_fixed(outputs.shape[1:], every.shape[1:])
        every[start : start + len(outputs)] = outputs

    yield Forward(source.rows(range(count)), outputs=True, fold=fold)
    assert every is not None  # noqa: S101 - there is a window
    return every[None]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A part of the image that the windows of some boxes cover, as an image of its own."""

    box: Box
    """Where it lies in the padded image."""

    tiling: Tiling
    """Its windows."""

    asked: tuple[int, ...]
    """Which of all targets it is about."""

    targets: tuple[OfWindows, ...]
    """The same, of its own windows."""

    @property
    def alone(self) -> Targets:
        """The targets as what the one window says, of its own outputs.

        Raises
        ------
        UnservablePass
            There are several windows.
        """
        if self.tiling.count > 1:
            raise UnservablePass("What several windows say of a box is told by its scores alone.")
        return tuple(part for each in self.targets for _, part in each.parts)


def parts_of(targets: Targets, tiling: Tiling) -> list[Part]:
    """Return the parts of an image that boxes are seen in, boxes of the same windows together.

    Raises
    ------
    UnservablePass
        A target is not of a box under windows.
    """
    asked: dict[tuple[int, ...], dict[int, OfWindows]] = {}
    for k, each in enumerate(targets):
        if not isinstance(each, OfWindows):
            raise UnservablePass("Windows that are not blended serve boxes alone.")
        asked.setdefault(each.windows, {})[k] = each.renumbered()
    return [
        Part(*tiling.around(windows), tuple(own), tuple(own.values()))
        for windows, own in sorted(asked.items())
    ]


class Placed:
    """Maps of parts of an image, put where they belong; 0 elsewhere."""

    def __init__(self, tiling: Tiling, targets: int) -> None:
        self._tiling = tiling
        self._targets = targets
        self._total: Tensor | None = None
        self._extras: dict[int, Mapping[str, float]] = {}
        self._shares: dict[int, Tensor] = {}
        self.partial = False
        """Whether time was up within the last part."""

    def add(self, part: Part, made: Maps) -> None:
        """Put a part's maps in their place."""
        values = _over(made, part.tiling.shape)
        if self._total is None:
            self._total = values.new_zeros(self._targets, values.shape[1], *self._tiling.extent)
        for k, each in zip(part.asked, values, strict=True):
            self._total[k][:, *part.box] = each
        self._extras.update(zip(part.asked, made.extras, strict=False))
        shares = () if made.shares is None else made.shares
        self._shares.update(zip(part.asked, shares, strict=False))
        self.partial = made.partial

    def maps(self) -> Maps:
        """Return all of them on the grid of the image."""
        assert self._total is not None  # noqa: S101 - every box has a window
        places = range(self._targets)
        return Maps(
            self._total[:, :, *self._tiling.inner],
            cells(self._tiling.shape, self._tiling.shape),
            tuple(self._extras[k] for k in places) if self._extras else (),
            torch.stack([self._shares[k] for k in places]) if self._shares else None,
            partial=self.partial,
        )


def _over(made: Maps, shape: Sequence[int]) -> Tensor:
    """Return maps on every pixel of an image; their cells begin at its corner, and cover it."""
    edges, grid = np.diag(made.affine)[:-1], made.values.shape[2:]
    reach = [max(n, round(k * edge)) for n, k, edge in zip(shape, grid, edges, strict=True)]
    return enlarged(made.values, reach)[:, :, *map(slice, shape)]
