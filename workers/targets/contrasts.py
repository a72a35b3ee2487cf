"""Contrasts: why a classifier says one class and not another."""

from collections.abc import Sequence

from service.domain.explanation import Prediction
from service.domain.manifest import Manifest
from service.domain.resolved import ResolvedTarget
from service.domain.target import REST, TOP1, ContrastTarget
from service.errors.requests import InvalidTarget
from workers.passes import Scalar
from workers.targets.base import Answer, Chosen, found, key_of
from workers.targets.scalars import Linear, LogOdds


def resolve(target: ContrastTarget, answer: Answer, predictions: Sequence[Prediction]) -> Chosen:
    """Make a contrast definite.

    Raises
    ------
    InvalidTarget
        There is no such class, it is not for use, or it is held against itself;
        or the rest was named of classes that do not exclude each other.
    """
    manifest = answer.manifest
    index, spec = found(_first(target, manifest, predictions), manifest.classes)
    if target.versus == REST:
        if manifest.task != "classification-multiclass":
            raise InvalidTarget("The rest is of classes that exclude each other; name a class.")
        scalar: Scalar = LogOdds(index)
        key, label, quantity = REST, "any other class", "log odds"
    else:
        other, versus = found(target.versus, manifest.classes)
        if other == index:
            raise InvalidTarget("A class cannot be held against itself; name another.")
        scalar = Linear(((index, 1.0), (other, -1.0)))
        key, label, quantity = versus.key, versus.label, "difference of logits"
    return Chosen(
        ResolvedTarget(
            kind="contrast",
            key=key_of(spec.key, "versus", key),
            label=f"{spec.label} rather than {label}",
            index=index,
            of=spec.key,
            asked_as=str(target.of),
            score=scalar(answer.outputs[None]).item(),
            quantity=quantity,
            probability=predictions[index].probability,
            threshold=predictions[index].threshold,
            above_threshold=predictions[index].above_threshold,
            again=target.model_copy(update={"of": spec.key}),
        ),
        scalar,
    )


def _first(
    target: ContrastTarget, manifest: Manifest, predictions: Sequence[Prediction]
) -> int | str:
    """Return the class that is asked about; of ``top1``, the first that is not held against."""
    if target.of != TOP1:
        return target.of
    usable = [
        each
        for each in predictions
        if manifest.classes[each.index].not_for_use is None
        and target.versus not in (each.key, each.index)
    ]
    if not usable:
        raise InvalidTarget("There is no class beside the one that it is held against.")
    return max(usable, key=lambda each: each.logit).index
