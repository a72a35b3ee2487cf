"""Maps of known cases: made through the scheduler, brought to one grid, ranked.

A case of several views has a map in each. They are compared as one, because together they
say what the score is made of.
"""

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
from workers.views import cost_of, maps, piece

SIDE: Final = 32
"""Cells along each axis of the grid on which maps are compared."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """One raw map of one image: of a case, or of one of its views."""

    values: NDArray[np.float32]
    """Shape ``(C, *cells)``."""

    grid: Grid
    """Its cells in the model's input."""

    extent: tuple[int, ...]
    """Spatial shape of the image as the model takes it."""


Drawing = tuple[Drawn, ...]
"""The maps of one case and class: of each view, or of the image alone."""

MapsByClass = list[dict[int, Drawing]]
"""Of each case."""


def ranks_of(drawing: Drawing) -> Array | None:
    """Return the ranks on the common grid, all zero if they are constant; `None` if not finite."""
    if not all(np.isfinite(each.values).all() for each in drawing):
        return None
    return ranked(np.stack([brought(d.values, d.grid, d.extent, SIDE) for d in drawing]))


def draw(
    turns: Turns,
    runtime: Runtime,
    method: Method,
    cases: Sequence[Case],
    classes: Callable[[Case], tuple[int, ...]],
) -> MapsByClass:
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
) -> Planned[dict[int, Drawing]]:
    image = case.image.to(runtime.device, runtime.dtype)
    targets = tuple(ClassLogit(each) for each in classes)

    def plan() -> Plan[dict[int, Drawing]]:
        asked = maps(method, image, targets) if case.several else method.plan(image, targets)
        made = yield from asked
        return {each: _drawing(made, k, case) for k, each in enumerate(classes)}

    return Planned(plan(), cost_of(method, image.shape, len(targets), several=case.several).rows)


def _drawing(made: Maps, target: int, case: Case) -> Drawing:
    views = range(len(case.images)) if case.several else (None,)
    pieces = (piece(made, target, view) for view in views)
    return tuple(Drawn(each.values, each.cells, case.extent) for each in pieces)
