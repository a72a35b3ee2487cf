"""Admission by precision: bfloat16 only where it was measured, and found near enough."""

from collections.abc import Iterator

from pydantic import JsonValue

from service.certification import asked_parameters
from service.domain.catalog import ModelEntry
from service.domain.precision import PrecisionRecord
from service.domain.request import ExplanationRequest, MethodChoice
from service.errors.requests import PrecisionNotOffered

REASONS = {
    "not_measured": (
        "It was not measured so far. It is now queued to be, where this was no dry run; ask again"
        " in some minutes."
    ),
    "pending": "It is being measured; ask again in some minutes.",
    "gate_not_passed": "On known cases its maps are too far from those in float64.",
    "no_calibration_set": "The model's package has no cases to measure it on.",
    "runtime_cannot": "The model's runtime cannot compute in it.",
}
"""By code; others say that it could not be measured."""

NOT_MEASURABLE = "It could not be measured on the model's cases; 'facts' says why."


def demand_offered(request: ExplanationRequest, model: ModelEntry) -> None:
    """Refuse a precision that is not known to give this model's maps of a method.

    Raises
    ------
    PrecisionNotOffered
        A method with these parameters was not measured on this model, or could
        not be, or did not pass the gate.
    """
    if request.precision == "float32":
        return
    offered = {each.method for each in model.precisions if each.outcome == "offered"}
    for choice in request.methods:
        entry, reason = measured(choice, model)
        if reason is not None:
            raise PrecisionNotOffered(
                f"The model's maps of this method are not offered in {request.precision}."
                f" {REASONS.get(reason, NOT_MEASURABLE)} Leave out 'precision' meanwhile, or"
                " choose one of 'methods'.",
                pointer="/precision",
                method=choice.name,
                precision=request.precision,
                reason=reason,
                measured=None if entry is None else _figures(entry),
                precisions=["float32"],
                methods=[each for each in model.methods if each in offered],
            )


def unmeasured(request: ExplanationRequest, model: ModelEntry) -> Iterator[MethodChoice]:
    """Iterate over the methods of a request whose precision somebody should measure."""
    for choice in request.methods:
        if measured(choice, model)[1] == "not_measured":
            yield choice


def measured(choice: MethodChoice, model: ModelEntry) -> tuple[PrecisionRecord | None, str | None]:
    """Return what was measured of a method as it is asked for, and why it is not offered."""
    refused = model.refused_precisions.get("bfloat16")
    if refused is not None:
        return None, refused
    asked = asked_parameters(choice, model)
    for each in model.precisions:
        if each.method == choice.name and each.parameters == asked:
            reason = None if each.outcome == "offered" else each.reason or each.outcome
            return each, reason
    return None, "not_measured"


def _figures(entry: PrecisionRecord) -> dict[str, JsonValue]:
    fields = {"worst", "median", "gate", "maps", "cases", "synthetic", "protocol"}
    figures: dict[str, JsonValue] = entry.model_dump(mode="json", include=fields)
    return figures
