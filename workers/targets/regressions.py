"""Targets of a regression: a value in its unit, counted from a reference."""

from service.domain.explanation import Prediction
from service.domain.outputs import ValueSpec
from service.domain.resolved import ResolvedTarget
from service.domain.target import RegressionTarget
from service.errors.requests import InvalidTarget
from workers.targets.base import Answer, Chosen, found, key_of
from workers.targets.scalars import Linear


def predictions_of(answer: Answer) -> tuple[Prediction, ...]:
    """Return every value, in the order of the outputs.

    Raises
    ------
    InvalidTarget
        If there are more or fewer outputs than values.
    """
    values = answer.manifest.values
    if answer.outputs.shape != (len(values),):
        raise InvalidTarget("The model's outputs do not match the values of its manifest.")
    return tuple(
        Prediction(
            key=spec.key,
            label=spec.label,
            index=index,
            logit=raw,
            probability=None,
            threshold=None,
            above_threshold=None,
            value=_value(spec, raw),
            unit=spec.unit,
        )
        for index, (spec, raw) in enumerate(zip(values, answer.outputs.tolist(), strict=True))
    )


def resolve(target: RegressionTarget, answer: Answer) -> Chosen:
    """Make a value definite.

    Raises
    ------
    InvalidTarget
        There is no such value, or it is not for use.
    """
    index, spec = found(target.of, answer.manifest.values)
    reference = spec.reference if target.reference is None else target.reference
    sign = 1.0 if target.direction == "increase" else -1.0
    scalar = Linear(((index, sign * spec.slope),), sign * (spec.intercept - (reference or 0.0)))
    return Chosen(
        ResolvedTarget(
            kind="regression",
            key=spec.key if sign > 0 else key_of(spec.key, "decrease"),
            label=spec.label,
            index=index,
            of=spec.key,
            asked_as=str(target.of),
            score=scalar(answer.outputs[None]).item(),
            quantity=_quantity(sign, reference),
            probability=None,
            threshold=None,
            above_threshold=None,
            value=_value(spec, float(answer.outputs[index])),
            unit=spec.unit,
            reference=reference,
            again=target.model_copy(update={"of": spec.key, "reference": reference}),
        ),
        scalar,
    )


def _value(spec: ValueSpec, raw: float) -> float:
    return spec.slope * raw + spec.intercept


def _quantity(sign: float, reference: float | None) -> str:
    """Say what the scalar is."""
    if reference is None:
        return "value" if sign > 0 else "value, its sign turned"
    return "value above the reference" if sign > 0 else "value below the reference"
