"""Bags: what each instance adds to the score, and what attention says of it.

An instance's relevance is the fall of the score when it is left out of the bag. The weight
that the network's attention gives it is shown beside that, and is no attribution: it tells how
much of an instance goes in, not what it says.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from torch import Tensor

from service.domain.explanation import BagInstance, InstanceShare
from service.domain.grid import Grid
from service.domain.inputs import Bag
from service.domain.manifest import Manifest
from service.domain.view import ViewShare
from service.errors.models import MethodError, ModelError
from workers.drawing.overlay import own_full
from workers.parcels import Prepared
from workers.passes import Ability, Forward, Plan, Tap, Targets
from workers.rows import Clean, LeftOut
from workers.runtimes.base import Probe
from workers.views import Piece

GRIDLESS: Final = "Its output has not the axes of the image, so it can have no map."


@dataclass(frozen=True, slots=True, eq=False)
class Weighed:
    """What is known of a bag's instances, in the order of the model's input."""

    falls: Tensor
    """Of each score without each instance, float64, shape ``(K, instances)``."""

    attention: tuple[float | None, ...]
    """`None` where the package names no attention."""


def weighed(bag: Bag, image: Tensor, targets: Targets) -> Plan[Weighed]:
    """Leave out one instance after the other.

    Parameters
    ----------
    image
        The bag, shape ``(C, instances, rows, columns)``.

    Raises
    ------
    ModelError
        The layer of attention puts out another number of weights.
    """
    taps = () if bag.attention is None else (Tap(bag.attention.name),)
    whole, without = yield (
        Forward(Clean(image), targets, taps=taps),
        Forward(LeftOut(image), targets),
    )
    falls = (whole.scores.double() - without.scores.double()).T.cpu()
    attention: tuple[float | None, ...] = (None,) * image.shape[1]
    if taps:
        weights = whole.taps[taps[0]].flatten()
        if len(weights) != image.shape[1]:
            raise ModelError(
                "The bag's layer of attention must put out one number for each instance.",
                pointer="/inputs/0/bag/attention",
                instances=image.shape[1],
                found=len(weights),
            )
        attention = tuple(map(float, weights.tolist()))
    return Weighed(falls, attention)


def ranked(weighed: Weighed, target: int, prepared: Prepared) -> tuple[InstanceShare, ...]:
    """Return what each instance adds to one score, the most first."""
    said = zip(weighed.falls[target].tolist(), weighed.attention, strict=True)
    shares = [
        InstanceShare(**dict(each), relevance=fall, attention=attention)
        for each, (fall, attention) in zip(named(prepared), said, strict=True)
    ]
    return tuple(sorted(shares, key=lambda each: -each.relevance))


def named(prepared: Prepared) -> tuple[BagInstance, ...]:
    """Return what each instance is called, in the order of the model's input."""
    if prepared.views:
        found = (each.decoded.fetched.instance.id for each in prepared.views)
        return tuple(BagInstance(instance=each) for each in found)
    volume, fetched = prepared.decoded.volume, prepared.decoded.fetched
    assert volume is not None  # noqa: S101 - a bag's slices form a volume
    ids = {each.sop_instance_uid: each.id for each in fetched.instances}
    slices = [(number, volume.slices[number]) for number in slices_of(prepared.grid)]
    return tuple(
        BagInstance(slice=number + 1, instance=ids[each.sop_instance_uid], frame=each.frame)
        for number, each in slices
    )


def slices_of(grid: Grid) -> Sequence[int]:
    """Return the source's slice of each instance, counted from 0."""
    count, step, first = grid.shape[0], grid.affine[0, 0], grid.affine[0, -1]
    return [int(each) for each in np.rint(first + step * np.arange(count))]


def bagged(manifest: Manifest, probe: Probe) -> Probe:
    """Return what was probed without layers that can have no map, such as that of attention.

    Of those of several views `kept_apart` tells more.
    """
    if manifest.image.several:
        return probe
    bag = manifest.image.bag
    attention = None if bag is None or bag.attention is None else bag.attention.name
    layers = tuple(each for each in probe.layers if each.stride)
    others = [each.name for each in probe.layers if not each.stride and each.name != attention]
    refused = {**probe.refused, **dict.fromkeys(others, GRIDLESS)}
    lost = frozenset() if layers else frozenset({Ability.ACTIVATIONS, Ability.LAYER_GRADIENT})
    return replace(probe, layers=layers, refused=refused, abilities=probe.abilities - lost)


def alone(own: Piece, prepared: Prepared, number: int, *, signed: bool) -> tuple[Piece, ViewShare]:
    """Return a target's map of a bag with one slice alone, zero elsewhere, and its share of all.

    Values that are not finite count as 0 in the share.

    Parameters
    ----------
    number
        Of the slice, counted from 1.

    Raises
    ------
    MethodError
        The map does not keep the slices apart.
    """
    place, count = prepared.place(number), prepared.grid.shape[0]
    if place is None or own.values.shape[1] != count:
        raise MethodError("The map does not keep the slices of the bag apart.")
    values = np.zeros_like(own.values)
    values[:, place] = own.values[:, place]
    relevance = np.nan_to_num(own.values.sum(0), nan=0.0, posinf=0.0, neginf=0.0)
    masses = np.abs(relevance).sum((1, 2), dtype=np.float64)
    rest = own.values.sum(dtype=np.float64) - values.sum(dtype=np.float64)
    return replace(own, values=values, elsewhere=float(rest)), ViewShare(
        key=f"slice_{number}",
        label=f"Slice {number} of {count}",
        share=float(masses[place] / masses.sum()) if masses.any() else None,
        together=True,
        full=own_full(relevance, signed=signed),
    )
