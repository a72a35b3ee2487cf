"""Views: several images that a model sees at once, and the maps of each of them.

They are the views that a model tells apart, or the single images that are the instances of a bag.
A model's input is ``(C, views, rows, columns)``. Methods that take derivatives with respect to it
see all views at once; their maps are cut into views and add up as one map's would. All others
hide, mask or weigh places of an image: they are run on each view by itself, with the others
beside it as they are, because a place of one view has nothing to do with that place of another.
"""

from collections.abc import Hashable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.domain.grid import Grid
from service.domain.manifest import Manifest
from service.domain.view import ViewShare
from service.errors.models import UnservablePass
from workers.abreast import abreast
from workers.drawing.overlay import own_full
from workers.methods.base import Maps, Method
from workers.parcels import Prepared
from workers.passes import Ability, Cost, Exclusive, Pass, Plan, Step, Targets, TimeUp
from workers.rows import INPUT, VALUES, Ablated, Beside, Clean, Rows
from workers.runtimes.base import Probe
from workers.tabular import Tabular

R = TypeVar("R")

OF_INPUT: Final = frozenset(
    {
        Ability.INPUT_GRADIENT,
        Ability.RECTIFIER_RULES,
        Ability.RESCALE_RULE,
        Ability.PATH_GRADIENT,
    }
)
"""Needs of methods whose maps are derivatives with respect to the input."""

AXES: Final = 3
"""Views, rows and columns."""

MIXED: Final = (
    "Its output does not keep the views apart: it needs one grid for each view, in the shape"
    " (channels, views, rows, columns)."
)


def together(method: type[Method] | Method) -> bool:
    """Tell whether a method explains all views at once; else each beside the others as they are."""
    return bool(method.needs & OF_INPUT) and Ability.LAYER_GRADIENT not in method.needs


def cost_of(method: Method, shape: Sequence[int], targets: int, *, several: bool) -> Cost:
    """Return the rows that a method takes for one image or volume, or for several views.

    Parameters
    ----------
    shape
        Of the model's input, ``(C, *spatial)``; of several views ``(C, views, rows, columns)``.
    """
    if not several or together(method):
        return method.estimate(shape, targets)
    views, one = shape[1], method.estimate((shape[0], *shape[2:]), targets)
    return Cost(views * one.forward_rows, views * one.gradient_rows, one.exact)


def kept_apart(manifest: Manifest, probe: Probe, count: int) -> Probe:
    """Return what was probed with `count` views, without layers that have no grid for each."""
    if not manifest.image.several:
        return probe
    layers = tuple(
        each for each in probe.layers if len(each.stride) == AXES and each.shape[1] == count
    )
    refused = {each.name: MIXED for each in probe.layers if each not in layers}
    lost = frozenset() if layers else frozenset({Ability.ACTIVATIONS, Ability.LAYER_GRADIENT})
    return replace(
        probe,
        layers=layers,
        refused={**probe.refused, **refused},
        abilities=probe.abilities - lost,
    )


# ------------------------------------------------------------------------- plans


@dataclass(frozen=True, slots=True, eq=False)
class InView:
    """Rows of one view, each beside the other views as they are."""

    rows: Rows
    """Of images ``(C, rows, columns)``."""

    whole: Tensor
    """All views, shape ``(C, views, rows, columns)``."""

    view: int

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.rows.count

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of one row, for each input of the model."""
        return {**self.rows.shapes, INPUT: tuple(self.whole.shape)}

    @property
    def token(self) -> Hashable | None:
        """Equal for equal rows of one view."""
        token = self.rows.token
        return None if token is None else (InView, token, self.view)

    def fill(self, out: Mapping[str, Tensor], start: int, stop: int) -> None:
        """Write the views, and rows ``start`` to ``stop`` in place of one of them."""
        out[INPUT][:] = self.whole
        self.rows.fill({**out, INPUT: out[INPUT][:, :, self.view]}, start, stop)


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """One view among all."""

    whole: Tensor
    """All views, shape ``(C, views, rows, columns)``."""

    view: int
    own: Tensor
    """The view as plans have it, shape ``(C, rows, columns)``."""

    @classmethod
    def each(cls, whole: Tensor) -> "tuple[Place, ...]":
        """Return every view."""
        return tuple(cls(whole, k, whole[:, k].contiguous()) for k in range(whole.shape[1]))

    def rows(self, rows: Rows) -> Rows:
        """Return rows of the view as rows of all views, the others as they are.

        The unchanged view is all views unchanged: the plans of all of them share such a pass.
        """
        if isinstance(rows, Beside):
            return Beside(self.rows(rows.rows), rows.values)
        if isinstance(rows, Clean) and rows.image is self.own:
            return Clean(self.whole, rows.count)
        if isinstance(rows, Ablated):
            return Ablated(self.whole, rows.place, rows.channels, self.view)
        return InView(rows, self.whole, self.view)


def seen(plan: Plan[R], place: Place) -> Plan[R]:
    """Return a plan over one view's images as one over all views, the others as they are."""
    with closing(plan):
        try:
            asked = next(plan)
            while True:
                several = asked if isinstance(asked, tuple) else (asked,)
                passes = tuple(_asked(each, place) for each in several)
                try:
                    answer = yield passes
                except TimeUp as late:
                    asked = plan.throw(late)
                    continue
                steps = tuple(_of_view(each, place.view) for each in answer)
                asked = plan.send(steps if isinstance(asked, tuple) else steps[0])
        except StopIteration as stop:
            result: R = stop.value
            return result


def _asked(ask: Pass, place: Place) -> Pass:
    """Return a pass over one view as one over all of them."""
    if isinstance(ask, Exclusive):
        raise UnservablePass("A model of several views is not lent for one of them.")
    rows, fold = place.rows(ask.rows), ask.fold
    if fold is None:
        return replace(ask, rows=rows)
    return replace(ask, rows=rows, fold=lambda start, step: fold(start, _of_view(step, place.view)))


def _of_view(step: Step, view: int) -> Step:
    """Return what a step says of one view: of maps of layers and of gradients, its part."""
    return replace(
        step,
        taps={tap: each.select(2, view) for tap, each in step.taps.items()},
        activations={place: each.select(2, view) for place, each in step.activations.items()},
        gradients={
            place: each if place == VALUES else each.select(3, view)
            for place, each in step.gradients.items()
        },
    )


def maps(
    method: Method, whole: Tensor, targets: Targets, tabular: Tabular | None = None
) -> Plan[Maps]:
    """Attribute all views, and the values beside them; maps ``(K, C, views, *grid)``.

    What a value adds is told of each view by itself where the views are explained one beside the
    other: it is what it adds beside that view's places, the other views as they are.

    Parameters
    ----------
    whole
        Shape ``(C, views, rows, columns)``.
    """
    if together(method):
        return (yield from method.joint(whole, targets, tabular))
    each = yield from abreast(
        [seen(method.joint(one.own, targets, tabular), one) for one in Place.each(whole)]
    )
    affine = np.eye(4)
    affine[1:, 1:] = each[0].affine
    return Maps(
        torch.stack([made.values for made in each], dim=2),
        affine,
        of_views=each,
        partial=any(made.partial for made in each),
    )


# -------------------------------------------------------------------------- maps


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """One target's map in one image."""

    values: NDArray[np.float32]
    """Shape ``(C, *grid)``."""

    cells: Grid
    """In the image as prepared."""

    extras: Mapping[str, float]
    shares: tuple[float, ...] | None
    """What each value beside it adds; `None` where it has no say."""

    elsewhere: float = 0.0
    """Sum of the map in the other views, where all were made together."""


def piece(made: Maps, target: int, view: int | None) -> Piece:
    """Return the map of a target, by its number; of several views, that of one.

    Values are float32 on the CPU.
    """
    if view is not None and made.of_views:
        return piece(made.of_views[view], target, None)
    values = np.asarray(made.values[target].detach().cpu(), np.float32)  # no copy of a volume
    extras = made.extras[target] if made.extras else {}
    shares = None if made.shares is None else tuple(made.shares[target].detach().tolist())
    if view is None:
        return Piece(values, Grid(values.shape[1:], made.affine), extras, shares)
    own = np.ascontiguousarray(values[:, view])
    rest = float(values.sum(dtype=np.float64)) - float(own.sum(dtype=np.float64))
    return Piece(own, Grid(own.shape[1:], made.affine[1:, 1:]), extras, shares, elsewhere=rest)


def share(
    made: Maps, target: int, prepared: Prepared, image: Prepared, *, signed: bool
) -> ViewShare | None:
    """Return what the map of one image is among those of all views; `None` where it has none.

    Values that are not finite count as 0.
    """
    view = image.decoded.fetched.view
    if view is None:
        return None
    relevance = made.values[target].detach().sum(0).float().nan_to_num(0, 0, 0).cpu().numpy()
    masses = np.abs(relevance).sum(axis=(1, 2), dtype=np.float64)
    own, total = masses[prepared.place(view.key)], masses.sum()
    return ViewShare(
        key=view.key,
        label=view.label,
        share=float(own / total) if total > 0 else None,
        together=not made.of_views,
        full=own_full(relevance, signed=signed),
    )
