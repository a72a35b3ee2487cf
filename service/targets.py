"""Targets of a request: what of a model's answer is explained, and whether it has that."""

from collections.abc import Sequence

from pydantic import JsonValue

from service.acceptance import refusals
from service.domain.catalog import ClassEntry, ModelEntry, ValueEntry
from service.domain.inputs import Accept
from service.domain.request import ExplanationRequest
from service.domain.study import Study
from service.domain.target import (
    ABOVE_THRESHOLD,
    REST,
    TOP1,
    ClassTarget,
    ContrastTarget,
    EmbeddingTarget,
    InstanceTarget,
    Of,
    Segment,
    SegmentationTarget,
    Target,
    TimeToEventTarget,
    ViewTarget,
)
from service.domain.view import View
from service.errors.requests import InvalidTarget
from service.instances import check_name
from service.places import check_axes
from service.scoring import check_score


def check_target(target: Target, pointer: str, model: ModelEntry) -> None:
    """Refuse a target that the model does not have; the refusal lists the kinds that it has.

    Raises
    ------
    InvalidTarget
        There is no such kind, class, value, view or score.
    """
    try:
        _check(target, pointer, model)
    except InvalidTarget as error:
        facts: dict[str, JsonValue] = {"kinds": [*model.target_kinds], **error.facts}
        raise InvalidTarget(error.detail, pointer=error.pointer, **facts) from None


def _check(target: Target, pointer: str, model: ModelEntry) -> None:
    if target.kind not in model.target_kinds:
        raise InvalidTarget(
            f"A model of task '{model.task}' has no targets of this kind; choose one of 'kinds'.",
            pointer=f"{pointer}/kind",
        )
    match target:
        case ClassTarget() | ViewTarget() | InstanceTarget():
            _check_of(target, f"{pointer}/of", model)
        case ContrastTarget():
            _check_contrast(target, pointer, model)
        case TimeToEventTarget():
            _check_time(target, pointer, model)
        case EmbeddingTarget():
            _check_embedding(target, pointer, model)
        case _:
            _usable(target.of, f"{pointer}/of", model)
    if isinstance(target, ViewTarget):
        _check_among(target, pointer, model.views)
    if isinstance(target, InstanceTarget):
        check_name(target, pointer, model)
    check_score(target, f"{pointer}/score", model)
    check_axes(target, pointer, model)


def _check_of(
    target: ClassTarget | ViewTarget | InstanceTarget, pointer: str, model: ModelEntry
) -> None:
    """Refuse a class, value or event that the model does not have."""
    if "class" not in model.target_kinds:
        _usable(target.of, pointer, model)
    elif target.of == ABOVE_THRESHOLD:
        _check_thresholds(pointer, model)
    elif target.of != TOP1:
        _usable(target.of, pointer, model, ", an index, 'top1' or 'above_threshold'")


def _check_thresholds(pointer: str, model: ModelEntry) -> None:
    """Refuse what is above its threshold, of a model whose classes have none."""
    if all(each.threshold is None for each in model.classes if each.not_for_use is None):
        raise InvalidTarget(
            "No class of the model has a threshold to be above; name one of 'classes', or 'top1'.",
            pointer=pointer,
            classes=_keys(model),
        )


def _check_among(target: ViewTarget, pointer: str, views: Sequence[View]) -> None:
    """Refuse a target of a view that is none of those that the model sees."""
    if not target.among(views):
        raise InvalidTarget(
            "The model takes no such view; name one of 'views', or a side that one of them is of.",
            pointer=f"{pointer}/{'laterality' if target.view is None else 'view'}",
            views=[each.key for each in views],
        )


def _check_time(target: TimeToEventTarget, pointer: str, model: ModelEntry) -> None:
    """Refuse a time that the model does not tell of, or a risk that it does not give."""
    event = model.event
    if event is None or not event.horizons:
        if target.horizon is not None:
            raise InvalidTarget(
                "The model gives one risk, whatever the time: leave 'horizon' out, and name one of"
                " 'of' as 'of'.",
                pointer=f"{pointer}/horizon",
                of=["risk"],
            )
    elif target.horizon not in event.usable:
        raise InvalidTarget(
            "The model does not tell of this; name one of 'horizons', in 'unit', as 'horizon'.",
            pointer=f"{pointer}/{'of' if target.horizon is None else 'horizon'}",
            horizons=[*event.usable],
            unit=event.unit,
        )


def _check_embedding(target: EmbeddingTarget, pointer: str, model: ModelEntry) -> None:
    """Refuse a similarity of an autoencoder, and an error of an encoder."""
    if model.task == "reconstruction":
        if target.of is None:
            raise InvalidTarget(
                "The model gives back images and no embedding: leave 'similarity_to' out, and name"
                " one of 'of' as 'of'.",
                pointer=f"{pointer}/similarity_to",
                of=["reconstruction_error"],
            )
        _usable(0, f"{pointer}/of", model)
    elif target.similarity_to is None:
        raise InvalidTarget(
            "The model gives embeddings and no image back: name an image of the study as"
            " 'similarity_to'.",
            pointer=f"{pointer}/of",
        )


def check_references(request: ExplanationRequest, accept: Accept, study: Study) -> None:
    """Refuse an image that is held against if it is none that the model was made for.

    Raises
    ------
    InvalidTarget
        It is not in the study, not what the model takes, of several frames, or the very image
        that is explained.
    """
    fitting = [
        each.id
        for each in study.instances
        if each.id != request.instance
        and each.number_of_frames == 1
        and not refusals(each, accept, unnamed=False)
    ]
    for place, target in enumerate(request.targets):
        if isinstance(target, EmbeddingTarget) and target.similarity_to not in (None, *fitting):
            raise InvalidTarget(
                "There is no such image to hold this one against: name another image of the study,"
                " of one frame, that the model takes, one of 'instances'.",
                pointer=f"/targets/{place}/similarity_to",
                instances=[*fitting[:100]],
            )


def _check_contrast(target: ContrastTarget, pointer: str, model: ModelEntry) -> None:
    """Refuse a contrast with a class that is not there, or with itself."""
    first = None
    if target.of != TOP1:
        first = _usable(target.of, f"{pointer}/of", model, ", an index or 'top1'")
    exclusive = model.task == "classification-multiclass"
    if target.versus == REST and exclusive:
        return
    also = ", an index or 'rest'" if exclusive else " or an index"
    if _usable(target.versus, f"{pointer}/versus", model, also) == first:
        raise InvalidTarget(
            "A class cannot be held against itself; name another of 'classes'.",
            pointer=f"{pointer}/versus",
            classes=_keys(model),
        )


def _usable(
    of: Of, pointer: str, model: ModelEntry, others: str = " or an index"
) -> ClassEntry | ValueEntry:
    """Return a class or value that may be asked for."""
    found = named(of, pointer, model, others)
    if found.not_for_use is not None:
        raise InvalidTarget(
            f"The model's publisher marked this as not for use; name one of '{_what(model)}'.",
            pointer=pointer,
            why=found.not_for_use,
            **{_what(model): _keys(model)},
        )
    return found


def named(
    of: Of, pointer: str, model: ModelEntry, others: str = " or an index"
) -> ClassEntry | ValueEntry:
    """Return the class or value of a key or an index; `others` says what else may stand there."""
    for each in model.classes or model.values:
        if of in (each.key, each.index):
            return each
    what = _what(model)
    one = {"classes": "class", "values": "value"}[what]
    keys: list[JsonValue] = [each.key for each in (model.classes or model.values)[:100]]
    raise InvalidTarget(
        f"The model has no such {one}; name one of '{what}'{others}.",
        pointer=pointer,
        **{what: keys},
    )


def _what(model: ModelEntry) -> str:
    """Return what the model's outputs are called."""
    return "classes" if model.classes else "values"


def _keys(model: ModelEntry) -> list[JsonValue]:
    """Return the keys of outputs that may be asked for."""
    named = model.classes or model.values
    return [each.key for each in named[:100] if each.not_for_use is None]


def with_segmentations(request: ExplanationRequest, study: Study) -> ExplanationRequest:
    """Return the request with the segmentation that each given region is a segment of."""
    marks = [each.id for each in study.instances if each.is_segmentation]
    targets = []
    for place, target in enumerate(request.targets):
        region = target.region if isinstance(target, SegmentationTarget) else None
        if not isinstance(region, Segment):
            targets.append(target)
            continue
        meant = (
            marks
            if region.instance is None
            else [each for each in marks if each == region.instance]
        )
        if len(meant) != 1:
            raise InvalidTarget(
                "The study has no such DICOM segmentation, or several and none was named; send it"
                " with the images, and name one of 'segmentations'.",
                pointer=f"/targets/{place}/region/instance",
                segmentations=[*marks[:100]],
            )
        known = region.model_copy(update={"instance": meant[0]})
        targets.append(target.model_copy(update={"region": known}))
    return request.model_copy(update={"targets": tuple(targets)})


def with_targets(request: ExplanationRequest, model: ModelEntry) -> ExplanationRequest:
    """Return the request with the model's own targets where it names none."""
    if "targets" in request.model_fields_set:
        return request
    if not model.default_targets:
        raise InvalidTarget(
            "The model explains how alike two images are: name the other one in 'targets'.",
            pointer="/targets",
            kinds=[*model.target_kinds],
        )
    return request.model_copy(update={"targets": model.default_targets})
