"""Which numbers can be explained of a model, and what they are to its network."""

from collections.abc import Iterator, Sequence
from typing import Final

from service.domain.boxes import EDGES, BoxDecoding
from service.domain.outputs import ClassSpec, Output
from service.domain.target import (
    REST,
    ClassTarget,
    ContrastTarget,
    DetectionTarget,
    EmbeddingTarget,
    InstanceTarget,
    Target,
    TimeToEventTarget,
    ViewTarget,
)
from service.domain.value import Name, Value

DIFFERENCE: Final = "difference"
"""A contrast's score, unless it is with the rest."""

RISK, BY_A_TIME = "risk", "horizon"
"""Scores of an event: the log hazard, or the log odds of the event by a time."""

SIMILARITY: Final = "similarity_to"


class ScoreEntry(Value):
    """A number that can be explained of a model."""

    kind: Name
    """Of target that it is asked for by; targets of kinds `view` and `instance` have those of
    ``class``."""

    score: Name
    """What the target says in `score`; of a contrast ``difference``, or ``rest`` as `versus`; of an
    event ``risk``, or ``horizon`` of any time; of an encoder ``similarity_to``."""

    linear: bool
    """Whether it is a weighted sum of what the network puts out."""

    smooth: bool = True
    """Whether it has a derivative on the unchanged image."""


def scores_of(task: str, output: Output) -> tuple[ScoreEntry, ...]:
    """Return what can be asked for of the kinds that leave a choice."""
    if output.boxes is not None:
        return tuple(_of_boxes(output.boxes))
    if task == "classification-multilabel":
        return tuple(_of_classes(exclusive=False))
    if task == "classification-multiclass":
        return tuple(_of_classes(exclusive=True, rivals=len(usable(output.classes)) > 1))
    if task == "survival":
        return (_of_event(output),)
    if task == "embedding":
        return (ScoreEntry(kind="embedding", score=SIMILARITY, linear=False),)
    return ()


def asked_of(target: Target) -> tuple[str, str] | None:
    """Return kind and score that a target asks for; `None` of kinds that leave no choice."""
    match target:
        case ClassTarget() | ViewTarget() | InstanceTarget():
            return "class", target.score or "logit"
        case ContrastTarget():
            return target.kind, REST if target.versus == REST else DIFFERENCE
        case DetectionTarget():
            return target.kind, target.score
        case EmbeddingTarget():
            return target.kind, SIMILARITY if target.of is None else target.of
        case TimeToEventTarget():
            return target.kind, RISK if target.horizon is None else BY_A_TIME
        case _:
            return None


def usable(classes: Sequence[ClassSpec]) -> list[int]:
    """Return the indices of classes that may be asked for."""
    return [index for index, each in enumerate(classes) if each.not_for_use is None]


def _of_classes(*, exclusive: bool, rivals: bool = True) -> Iterator[ScoreEntry]:
    yield ScoreEntry(kind="class", score="logit", linear=True)
    yield ScoreEntry(kind="class", score="probability", linear=False)
    if rivals:
        yield ScoreEntry(kind="class", score="margin", linear=True)
    yield ScoreEntry(kind="contrast", score=DIFFERENCE, linear=True)
    if exclusive:
        yield ScoreEntry(kind="contrast", score=REST, linear=False)


def _of_event(output: Output) -> ScoreEntry:
    """Return what is asked of an event: of intervals, more than one decide."""
    if output.decoding == "log_hazard":
        return ScoreEntry(kind="time_to_event", score=RISK, linear=True)
    intervals = 0 if output.event is None else len(output.event.horizons)
    alone = output.decoding == "hazards" and intervals == 1
    return ScoreEntry(kind="time_to_event", score=BY_A_TIME, linear=alone)


def _of_boxes(boxes: BoxDecoding) -> Iterator[ScoreEntry]:
    objectness = "objectness" in boxes.channels
    logits = boxes.scores == "sigmoid"
    yield ScoreEntry(kind="detection", score="class", linear=logits and not objectness)
    if objectness:
        yield ScoreEntry(kind="detection", score="objectness", linear=logits)
    # the overlap with the box itself is at its greatest, whichever way an edge moves
    yield ScoreEntry(kind="detection", score="iou_weighted", linear=False, smooth=False)
    for edge in EDGES[2 * boxes.rank]:
        yield ScoreEntry(kind="detection", score=edge, linear=False)
