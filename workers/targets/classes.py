"""Targets of a classifier: which logit is explained, once the model has answered."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import torch
from torch import Tensor

from service.domain.explanation import Prediction
from service.domain.manifest import Manifest
from service.domain.outputs import ClassSpec
from service.domain.target import ABOVE_THRESHOLD, TOP1, ClassTarget, ResolvedTarget
from service.errors.requests import InvalidTarget
from workers.targets.base import Chosen
from workers.targets.scalars import ClassLogit

ACTIVATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "classification-multilabel": torch.sigmoid,
    "classification-multiclass": lambda logits: logits.softmax(0),
    "survival": torch.sigmoid,
}
"""By task: logits ``(classes,)`` to probabilities. Of a survival model they are the log odds of
the event by each time."""


def predictions_of(manifest: Manifest, logits: Sequence[float]) -> tuple[Prediction, ...]:
    """Return what the model said of every class, in logit order.

    Parameters
    ----------
    logits
        One finite number for each class of the manifest.

    Raises
    ------
    InvalidTarget
        If there are more or fewer logits than classes.
    """
    if len(logits) != len(manifest.classes):
        raise InvalidTarget("The model's outputs do not match the classes of its manifest.")
    values = torch.tensor(list(logits), dtype=torch.float64)
    probabilities = ACTIVATIONS[manifest.task](values).tolist()
    return tuple(
        Prediction(
            key=spec.key,
            label=spec.label,
            index=index,
            logit=float(logit),
            probability=probability,
            threshold=spec.threshold,
            above_threshold=_decision(spec, probability),
        )
        for index, (spec, logit, probability) in enumerate(
            zip(manifest.classes, logits, probabilities, strict=True)
        )
    )


def _decision(spec: ClassSpec, probability: float) -> bool | None:
    """Return whether a class is above its threshold; `None` where nothing is decided."""
    if spec.threshold is None or spec.not_for_use is not None:
        return None
    return probability >= spec.threshold


def check(target: ClassTarget, manifest: Manifest) -> None:
    """Refuse a target that the model does not have, before anything runs.

    Raises
    ------
    InvalidTarget
        If there is no such class, it is not for use, or there is no threshold to be
        above of.
    """
    keys = [spec.key for spec in manifest.classes]
    for index, spec in enumerate(manifest.classes):
        if target.of in (spec.key, index) and spec.not_for_use is not None:
            raise InvalidTarget("The model's publisher marked this class as not for use.")
    if target.of == ABOVE_THRESHOLD:
        if not manifest.decided:
            raise InvalidTarget("The model declares no thresholds; name a class or 'top1'.")
    elif isinstance(target.of, int):
        if target.of >= len(keys):
            raise InvalidTarget(
                f"The model has {len(keys)} classes; indices begin at 0.", classes=list(keys)
            )
    elif target.of != TOP1 and target.of not in keys:
        raise InvalidTarget("The model has no such class.", classes=list(keys))


def resolve(
    targets: Iterable[ClassTarget], manifest: Manifest, logits: Sequence[float]
) -> tuple[Chosen, ...]:
    """Make targets definite by the model's answer on the unchanged image.

    Each class comes once, as it was first asked for, because maps are named by
    class. Nothing above a threshold is no error: it adds no target.

    Parameters
    ----------
    logits
        One finite number for each class of the manifest.

    Raises
    ------
    InvalidTarget
        If the model has no such target.
    """
    answered = predictions_of(manifest, logits)
    chosen: dict[int, Chosen] = {}
    for target in targets:
        check(target, manifest)
        for each in _answers(target, answered, manifest):
            definite = _resolved(each, str(target.of))
            chosen.setdefault(each.index, Chosen(definite, ClassLogit(each.index)))
    return tuple(chosen.values())


def _answers(
    target: ClassTarget, answered: Sequence[Prediction], manifest: Manifest
) -> list[Prediction]:
    """Return the classes that a target means; none where nothing is above its threshold."""
    if target.of == ABOVE_THRESHOLD:
        return [each for each in answered if each.above_threshold]
    if target.of == TOP1:
        usable = [each for each in answered if manifest.classes[each.index].not_for_use is None]
        return [max(usable, key=lambda each: each.logit)]
    return [each for each in answered if target.of in (each.key, each.index)]


def _resolved(answer: Prediction, asked_as: str) -> ResolvedTarget:
    """Return the record of one class as a target."""
    return ResolvedTarget(
        key=answer.key,
        label=answer.label,
        index=answer.index,
        asked_as=asked_as,
        score=answer.logit,
        probability=answer.probability,
        threshold=answer.threshold,
        above_threshold=answer.above_threshold,
    )
