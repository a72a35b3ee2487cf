"""Admission: a request against the catalog and a study, before anything is queued.

Everything that can be known to fail is refused here, with the way to mend it.
Texts hold names out of the catalog, never what the caller wrote.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from pydantic import JsonValue

from service.acceptance import choose_image, choose_series
from service.additions import Addition, addition
from service.certification import demand_certified
from service.domain.catalog import Catalog, ClassEntry, MethodEntry, ModelEntry, ValueEntry
from service.domain.inputs import Accept
from service.domain.request import ExplanationRequest, MethodChoice, Observed
from service.domain.study import Instance, Study
from service.domain.target import (
    ABOVE_THRESHOLD,
    REST,
    TOP1,
    ClassTarget,
    ContrastTarget,
    Of,
    PredictedMask,
    Segment,
    SegmentationTarget,
    Target,
)
from service.errors.base import Kind
from service.errors.jobs import NoWorker
from service.errors.models import ModelSilent, ModelUnavailable
from service.errors.requests import (
    InvalidParameter,
    InvalidRequest,
    InvalidTarget,
    MissingAbility,
    TooLarge,
    UnknownFormat,
    UnknownMethod,
    UnknownModel,
)
from service.fleet.base import WorkerRecord
from service.precision import demand_offered

REQUEST_BYTES = 6 * 1024
"""Largest canonical request: the job's whole record must stay under 8 KiB."""

NO_WORKER_RETRY = 15
"""Seconds: a worker with a warm disk is back in about this time."""

LAYER = "layer"
"""Parameter by which methods name their target layer."""

AT_MOST, UNDER_IMAGE = "x-at-most", "x-under-image"
"""Keywords of ours in a method's schema; `MethodEntry.parameters` says what they mean."""

ABOVE_THRESHOLD_GUESS = 2
"""Classes above their thresholds, assumed for the estimate of a job's cost."""

SCALES: Final[Mapping[str, tuple[str, ...]]] = {
    "classification-multilabel": ("probability", "logit"),
    "classification-multiclass": ("probability", "logit"),
    "regression": ("value",),
    "detection": ("probability", "logit"),
}
"""By task: the kinds of numbers that observed ones can be compared with."""

BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "over",
    "maximum": "at most",
    "exclusiveMaximum": "under",
}
"""Words for a JSON schema's bounds."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that can be served as far as can be known before it runs."""

    request: ExplanationRequest
    """As it was asked, with the instance or the series that was chosen."""

    model: ModelEntry
    cost: int
    """Estimated device time, in milliseconds."""

    canonical: str
    """The request as canonical JSON."""

    addition: Addition
    """What it may add to its study."""

    @property
    def model_ref(self) -> str:
        """``name@version``."""
        return f"{self.model.name}@{self.model.version}"


def admit(request: ExplanationRequest, catalog: Catalog, study: Study) -> Admitted:
    """Check a request against the catalog and its study.

    Raises
    ------
    UnknownModel, ModelUnavailable
        There is no such model, or it did not pass its self-tests.
    UnknownMethod, MissingAbility, InvalidParameter
        There is no such method, the model cannot serve it, or a parameter is
        off its schema.
    MethodUncertified
        The method's certificate for the model failed, and the request does not
        allow that.
    PrecisionNotOffered
        A method's maps of the model are not known to be near enough in the
        precision asked for.
    InvalidTarget, UnknownFormat
        The model has no such target; no worker writes such a format.
    InvalidRequest
        What was observed cannot be compared, or the image has no such frame.
    SingleImageModel
        A volume was named, and the model takes single images.
    NotFound, NotAcceptedByModel, AmbiguousStudy
        The study holds no image, or not just one frame, that the model was made for.
    TooLarge
        The request is too long to be queued.
    """
    request = _with_targets(request, find_model(request.model, catalog.models))
    model = check_against_catalog(request, catalog)
    request = _with_segmentations(request, study)
    frozen, instances = _with_subject(request, Accept.model_validate(model.accept), study)
    return Admitted(
        request=frozen,
        model=model,
        cost=estimated_cost(frozen, model),
        canonical=canonical(frozen),
        addition=addition(frozen, instances, model, catalog.formats),
    )


def _with_subject(
    request: ExplanationRequest, accept: Accept, study: Study
) -> tuple[ExplanationRequest, tuple[Instance, ...]]:
    """Return the request with the image or the series that it means, and its objects."""
    if accept.volume is None:
        instance = choose_image(study, accept, request)
        _check_boxes(request, instance)
        return request.model_copy(update={"instance": instance.id}), (instance,)
    if request.annotations:
        raise InvalidRequest("Boxes are of single images, not of a volume.", pointer="/annotations")
    chosen = choose_series(study, accept, request)
    return request.model_copy(update={"series": chosen.series}), chosen.instances


def _with_segmentations(request: ExplanationRequest, study: Study) -> ExplanationRequest:
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


def check_against_catalog(request: ExplanationRequest, catalog: Catalog) -> ModelEntry:
    """Check everything but the study; return the model. Errors as of `admit`."""
    model = find_model(request.model, catalog.models)
    methods = {each.name: each for each in catalog.methods}
    for place, choice in enumerate(request.methods):
        _check_method(choice, f"/methods/{place}", methods, model)
    if not request.allow_uncertified:
        demand_certified(request.methods, model)
    demand_offered(request, model)
    for place, target in enumerate(request.targets):
        _check_target(target, f"/targets/{place}", model)
    _check_observed(request.observed, model)
    _check_values(request, model)
    for place, annotation in enumerate(request.annotations):
        _named(annotation.of, f"/annotations/{place}/of", model)
    formats = [each.name for each in catalog.formats]
    for place, name in enumerate(request.artifacts):
        if name not in formats:
            raise UnknownFormat(
                "No worker writes this format; choose one of 'formats'.",
                pointer=f"/artifacts/{place}",
                formats=[*formats],
            )
    return model


def find_model(ref: str, models: Sequence[ModelEntry]) -> ModelEntry:
    """Return the model named ``name`` (its newest version) or ``name@version``.

    Raises
    ------
    UnknownModel, ModelUnavailable, ModelSilent
        As of `admit`.
    """
    name, _, version = ref.partition("@")
    found = [each for each in models if each.name == name and version in ("", each.version)]
    if not found:
        raise UnknownModel(
            "There is no such model, or no such version; 'models' lists those there are.",
            pointer="/model",
            models=[*sorted({f"{each.name}@{each.version}" for each in models})[:50]],
        )
    newest = max(found, key=lambda each: tuple(int(part) for part in each.version.split(".")))
    if newest.state == "ready":
        return newest
    why = newest.failure
    if why is not None and why.kind is Kind.WAIT:
        raise ModelSilent(
            "The server that this model runs on does not answer as it should; try again shortly.",
            pointer="/model",
            reason=why.code,
            reason_detail=why.detail,
        )
    raise ModelUnavailable(
        "The model did not pass its self-tests on any worker; its publisher must mend it.",
        pointer="/model",
        **({} if why is None else {"reason": why.code, "reason_detail": why.detail}),
    )


def worker_for(package: str, workers: Sequence[WorkerRecord]) -> WorkerRecord:
    """Return the least busy worker that can serve a model package.

    Raises
    ------
    NoWorker
        None that is alive can.
    """
    able = [each for each in workers if package in each.packages and not each.draining]
    if not able:
        raise NoWorker(
            "No worker that can serve this model is alive; try again shortly.",
            workers=len(workers),
            retry_after=NO_WORKER_RETRY,
        )
    return min(able, key=lambda each: (each.running / max(each.slots, 1), each.id))


def estimated_cost(request: ExplanationRequest, model: ModelEntry) -> int:
    """Estimate the device time of a request in milliseconds, at least 1.

    Rows are those of each method's default parameters on one target. Forward
    rows serve all targets at once; gradient rows are taken per target.
    """
    targets = sum(
        ABOVE_THRESHOLD_GUESS if each.of == ABOVE_THRESHOLD else 1 for each in request.targets
    )
    seconds = 0.0
    for choice in request.methods:
        for kind, rows in model.method_rows.get(choice.name, {}).items():
            times = targets if kind == "gradient" else 1
            seconds += rows * times * model.row_seconds.get(kind, 0.0)
    return max(1, math.ceil(seconds * 1000))


def canonical(request: ExplanationRequest) -> str:
    """Return the request as canonical JSON: sorted keys, no spaces, no nulls.

    Raises
    ------
    TooLarge
        It is over 6 KiB.
    """
    document = request.model_dump(mode="json", exclude_none=True)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    if len(text.encode()) > REQUEST_BYTES:
        raise TooLarge(
            "The request is too long to queue; ask for fewer methods, targets or parameters, or say"
            " less of what was observed and annotated.",
            limit=REQUEST_BYTES,
            observed=len(text.encode()),
        )
    return text


def resolved_parameters(choice: MethodChoice, entry: MethodEntry) -> dict[str, JsonValue]:
    """Return a method's parameters with the defaults of those that were not given."""
    schemas = _properties(entry.parameters)
    defaults = {name: each["default"] for name, each in schemas.items() if "default" in each}
    return {**defaults, **choice.parameters}


# ------------------------------------------------------------------- in detail


def _check_method(
    choice: MethodChoice, pointer: str, methods: dict[str, MethodEntry], model: ModelEntry
) -> None:
    """Refuse a method that is unknown, not applicable, or given wrong parameters."""
    entry = methods.get(choice.name)
    if entry is None:
        raise UnknownMethod(
            "There is no such method; choose one of 'methods'.",
            pointer=f"{pointer}/name",
            methods=[*sorted(methods)],
        )
    if choice.name not in model.methods:
        reason = model.refused.get(choice.name, "The model was not probed for this method.")
        raise MissingAbility(
            f"The model cannot serve this method. {reason}",
            pointer=f"{pointer}/name",
            method=choice.name,
            methods=[*model.methods],
        )
    _check_parameters(choice, f"{pointer}/parameters", entry, model)
    _check_layer(choice, f"{pointer}/parameters/{LAYER}", model)


def _check_layer(choice: MethodChoice, pointer: str, model: ModelEntry) -> None:
    """Refuse a target layer that no worker found in the model."""
    asked = choice.parameters.get(LAYER)
    layers = [each.name for each in model.layers]
    if asked is not None and asked not in layers:
        raise InvalidParameter(
            "The model has no such target layer, or it cannot be used; name one of 'layers', or"
            " none for its default.",
            pointer=pointer,
            method=choice.name,
            layers=[*layers[:100]],
            **({"reason": model.refused_layers[asked]} if asked in model.refused_layers else {}),
        )


def _check_parameters(
    choice: MethodChoice, pointer: str, entry: MethodEntry, model: ModelEntry
) -> None:
    """Hold parameters against their schema, the model and each other; all breaches at once."""
    schema = Draft202012Validator(entry.parameters)
    told = [
        each for error in schema.iter_errors(dict(choice.parameters)) for each in _breach(error)
    ] or [*_misfits(choice, entry, model)]
    breaches: list[JsonValue] = [
        {"pointer": f"{pointer}{place}", "detail": text} for place, text in told
    ]
    if breaches:
        raise InvalidParameter(
            "A parameter is unknown, off its schema or does not fit; 'errors' says which.",
            method=entry.name,
            parameters=[*sorted(_properties(entry.parameters))],
            errors=breaches,
        )


def _misfits(
    choice: MethodChoice, entry: MethodEntry, model: ModelEntry
) -> Iterator[tuple[str, str]]:
    """Tell parameters that do not fit another one, or the model's input: place and what is off."""
    values = resolved_parameters(choice, entry)
    longest = max(model.shape[1:], default=0)
    for name, schema in _properties(entry.parameters).items():
        own, other = _numbers(values.get(name)), schema.get(AT_MOST, "")
        if max(own, default=0) > min(_numbers(values.get(other)), default=math.inf):
            culprit = name if name in choice.parameters else other
            yield f"/{culprit}", f"'{name}' must be at most '{other}'."
        if longest and UNDER_IMAGE in schema and max(own, default=0) >= longest:
            yield f"/{name}", f"Must be under {longest}, the longest edge of the model's input."


def _numbers(value: JsonValue) -> list[float]:
    """Return a number, or those of a list; nothing of anything else."""
    listed = value if isinstance(value, list) else [value]
    return [each for each in listed if isinstance(each, int | float)]


def _breach(error: ValidationError) -> Iterator[tuple[str, str]]:
    """Tell a breach of a schema in our own words: place and what is allowed."""
    place = "".join(f"/{_escaped(str(part))}" for part in error.absolute_path)
    allowed: Any = error.validator_value
    match error.validator:
        case "additionalProperties":
            given: Any = error.instance
            for key in sorted(set(given) - set(_properties(error.schema))):
                yield f"{place}/{_escaped(key)}", "There is no such parameter."
        case "required":
            yield place, "A required parameter is missing."
        case "type":
            yield place, f"Must be of type {allowed}."
        case "enum" | "const":
            yield place, f"Must be one of {json.dumps(allowed)}."
        case str() as rule if rule in BOUNDS:
            yield place, f"Must be {BOUNDS[rule]} {allowed}."
        case "anyOf":
            yield from _branch_breach(error, place)
        case _:
            yield place, f"Does not hold to the schema's '{error.validator}'."


def _branch_breach(error: ValidationError, place: str) -> Iterator[tuple[str, str]]:
    """Tell a breach of a union by the branch whose type was met, else by the types there are."""
    context = error.context or []
    depth = len(error.absolute_path)
    mistyped = {
        each.schema_path[0]
        for each in context
        if each.validator == "type" and len(each.absolute_path) == depth
    }
    met = [each for each in context if each.schema_path[0] not in mistyped]
    for each in met:
        yield from _breach(each)
    if not met:
        branches: Any = error.validator_value
        types = [str(each["type"]) for each in branches if "type" in each]
        yield place, f"Must be of type {' or '.join(types)}."


def _properties(schema: object) -> dict[str, Any]:
    """Return the schemas of an object's properties."""
    found = schema.get("properties") if isinstance(schema, dict) else None
    return found if isinstance(found, dict) else {}


def _escaped(part: str) -> str:
    """Return a reference token of a JSON Pointer (RFC 6901, section 3)."""
    return part.replace("~", "~0").replace("/", "~1")


def _check_target(target: Target, pointer: str, model: ModelEntry) -> None:
    """Refuse a target that the model does not have."""
    if target.kind not in model.target_kinds:
        raise InvalidTarget(
            f"A model of task '{model.task}' has no targets of this kind; choose one of 'kinds'.",
            pointer=f"{pointer}/kind",
            kinds=[*model.target_kinds],
        )
    match target:
        case ClassTarget() if target.of in (TOP1, ABOVE_THRESHOLD):
            return
        case ClassTarget():
            also = ", an index, 'top1' or 'above_threshold'"
            _usable(target.of, f"{pointer}/of", model, also)
        case ContrastTarget():
            _check_contrast(target, pointer, model)
        case _:
            _usable(target.of, f"{pointer}/of", model)
    if isinstance(target, SegmentationTarget):
        _check_region(target, f"{pointer}/region", model)


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


def _check_region(target: SegmentationTarget, pointer: str, model: ModelEntry) -> None:
    """Refuse a region of other axes than the images that the model takes."""
    if isinstance(target.region, PredictedMask | Segment):
        return
    axes = 2 if Accept.model_validate(model.accept).volume is None else 3
    numbers = target.region.at if target.region.kind == "point" else target.region.box[::2]
    if len(numbers) != axes:
        raise InvalidTarget(
            "The region has not as many axes as what the model takes: give a row and a column, and"
            " of a volume the slice before them.",
            pointer=pointer,
            axes=axes,
        )


def _usable(
    of: Of, pointer: str, model: ModelEntry, others: str = " or an index"
) -> ClassEntry | ValueEntry:
    """Return a class or value that may be asked for."""
    found = _named(of, pointer, model, others)
    if found.not_for_use is not None:
        raise InvalidTarget(
            f"The model's publisher marked this as not for use; name one of '{_what(model)}'.",
            pointer=pointer,
            why=found.not_for_use,
            **{_what(model): _keys(model)},
        )
    return found


def _what(model: ModelEntry) -> str:
    """Return what the model's outputs are called."""
    return "classes" if model.classes else "values"


def _keys(model: ModelEntry) -> list[JsonValue]:
    """Return the keys of outputs that may be asked for."""
    named = model.classes or model.values
    return [each.key for each in named[:100] if each.not_for_use is None]


def _check_observed(observed: Sequence[Observed], model: ModelEntry) -> None:
    """Refuse what cannot be compared with the model's answer."""
    before: set[int] = set()
    for place, each in enumerate(observed):
        found = _named(each.of, f"/observed/{place}/of", model)
        if found.index in before:
            raise InvalidRequest(
                "This class is observed already; give its score and decision together.",
                pointer=f"/observed/{place}/of",
            )
        scales = SCALES.get(model.task, ())
        if each.score is not None and each.scale not in scales:
            raise InvalidRequest(
                f"A model of task '{model.task}' gives no such numbers; set one of 'scales'."
                if scales
                else "What a segmentation said cannot be compared by a number; leave it out.",
                pointer=f"/observed/{place}/scale",
                scales=[*scales],
            )
        if each.positive is not None and getattr(found, "threshold", None) is None:
            raise InvalidRequest(
                "The model declares no threshold for this class, so no decision can be compared;"
                " give its score alone.",
                pointer=f"/observed/{place}/positive",
            )
        before.add(found.index)


def _check_values(request: ExplanationRequest, model: ModelEntry) -> None:
    """Refuse values that the model does not take, and the lack of those that it needs."""
    known = {each.key: each for each in model.variables}
    for key, given in request.values.items():
        if key not in known:
            raise InvalidRequest(
                "The model takes no such value beside the image; those of 'variables' it takes."
                if known
                else "The model takes an image alone; leave 'values' out.",
                pointer=f"/values/{_escaped(key)}",
                variables=[*known],
            )
        try:
            known[key].number(given)
        except ValueError as error:
            raise InvalidRequest(str(error), pointer=f"/values/{_escaped(key)}") from None
    missing: list[JsonValue] = [
        key for key, each in known.items() if each.required and key not in request.values
    ]
    if missing:
        raise InvalidRequest(
            "The model needs values beside the image; give those of 'missing' in 'values'.",
            pointer="/values",
            missing=missing,
        )


def _with_targets(request: ExplanationRequest, model: ModelEntry) -> ExplanationRequest:
    """Return the request with the model's own targets where it names none."""
    if "targets" in request.model_fields_set:
        return request
    return request.model_copy(update={"targets": model.default_targets})


def _check_boxes(request: ExplanationRequest, instance: Instance) -> None:
    """Refuse an annotation that reaches beyond the image."""
    for place, annotation in enumerate(request.annotations):
        if annotation.box[2] > instance.rows or annotation.box[3] > instance.columns:
            raise InvalidRequest(
                "The box reaches beyond the image; give it in pixels of the source image.",
                pointer=f"/annotations/{place}/box",
                rows=instance.rows,
                columns=instance.columns,
            )


def _named(
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
