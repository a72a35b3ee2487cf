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


def placed(parts: Sequence[Part], made: Sequence[Maps], tiling: Tiling) -> Maps:
    """Return maps of parts of an image, put where they belong; 0 elsewhere."""
    places, like = range(sum(len(part.asked) for part in parts)), made[0].values
    total = like.new_zeros(len(places), like.shape[1], *tiling.extent)
    extras: dict[int, Mapping[str, float]] = {}
    shares: dict[int, Tensor] = {}
    for part, maps in zip(parts, made, strict=True):
        for k, each in zip(part.asked, _over(maps, part.tiling.shape), strict=True):
            total[k][:, *part.box] = each
        extras.update(zip(part.asked, maps.extras, strict=False))
        if maps.shares is not None:
            shares.update(zip(part.asked, maps.shares, strict=True))
    return Maps(
        total[:, :, *tiling.inner],
        cells(tiling.shape, tiling.shape),
        tuple(extras[k] for k in places) if extras else (),
        torch.stack([shares[k] for k in places]) if shares else None,
        partial=any(maps.partial for maps in made),
    )


def _over(made: Maps, shape: Sequence[int]) -> Tensor:
    """Return maps on every pixel of an image; their cells begin at its corner, and cover it."""
    edges, grid = np.diag(made.affine)[:-1], made.values.shape[2:]
    reach = [max(n, round(k * edge)) for n, k, edge in zip(shape, grid, edges, strict=True)]
    return enlarged(made.values, reach)[:, :, *map(slice, shape)]
