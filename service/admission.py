"""Admission: a request against the catalog and a study, before anything is queued.

Everything that can be known to fail is refused here, with the way to mend it.
Texts hold names out of the catalog, never what the caller wrote.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from service.acceptance import choose_image, choose_series
from service.additions import Addition, addition
from service.annotations import check_annotated, check_annotated_volume
from service.bags import choose_bag
from service.certification import demand_certified
from service.domain.catalog import Catalog, ModelEntry
from service.domain.inputs import Accept, ImageCount
from service.domain.request import ExplanationRequest, Observed
from service.domain.study import Instance, Study
from service.domain.target import ABOVE_THRESHOLD, InstanceTarget
from service.domain.value import version_order
from service.errors.base import Failure, Kind
from service.errors.jobs import NoWorker
from service.errors.models import ModelSilent, ModelUnavailable
from service.errors.requests import (
    InvalidRequest,
    TooLarge,
    UnknownFormat,
    UnknownModel,
)
from service.fleet.base import WorkerRecord, least_busy
from service.instances import check_image, check_slice
from service.parameters import check_method
from service.places import check_within, extent_of, extent_of_volume
from service.precision import demand_offered
from service.scoring import demand_suited
from service.targets import check_references, check_target, named, with_segmentations, with_targets
from service.views import choose_views
from service.wording import escaped

REQUEST_BYTES = 6 * 1024
"""Largest canonical request: the job's whole record must stay under 8 KiB."""

NO_WORKER_RETRY = 15
"""Seconds: a worker with a warm disk is back in about this time."""

ABOVE_THRESHOLD_GUESS = 2
"""Classes above their thresholds, assumed for the estimate of a job's cost."""

SCALES: Final[Mapping[str, tuple[str, ...]]] = {
    "classification-multilabel": ("probability", "logit"),
    "classification-multiclass": ("probability", "logit"),
    "detection": ("probability", "logit"),
    "survival": ("probability", "logit"),
}
"""By task: the kinds of numbers that observed ones can be compared with, of classes."""


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
        The model or the image has no such target; no worker writes such a format.
    InvalidRequest
        What was observed cannot be compared, or the image has no such frame.
    SingleImageModel
        A volume was named, and the model takes single images.
    NotFound, NotAcceptedByModel, AmbiguousStudy, MissingView, TooFewImages
        The study holds no image, or not just one frame, that the model was made for; or not
        one of each view, or not as many as make a bag.
    TooLarge
        The request is too long to be queued.
    """
    request = with_targets(request, find_model(request.model, catalog.models))
    model = check_against_catalog(request, catalog)
    request = with_segmentations(request, study)
    frozen, instances = _with_subject(request, model, study)
    beside = [each for each in study.instances if each.id in frozen.beside]
    return Admitted(
        request=frozen,
        model=model,
        cost=estimated_cost(frozen, model),
        canonical=canonical(frozen),
        addition=addition(frozen, instances, model, catalog.formats, beside),
    )


def _with_subject(
    request: ExplanationRequest, model: ModelEntry, study: Study
) -> tuple[ExplanationRequest, tuple[Instance, ...]]:
    """Return the request with the images or series that it means, and its objects."""
    accept = Accept.model_validate(model.accept)
    if model.views:
        return _with_views(request, accept, model, study)
    if request.views:
        raise InvalidRequest("The model takes no images by their views.", pointer="/views")
    if model.images is not None:
        return _with_bag(request, accept, model.images, study)
    if request.instances:
        raise InvalidRequest(
            "The model takes one image or volume: name it in 'instance' or 'series'.",
            pointer="/instances",
        )
    if accept.volume is None:
        instance = choose_image(study, accept, request)
        check_annotated(request, {None: instance})
        check_within(request, extent_of(instance))
        frozen = request.model_copy(update={"instance": instance.id})
        check_references(frozen, accept, study)
        return frozen, (instance,)
    chosen = choose_series(study, accept, request)
    check_annotated_volume(request, chosen.instances)
    check_within(request, extent_of_volume(chosen.instances))
    for place, target in enumerate(request.targets):
        if isinstance(target, InstanceTarget):
            check_slice(target, f"/targets/{place}", chosen.instances)
    return request.model_copy(update={"series": chosen.series}), chosen.instances


def _with_views(
    request: ExplanationRequest, accept: Accept, model: ModelEntry, study: Study
) -> tuple[ExplanationRequest, tuple[Instance, ...]]:
    """Return the request with the image of every view, and these images."""
    chosen = choose_views(study, accept, model.views, request)
    check_annotated(request, dict[str | None, Instance](chosen.items()))
    names = {key: each.id for key, each in chosen.items()}
    return request.model_copy(update={"views": names}), tuple(chosen.values())


def _with_bag(
    request: ExplanationRequest, accept: Accept, images: ImageCount, study: Study
) -> tuple[ExplanationRequest, tuple[Instance, ...]]:
    """Return the request with the images of the bag, and these images."""
    chosen = choose_bag(study, accept, images, request)
    check_annotated(request, {each.id: each for each in chosen})
    for place, target in enumerate(request.targets):
        if isinstance(target, InstanceTarget):
            check_image(target, f"/targets/{place}", chosen)
    names = tuple(each.id for each in chosen)
    return request.model_copy(update={"instances": names}), chosen


def check_against_catalog(request: ExplanationRequest, catalog: Catalog) -> ModelEntry:
    """Check everything but the study; return the model. Errors as of `admit`."""
    model = find_model(request.model, catalog.models)
    methods = {each.name: each for each in catalog.methods}
    for place, choice in enumerate(request.methods):
        check_method(choice, f"/methods/{place}", methods, model)
    if not request.allow_uncertified:
        weak = {each.name for each in catalog.methods if each.weak}
        demand_certified(request.methods, model, weak)
    demand_offered(request, model)
    for place, target in enumerate(request.targets):
        check_target(target, f"/targets/{place}", model)
    demand_suited(request, methods, model)
    _check_observed(request.observed, model)
    _check_values(request, model)
    _check_inputs(request.inputs, model)
    for place, annotation in enumerate(request.annotations):
        named(annotation.of, f"/annotations/{place}/of", model)
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
    """Return the model named ``name`` or ``name@version``.

    Without a version it is the newest one that loaded: one that failed takes nothing
    over from those before it. One whose server is silent for a while does, for else
    the version that answers would change from request to request.

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
    newest = max(found, key=lambda each: (_loaded(each), version_order(each.version)))
    if newest.state == "ready":
        return newest
    why = newest.failure
    if why is not None and why.kind is Kind.WAIT:
        raise ModelSilent(
            "The server that this model runs on does not answer as it should; try again shortly.",
            pointer="/model",
            **_reason(why),
        )
    raise ModelUnavailable(
        "No worker could load this model; 'reason_detail' says why. Its publisher must mend it.",
        pointer="/model",
        **({} if why is None else _reason(why)),
    )


def _loaded(model: ModelEntry) -> bool:
    """Tell whether a model serves, or will as soon as its server answers again."""
    why = model.failure
    return model.state == "ready" or (why is not None and why.kind is Kind.WAIT)


def _reason(why: Failure) -> dict[str, JsonValue]:
    """Return why a model is not served: its field and other particulars included."""
    return {"reason": why.code, "reason_detail": why.detail, "reason_facts": {**why.facts}}


def worker_for(package: str, workers: Sequence[WorkerRecord]) -> WorkerRecord:
    """Return the least busy worker that can serve a model package.

    Raises
    ------
    NoWorker
        None that is alive can.
    """
    able = [each for each in workers if package in each.packages and not each.draining]
    if not able:
        raise none_serves(workers)
    return least_busy(able)


def none_serves(workers: Sequence[WorkerRecord]) -> NoWorker:
    """Return what to say of a model that none of the workers that are alive serves."""
    starting = any(each.loading for each in workers)
    return NoWorker(
        "A worker is starting and has not loaded this model yet; try again shortly."
        if starting
        else "No worker that can serve this model is alive; try again shortly.",
        workers=len(workers),
        retry_after=NO_WORKER_RETRY,
    )


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


def _check_observed(observed: Sequence[Observed], model: ModelEntry) -> None:
    """Refuse what cannot be compared with the model's answer."""
    before: set[int] = set()
    for place, each in enumerate(observed):
        found = named(each.of, f"/observed/{place}/of", model)
        if found.index in before:
            raise InvalidRequest(
                "This class is observed already; give its score and decision together.",
                pointer=f"/observed/{place}/of",
            )
        scales = ("value",) if model.values else SCALES.get(model.task, ())
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
                pointer=f"/values/{escaped(key)}",
                variables=[*known],
            )
        try:
            known[key].number(given)
        except ValueError as error:
            raise InvalidRequest(str(error), pointer=f"/values/{escaped(key)}") from None
    missing: list[JsonValue] = [
        key for key, each in known.items() if each.required and key not in request.values
    ]
    if missing:
        raise InvalidRequest(
            "The model needs values beside the image; give those of 'missing' in 'values'.",
            pointer="/values",
            missing=missing,
        )


def _check_inputs(asked: str | Sequence[str], model: ModelEntry) -> None:
    """Refuse inputs that the model does not take, and a request that leaves out the image."""
    if asked == "all":
        return
    if isinstance(asked, str):
        raise InvalidRequest(
            "Say 'all', or give a list of names of the model's inputs: some of 'inputs', the first"
            " always among them.",
            pointer="/inputs",
            inputs=[*model.inputs],
        )
    for place, name in enumerate(asked):
        if name not in model.inputs:
            raise InvalidRequest(
                "The model takes no such input; name some of 'inputs', or say 'all'.",
                pointer=f"/inputs/{place}",
                inputs=[*model.inputs],
            )
    if model.inputs[0] not in asked:
        raise InvalidRequest(
            "A result is a map of the image, with numbers beside it: name the first of 'inputs' as"
            " well.",
            pointer="/inputs",
            inputs=[*model.inputs],
        )
