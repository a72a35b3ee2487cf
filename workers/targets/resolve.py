"""Every kind of target, made definite by the model's answer on the unchanged image."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

from service.domain.explanation import Prediction
from service.domain.target import (
    ABOVE_THRESHOLD,
    ClassTarget,
    ContrastTarget,
    DetectionTarget,
    EmbeddingTarget,
    InstanceTarget,
    RegressionTarget,
    SegmentationTarget,
    Target,
    TimeToEventTarget,
    ViewTarget,
)
from service.errors.base import Failure
from service.errors.models import NonFiniteScore
from service.errors.requests import InvalidTarget
from service.errors.studies import NothingToExplain
from workers.targets import (
    classes,
    contrasts,
    detections,
    embeddings,
    regressions,
    segmentations,
    survival,
)
from workers.targets.base import Answer, Chosen, key_of
from workers.targets.views import in_parts

NOTHING_ABOVE: Final = NothingToExplain(
    "No class reaches its threshold on this image; name a class or 'top1' to see one explained."
).failure()

NOTHING_SEEN: Final = NothingToExplain(
    "The model sees a class that was asked for nowhere on this image; name a box or a point to see"
    " its logits explained there."
).failure()

NO_SUCH_BOX: Final = NothingToExplain(
    "The model finds no such box on this image, or not so many; 'predictions' lists those that it"
    " finds. Give a 'box' to see explained what was not found."
).failure()

NO_OVERLAP: Final = NothingToExplain(
    "No proposal of the model overlaps the box as much as its package demands ('match'); give a box"
    " of another place or size, or name one that 'predictions' lists."
).failure()

NO_BOX_THERE: Final = NothingToExplain(
    "No proposal of the model holds the place; give another, or a box, or name one that"
    " 'predictions' lists."
).failure()


@dataclass(frozen=True, slots=True)
class Resolution:
    """What is explained, and why some of what was asked for is not."""

    chosen: tuple[Chosen, ...]
    nothing: tuple[Failure, ...]


def predict(answer: Answer) -> tuple[Prediction, ...]:
    """Return what the model said of every class or value.

    Raises
    ------
    InvalidTarget
        If its outputs are not those of its manifest.
    """
    match answer.manifest.task:
        case "regression" | "reconstruction":
            return regressions.predictions_of(answer)
        case "segmentation":
            return segmentations.predictions_of(answer)
        case "detection":
            return detections.predictions_of(answer)
        case "survival":
            return survival.predictions_of(answer)
        case "embedding":
            return embeddings.predictions_of(answer)
        case _:
            return classes.predictions_of(answer.manifest, answer.outputs.tolist())


def resolve(
    targets: Iterable[Target], answer: Answer, predictions: Sequence[Prediction]
) -> Resolution:
    """Make targets definite; each comes once, as it was first asked for.

    Raises
    ------
    InvalidTarget
        If the model has no such target.
    NonFiniteScore
        A score is no number.
    """
    chosen: dict[str, Chosen] = {}
    nothing: list[Failure] = []
    for target in targets:
        made = _resolved(target, answer, predictions)
        for each in made:
            for seen in in_parts(each, target, answer):
                _keep(chosen, seen)
        reason = _reason(target)
        if not made and reason not in nothing:
            nothing.append(reason)
    return Resolution(tuple(chosen.values()), tuple(nothing))


def _keep(chosen: dict[str, Chosen], seen: Chosen) -> None:
    """Keep a target by its key, once; another of the same key gets a number."""
    if not math.isfinite(seen.target.score):
        raise NonFiniteScore(
            f"The score of '{seen.target.key}' on this image is not a finite number; look at the"
            " numbers of the request and of the model's manifest, and for invalid pixel values."
        )
    key = seen.target.key
    for number in count(2):
        kept = chosen.get(key)
        if kept is None:
            renamed = seen.target.model_copy(update={"key": key})
            chosen[key] = seen if key == seen.target.key else replace(seen, target=renamed)
            return
        if _parts(kept) == _parts(seen):
            return
        key = key_of(seen.target.key, str(number))


def _parts(chosen: Chosen) -> tuple[object, ...]:
    """Return what a target is: its scalar, and the part of the image that is shown."""
    return chosen.scalar, chosen.target.view, chosen.target.slice


def _reason(target: Target) -> Failure:
    """Return why there is nothing to explain of a target, where there is not."""
    if isinstance(target, DetectionTarget):
        if target.box is not None:
            return NO_OVERLAP
        return NO_SUCH_BOX if target.at is None else NO_BOX_THERE
    return NOTHING_ABOVE if target.of == ABOVE_THRESHOLD else NOTHING_SEEN


def _resolved(
    target: Target, answer: Answer, predictions: Sequence[Prediction]
) -> tuple[Chosen, ...]:
    kinds = answer.manifest.target_kinds
    if target.kind not in kinds:
        raise InvalidTarget("The model has no targets of this kind.", kinds=list(kinds))
    if isinstance(target, ViewTarget | InstanceTarget):
        target = _of_the_whole(target, answer)
    made: Chosen | None
    match target:
        case ClassTarget():
            return classes.resolve(target, answer, predictions)
        case ContrastTarget():
            made = contrasts.resolve(target, answer, predictions)
        case RegressionTarget():
            made = regressions.resolve(target, answer)
        case SegmentationTarget():
            made = segmentations.resolve(target, answer)
        case DetectionTarget():
            made = detections.resolve(target, answer)
        case TimeToEventTarget():
            made = survival.resolve(target, answer, predictions)
        case EmbeddingTarget():
            made = embeddings.resolve(target, answer)
    return () if made is None else (made,)


def _of_the_whole(
    target: ViewTarget | InstanceTarget, answer: Answer
) -> ClassTarget | RegressionTarget | TimeToEventTarget | EmbeddingTarget:
    """Return what is explained in a view or an instance: the scalar is that of all."""
    match answer.manifest.task:
        case "regression":
            return RegressionTarget(kind="regression", of=target.of)
        case "survival":
            return survival.named(target.of, answer.manifest)
        case "reconstruction":
            return EmbeddingTarget(kind="embedding", of="reconstruction_error")
        case _:
            return ClassTarget(of=target.of, score=target.score or "logit")
