"""Bags: what each instance adds to the score, and what attention says of it.

An instance's relevance is the fall of the score when it is left out of the bag. The weight
that the network's attention gives it is shown beside that, and is no attribution: it tells how
much of an instance goes in, not what it says.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from service.domain.explanation import InstanceShare
from service.domain.grid import Grid
from service.domain.inputs import Bag
from service.domain.manifest import Manifest
from service.errors.models import ModelError
from workers.parcels import Prepared
from workers.passes import Forward, Plan, Tap, Targets
from workers.rows import Clean, LeftOut
from workers.runtimes.base import Probe


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
        InstanceShare(**named, relevance=fall, attention=attention)
        for named, (fall, attention) in zip(_named(prepared), said, strict=True)
    ]
    return tuple(sorted(shares, key=lambda each: -each.relevance))


def _named(prepared: Prepared) -> list[dict[str, Any]]:
    """Return what each instance is called, in the order of the model's input."""
    if prepared.views:
        return [{"instance": each.decoded.fetched.instance.id} for each in prepared.views]
    volume, fetched = prepared.decoded.volume, prepared.decoded.fetched
    assert volume is not None  # noqa: S101 - a bag's slices form a volume
    ids = {each.sop_instance_uid: each.id for each in fetched.instances}
    slices = [(number, volume.slices[number]) for number in slices_of(prepared.grid)]
    return [
        {"slice": number + 1, "instance": ids[each.sop_instance_uid], "frame": each.frame}
        for number, each in slices
    ]


def slices_of(grid: Grid) -> Sequence[int]:
    """Return the source's slice of each instance, counted from 0."""
    count, step, first = grid.shape[0], grid.affine[0, 0], grid.affine[0, -1]
    return [int(each) for each in np.rint(first + step * np.arange(count))]


def bagged(manifest: Manifest, probe: Probe) -> Probe:
    """Return what was probed without the layer of attention, which has no map."""
    bag = manifest.image.bag
    if bag is None or bag.attention is None:
        return probe
    layers = tuple(each for each in probe.layers if each.name != bag.attention.name)
    return replace(probe, layers=layers)
