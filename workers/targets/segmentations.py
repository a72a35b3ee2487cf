"""Targets of a segmentation: a class's logits over a region frozen on the unchanged image."""

import hashlib
from dataclasses import replace

import numpy as np

from service.domain.explanation import Prediction
from service.domain.grid import Grid
from service.domain.outputs import ClassSpec
from service.domain.resolved import FrozenRegion, ResolvedTarget
from service.domain.target import (
    Box,
    Point,
    PredictedMask,
    Region,
    Segment,
    SegmentationTarget,
)
from service.domain.value import Sha256
from service.errors.requests import InvalidTarget
from workers.cells import Mask, placed
from workers.targets.base import Answer, Chosen, found, key_of, threshold_logit
from workers.targets.scalars import RegionLogits

QUANTITIES = {
    "mean": "mean logit of the region",
    "sum": "sum of the region's logits",
    "margin": "mean margin of the region's logits",
}


def predictions_of(answer: Answer) -> tuple[Prediction, ...]:
    """Return how much of the image each class was seen in.

    Raises
    ------
    InvalidTarget
        If the outputs are no logits of all classes at each pixel of the input.
    """
    classes = answer.manifest.classes
    if answer.outputs.shape != (len(classes), *answer.grid.shape):
        raise InvalidTarget("The model's outputs do not match the classes of its manifest.")
    masks = [_predicted(answer, index) for index in range(len(classes))]
    return tuple(
        Prediction(
            key=spec.key,
            label=spec.label,
            index=index,
            logit=float(answer.outputs[index].max()),
            probability=None,
            threshold=spec.threshold,
            above_threshold=None if spec.not_for_use else bool(mask.any()),
            cells=int(mask.sum()),
            share=float(mask.mean()),
        )
        for index, (spec, mask) in enumerate(zip(classes, masks, strict=True))
    )


def resolve(target: SegmentationTarget, answer: Answer) -> Chosen | None:
    """Make a region definite; `None` where the model sees the class nowhere.

    Raises
    ------
    InvalidTarget
        There is no such class, or it is not for use.
    """
    index, spec = found(target.of, answer.manifest.classes)
    mask = _mask(target.region, answer, index)
    target, segmentation = _by_number(target, answer)
    if not mask.any():  # of the others none is empty: they were looked at before the model was
        return None
    digest = hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()
    scalar = RegionLogits(
        index, mask, digest, mean=target.reduce != "sum", against=_against(target, answer, spec)
    )
    return Chosen(
        ResolvedTarget(
            kind="segmentation",
            key=_key(target, spec.key),
            label=spec.label,
            index=index,
            of=spec.key,
            asked_as=str(target.of),
            score=_score(scalar, answer),
            quantity=QUANTITIES[target.reduce],
            probability=None,
            threshold=spec.threshold,
            above_threshold=None,
            region=FrozenRegion(
                kind=target.region.kind,
                cells=int(mask.sum()),
                digest=digest,
                box=_bounds(mask, answer.grid),
                segmentation=segmentation,
            ),
            again=target.model_copy(update={"of": spec.key}),
        ),
        scalar,
    )


def _by_number(
    target: SegmentationTarget, answer: Answer
) -> tuple[SegmentationTarget, Sha256 | None]:
    """Return the target with the number of its segment, whose label may be anything, and of what.

    The latter is the digest of the segmentation that it is a segment of.
    """
    region = target.region
    if not isinstance(region, Segment):
        return target, None
    given = answer.given[region]
    known = region.model_copy(update={"segment": given.number})
    return target.model_copy(update={"region": known}), given.segmentation


def _score(scalar: RegionLogits, answer: Answer) -> float:
    """Return the score of the answer, in double; all is read of the region's box alone."""
    axes = range(scalar.mask.ndim)
    held = [
        np.flatnonzero(scalar.mask.any(axis=tuple(each for each in axes if each != axis)))
        for axis in axes
    ]
    box = tuple(slice(int(at[0]), int(at[-1]) + 1) for at in held)
    inside = replace(scalar, mask=scalar.mask[box])
    return inside(answer.outputs[:, *box].double()[None]).item()


def _predicted(answer: Answer, index: int) -> Mask:
    """Return where the model sees a class, bool, shape ``spatial``."""
    if answer.manifest.outputs[0].decoding == "voxel_classes":
        seen = answer.outputs.argmax(0) == index
    else:
        seen = answer.outputs[index] >= threshold_logit(answer.manifest.classes[index])
    return np.asarray(seen.numpy(), np.bool_)


def _against(target: SegmentationTarget, answer: Answer, spec: ClassSpec) -> float | str | None:
    """Return what margins are over: the other classes, or the class's own threshold."""
    if target.reduce != "margin":
        return None
    return (
        "others"
        if answer.manifest.outputs[0].decoding == "voxel_classes"
        else threshold_logit(spec)
    )


def _mask(region: Region, answer: Answer, index: int) -> Mask:
    """Return a region on the model's input."""
    match region:
        case PredictedMask():
            return _predicted(answer, index)
        case Segment():
            return answer.given[region].mask
        case Box() | Point():
            return placed(region, answer.grid)


def _bounds(mask: Mask, grid: Grid) -> tuple[float, ...]:
    """Return the box of a mask's pixels in the source, to a tenth of a pixel."""
    ends = []
    for number, plane in enumerate(mask):  # one by one: a class may be most of a volume
        if plane.any():
            cells = np.insert(np.argwhere(plane), 0, number, axis=1)
            places = grid.to_source(cells) + 0.5
            ends += [places.min(0), places.max(0)]
    half = np.abs(grid.affine[:-1, :-1]).sum(1) / 2
    bounds = np.concatenate([np.min(ends, 0) - half, np.max(ends, 0) + half])
    return tuple(round(float(each), 1) for each in bounds)


def _key(target: SegmentationTarget, key: str) -> str:
    """Return the class's key, and what else the target says beyond its defaults."""
    parts = [key]
    match target.region:
        case Box(kind=kind, box=numbers) | Point(kind=kind, at=numbers):
            parts += [kind, *(f"{each:.10g}" for each in numbers)]
        case Segment(kind=kind, instance=instance, segment=segment):
            parts += [kind, str(instance), str(segment)]
        case PredictedMask():
            pass
    if target.reduce != "mean":
        parts.append(target.reduce)
    return key_of(*parts)
