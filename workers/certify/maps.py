"""Maps of known cases: made through the scheduler, brought to one grid, ranked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.domain.grid import Grid
from service.errors.base import WhylightError
from service.errors.models import DoesNotFit, ModelUnavailable
from workers.certify.cases import Case
from workers.certify.similarity import Array, ranked
from workers.certify.turns import Turns
from workers.measures.bearing import brought
from workers.methods.base import Maps, Method
from workers.passes import Plan
from workers.running import Planned
from workers.runtimes.base import Runtime
from workers.targets.scalars import ClassLogit

SIDE: Final = 32
"""Cells along each axis of the grid on which maps are compared."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """One raw map of one case."""

    values: NDArray[np.float32]
    """Shape ``(C, *cells)``."""

    grid: Grid
    """Its cells in the model's input."""

    extent: tuple[int, ...]
    """Spatial shape of the model's input."""

    @property
    def ranks(self) -> Array | None:
        """Its ranks on the common grid, all zero if it is constant; `None` if not finite."""
        if not np.isfinite(self.values).all():
            return None
        return ranked(brought(self.values, self.grid, self.extent, SIDE))


def draw(
    turns: Turns,
    runtime: Runtime,
    method: Method,
    cases: Sequence[Case],
    classes: Callable[[Case], tuple[int, ...]],
) -> list[dict[int, Drawn]]:
    """Return each case's maps by class; none where the method failed.

    Raises
    ------
    Unwanted
        The worker drains, or the model is gone.
    DoesNotFit, ModelUnavailable
        This device or moment is at fault, and not the method.
    """
    plans = [_planned(runtime, method, case, classes(case)) for case in cases]
    outcomes = turns.serve(runtime, plans)
    for each in outcomes:
        if isinstance(each, DoesNotFit | ModelUnavailable):
            raise each
    return [{} if isinstance(each, WhylightError) else each for each in outcomes]


def _planned(
    runtime: Runtime, method: Method, case: Case, classes: tuple[int, ...]
) -> Planned[dict[int, Drawn]]:
    image = case.image.to(runtime.device, runtime.dtype)
    targets = tuple(ClassLogit(each) for each in classes)

    def plan() -> Plan[dict[int, Drawn]]:
        maps = yield from method.plan(image, targets)
        return dict(zip(classes, _drawn(maps, tuple(image.shape[1:])), strict=True))

    return Planned(plan(), method.estimate(image.shape, len(targets)).rows)


def _drawn(maps: Maps, extent: tuple[int, ...]) -> list[Drawn]:
    values = maps.values.detach().cpu().numpy().astype(np.float32)
    grid = Grid(values.shape[2:], maps.affine)
    return [Drawn(each, grid, extent) for each in values]
