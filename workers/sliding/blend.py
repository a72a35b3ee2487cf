"""Sums over windows: the blended logits of a row, and what each window adds to its scores."""

from collections.abc import Sequence

import torch
from torch import Tensor

from workers.passes import Forward, Plan, Step
from workers.rows import Box
from workers.sliding.regions import Region
from workers.sliding.rows import Source
from workers.sliding.seen import Seen, regions_among
from workers.tiling import overlap, within


def blended(source: Source) -> Plan[Tensor]:
    """Return the blended logits of a row, shape ``(1, classes, *shape)``."""
    tiling = source.tiling
    whole = tuple(slice(0, length) for length in tiling.extent)
    total = yield from blend(source, range(tiling.count), whole)
    return total[None][:, :, *tiling.inner]


def blend(source: Source, windows: Sequence[int], box: Box) -> Plan[Tensor]:
    """Return the blended logits on a box, of windows that cover it; shape ``(classes, *box)``."""
    tiling = source.tiling
    total: Tensor | None = None

    def fold(start: int, step: Step) -> None:
        nonlocal total
        assert step.outputs is not None  # noqa: S101 - they were asked for
        for window, logits in zip(windows[start:], step.outputs, strict=False):
            if total is None:
                total = logits.new_zeros(len(logits), *(at.stop - at.start for at in box))
            both = overlap(tiling.boxes[window], box)
            assert both is not None  # noqa: S101 - the windows meet the box
            own = within(both, tiling.boxes[window])
            share = tiling.share(window)[own].to(logits)
            total[:, *within(both, box)] += share * logits[:, *own]

    yield Forward(source.rows(windows), outputs=True, fold=fold)
    assert total is not None  # noqa: S101 - there is a window at every cell
    return total


def parts(source: Source, seen: Sequence[Seen], windows: Sequence[int]) -> Plan[Tensor]:
    """Return what windows say of targets without rivals, float64, shape ``(K, windows)``.

    It is 0 of windows that a target does not depend on.
    """
    added: list[Tensor] = []

    def fold(start: int, step: Step) -> None:
        assert step.outputs is not None  # noqa: S101 - they were asked for
        for window, logits in zip(windows[start:], step.outputs, strict=False):
            one = [
                each.part(window)(logits[None]) if window in each.windows else logits.new_zeros(1)
                for each in seen
            ]
            added.append(torch.cat(one).double())

    yield Forward(source.rows(windows), outputs=True, fold=fold)
    return torch.stack(added, 1)


def _around(source: Source, regions: Sequence[Region]) -> Plan[tuple[Tensor, Box]]:
    """Return the blended logits on the least box around regions, and the box."""
    tiling = source.tiling
    box = tuple(
        slice(min(at.start for at in axis), max(at.stop for at in axis))
        for axis in zip(*(each.box for each in regions), strict=True)
    )
    held = torch.zeros(tiling.extent, dtype=torch.bool)
    held[box] = True
    return (yield from blend(source, tiling.meeting(held), box)), box


def rivals_of(source: Source, seen: Sequence[Seen]) -> Plan[list[Tensor | None]]:
    """Return the highest other class at each cell of each region whose score depends on it."""
    margins = [each for each in regions_among(seen) if each.of_others]
    if not margins:
        return [None] * len(seen)
    logits, box = yield from _around(source, margins)
    return [each.rivals(logits, box) if each.of_others else None for each in regions_among(seen)]


def blended_scores(source: Source, regions: Sequence[Region]) -> Plan[Tensor]:
    """Return scores of a row out of the blended logits, float64, shape ``(K,)``."""
    logits, box = yield from _around(source, regions)
    return torch.stack([each.score(logits, box) for each in regions])
