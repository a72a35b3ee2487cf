"""Targets of a classifier: which number of a class is explained, once the model has answered."""

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from service.domain.explanation import Prediction
from service.domain.manifest import Manifest
from service.domain.outputs import ClassSpec
from service.domain.resolved import ResolvedTarget
from service.domain.scores import usable
from service.domain.target import ABOVE_THRESHOLD, LOGIT, PROBABILITY, TOP1, ClassScore, ClassTarget
from service.errors.requests import InvalidTarget
from workers.passes import Scalar
from workers.targets.base import Answer, Chosen, key_of, threshold_logit
from workers.targets.scalars import ClassLogit, ClassProbability, Linear

ACTIVATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "classification-multilabel": torch.sigmoid,
    "classification-multiclass": lambda logits: logits.softmax(0),
    "survival": torch.sigmoid,
}
"""By task: logits ``(classes,)`` to probabilities. Of a survival model they are the log odds of
the event by each time."""

SLOPE: Final = 0.01
"""Derivative of a probability with respect to its logit, ``p (1 - p)``, under which it counts as
saturated: p is over 0.99 or under 0.01, and a place whose hiding takes 1 off the logit takes less
than 0.02 off the probability."""


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
    target: ClassTarget, answer: Answer, predictions: Sequence[Prediction]
) -> tuple[Chosen, ...]:
    """Make a target definite by the model's answer on the unchanged image.

    Nothing above a threshold is no error: it gives no target.

    Raises
    ------
    InvalidTarget
        If the model has no such target.
    """
    check(target, answer.manifest)
    meant = _answers(target, predictions, answer.manifest)
    return tuple(_chosen(target, each, answer, predictions) for each in meant)


def _answers(
    target: ClassTarget, answered: Sequence[Prediction], manifest: Manifest
) -> list[Prediction]:
    """Return the classes that a target means; none where nothing is above its threshold."""
    if target.of == ABOVE_THRESHOLD:
        return [each for each in answered if each.above_threshold]
    if target.of == TOP1:
        among = (answered[index] for index in usable(manifest.classes))
        return [max(among, key=lambda each: each.logit)]
    return [each for each in answered if target.of in (each.key, each.index)]


def _chosen(
    target: ClassTarget, said: Prediction, answer: Answer, predictions: Sequence[Prediction]
) -> Chosen:
    """Return one class as a target, by the number that is asked for."""
    scalar, quantity, versus = _scored(target.score, said, answer.manifest, predictions)
    plain = target.score == "logit"
    return Chosen(
        ResolvedTarget(
            key=said.key if plain else key_of(said.key, target.score),
            label=said.label,
            index=said.index,
            of=None if plain else said.key,
            asked_as=str(target.of),
            score=scalar(answer.outputs[None]).item(),
            quantity=quantity,
            versus=versus,
            probability=said.probability,
            threshold=said.threshold,
            above_threshold=said.above_threshold,
            saturated=target.score == "probability" and _saturated(said.probability),
            again=None if plain else ClassTarget(of=said.key, score=target.score),
        ),
        scalar,
    )


def _scored(
    score: ClassScore, said: Prediction, manifest: Manifest, predictions: Sequence[Prediction]
) -> tuple[Scalar, str, str | None]:
    """Return what is explained of a class, what that is in words, and the class held against."""
    match score:
        case "logit":
            return ClassLogit(said.index), LOGIT, None
        case "probability":
            return ClassProbability(said.index, manifest.exclusive), PROBABILITY, None
        case "margin" if manifest.exclusive:
            rival = _next_best(said, manifest, predictions)
            scalar = Linear(((said.index, 1.0), (rival.index, -1.0)))
            return scalar, "margin over the next best class", rival.key
        case "margin":
            threshold = threshold_logit(manifest.classes[said.index])
            return Linear(((said.index, 1.0),), -threshold), "logit above its threshold", None


def _next_best(
    said: Prediction, manifest: Manifest, predictions: Sequence[Prediction]
) -> Prediction:
    """Return the class that is best of the others."""
    others = [predictions[index] for index in usable(manifest.classes) if index != said.index]
    if not others:
        raise InvalidTarget("There is no class beside this one that a margin could be over.")
    return max(others, key=lambda each: each.logit)


def _saturated(probability: float | None) -> bool:
    """Tell whether a probability hardly changes with its logit any more."""
    return probability is not None and probability * (1 - probability) < SLOPE
