"""Which image, or which series, of a study a model was made for."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from service.dicom.intents import PRESENTATION
from service.domain.explanation import LeftOut
from service.domain.inputs import Accept
from service.domain.request import ExplanationRequest
from service.domain.study import ImageHeader, Instance, Study
from service.errors.requests import InvalidRequest, NotFound
from service.errors.studies import (
    AbsurdDimensions,
    AmbiguousStudy,
    NotAcceptedByModel,
    SingleImageModel,
    TooFewSlices,
    TruncatedDicom,
    UnsupportedImage,
    UnsupportedTransferSyntax,
)

NOT_CHOSEN = "not_chosen"
STACKED = ("CT", "MR", "PT")
"""Modalities of which several frames of one object are slices, and not moments."""

SHOWN = 20
"""Objects that a refusal names at most."""

SLICES = (
    " These are a volume's slices, and the model takes single images: choose a model of volumes."
)
SINGLE = " This is a single image, and the model takes whole volumes: choose a model of images."
"""What a refusal adds where not even the number of axes fits."""


UNREAD = {
    each.code
    for each in (TruncatedDicom, AbsurdDimensions, UnsupportedImage, UnsupportedTransferSyntax)
}
"""Why an image was not kept that may belong to others of its study."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What of a study is explained as one volume."""

    series: str
    """Its name in the study, such as ``se_0001``."""

    instances: tuple[Instance, ...]


def narrowed(study: Study, series: str | None) -> Study:
    """Return the study with one of its series alone, if the request names one.

    Raises
    ------
    NotFound
        The study has no such series.
    """
    if series is None:
        return study
    if series not in study.series:
        raise NotFound(
            "The study has no such series; name one of 'series'.",
            pointer="/series",
            series=[*list(study.series)[:SHOWN]],
        )
    return study.model_copy(update={"instances": study.series[series]})


def choose_series(study: Study, accept: Accept, request: ExplanationRequest) -> Chosen:
    """Return the one series of `study` of which the model accepts enough slices.

    Whether its slices form a volume is found out when they are read. A request
    that names an instance asks for the volume of that object's frames alone.

    Raises
    ------
    InvalidRequest
        The request names a frame.
    NotFound
        The study has no such series or instance.
    NotAcceptedByModel
        Not one image is what the model was made for.
    TooFewSlices
        No series has enough of those that are.
    AmbiguousStudy
        Several have and the request names none.
    """
    if request.frame is not None:
        raise InvalidRequest("The model takes a whole volume, not a frame.", pointer="/frame")
    asked = narrowed(study, request.series)
    unnamed = request.instance is None
    if not unnamed:
        choose_instance(asked, accept, request.instance)
    fitting = {
        name: tuple(
            each
            for each in instances
            if request.instance in (None, each.id) and not refusals(each, accept, unnamed=unnamed)
        )
        for name, instances in study.series.items()
        if request.series in (None, name)
    }
    slices = {name: sum(each.number_of_frames for each in fitting[name]) for name in fitting}
    least = accept.volume.least_slices if accept.volume else 1
    enough = [name for name, count in slices.items() if count >= least]
    if len(enough) > 1:
        raise AmbiguousStudy(
            "Several series of the study fit the model; name one in 'series'.",
            pointer="/series",
            series=[*enough[:SHOWN]],
            choices=[
                {
                    "series": name,
                    "series_number": fitting[name][0].series_number,
                    "slices": slices[name],
                }
                for name in enough[:SHOWN]
            ],
        )
    if enough:
        return Chosen(enough[0], fitting[enough[0]])
    if not any(slices.values()):
        raise _none_fits(asked.instances, accept, "/study", unnamed=unnamed)
    raise TooFewSlices(
        "No series of the study has as many slices as the model needs; send it whole.",
        pointer="/study",
        slices=max(slices.values()),
        least=least,
    )


def choose_image(study: Study, accept: Accept, request: ExplanationRequest) -> Instance:
    """Return the one image, of one frame that is named, of which a model of images is asked.

    Raises
    ------
    SingleImageModel
        The request names a series of several images that fit, or an object of
        several frames that are the slices of a volume, and no image of it.
    NotFound, NotAcceptedByModel, AmbiguousStudy, InvalidRequest
        As of `narrowed`, `choose_instance` and `choose_frame`.
    """
    asked = narrowed(study, request.series)
    if request.series is not None and request.instance is None:
        fitting = [each for each in asked.instances if not refusals(each, accept, unnamed=True)]
        if len(fitting) > 1:
            raise SingleImageModel(
                "The model takes single images, not a whole series: name one image of it in"
                " 'instance', or choose a model of volumes.",
                pointer="/series",
                **offered(fitting),
            )
    instance = choose_instance(asked, accept, request.instance)
    if request.frame is None and instance.number_of_frames > 1 and instance.modality in STACKED:
        raise SingleImageModel(
            "The model takes single images, and this object is a volume of several frames: name"
            " one in 'frame', counted from 1, or choose a model of volumes.",
            pointer="/frame",
            instance=instance.id,
            number_of_frames=instance.number_of_frames,
        )
    choose_frame(instance, request.frame)
    return instance


def choose_instance(study: Study, accept: Accept, instance_id: str | None) -> Instance:
    """Return the one image of `study` that the model accepts.

    Raises
    ------
    NotFound
        `instance_id` names no object of the study.
    NotAcceptedByModel
        The named object, or every object, is not what the model was made for.
    AmbiguousStudy
        Several objects fit and the request names none.
    """
    candidates = study.instances
    if instance_id is not None:
        candidates = tuple(each for each in study.instances if each.id == instance_id)
        if not candidates:
            raise NotFound("The study has no such instance.", pointer="/instance")
    unnamed = instance_id is None
    fitting = tuple(each for each in candidates if not refusals(each, accept, unnamed=unnamed))
    if not fitting:
        pointer = "/study" if instance_id is None else "/instance"
        raise _none_fits(candidates, accept, pointer, unnamed=unnamed)
    if len(fitting) > 1:
        raise AmbiguousStudy(
            "Several images of the study fit the model; name one in 'instance'.",
            pointer="/instance",
            **offered(fitting),
        )
    return fitting[0]


def offered(fitting: Sequence[Instance]) -> dict[str, JsonValue]:
    """Return the facts of a refusal that offers images: their names, and which they are."""
    shown = fitting[:SHOWN]
    return {"instances": [each.id for each in shown], "choices": [each.place for each in shown]}


def _none_fits(
    candidates: Sequence[Instance], accept: Accept, pointer: str, *, unnamed: bool
) -> NotAcceptedByModel:
    return NotAcceptedByModel(
        "No image of the study is what the model was made for; 'facts' says why."
        f"{_axes_apart(candidates, accept)}",
        pointer=pointer,
        accepts=accept.model_dump(mode="json"),
        refused={
            each.id: list(refusals(each, accept, unnamed=unnamed)) for each in candidates[:SHOWN]
        },
    )


def _axes_apart(candidates: Sequence[Instance], accept: Accept) -> str:
    """Return a sentence where a model of images meets a volume, or one of volumes an image."""
    frames: Counter[str] = Counter()
    for each in candidates:
        frames[each.series_instance_uid] += each.number_of_frames
    if accept.volume is not None:
        single = max(frames.values(), default=0) == 1
        return SINGLE if single else ""
    stacked = {each.series_instance_uid for each in candidates if each.modality in STACKED}
    return SLICES if any(frames[each] > 1 for each in stacked) else ""


def left_out(
    study: Study, accept: Accept, chosen: Sequence[Instance], *, several: bool = False
) -> tuple[LeftOut, ...]:
    """Return the instances of `study` that are not among `chosen`, each with the reasons.

    They are the rules that it breaks, or ``not_chosen`` where it breaks none.

    Parameters
    ----------
    several
        Whether the model sees several single images at once.
    """
    rules = refusals_of_several if several else refusals
    ids = {each.id for each in chosen}
    return tuple(
        LeftOut(instance=each.id, reasons=rules(each, accept, unnamed=True) or (NOT_CHOSEN,))
        for each in study.instances
        if each.id not in ids
    )


def has_unread(study: Study) -> bool:
    """Tell whether images came with the study that could not be read, of whatever series."""
    return any(each.code in UNREAD for each in study.skipped)


def choose_frame(instance: Instance, frame: int | None) -> int:
    """Return the frame of `instance` that is to be explained, counted from 1.

    Raises
    ------
    AmbiguousStudy
        There are several and the request names none.
    InvalidRequest
        There are not so many.
    """
    frames = instance.number_of_frames
    if frame is None and frames > 1:
        raise AmbiguousStudy(
            "The image has several frames; name one in 'frame', counted from 1.",
            pointer="/frame",
            instance=instance.id,
            number_of_frames=frames,
        )
    chosen = frame or 1
    if chosen > frames:
        raise InvalidRequest(
            "The image has no such frame; 'facts' says how many it has.",
            pointer="/frame",
            instance=instance.id,
            number_of_frames=frames,
        )
    return chosen


def refusals(instance: ImageHeader, accept: Accept, *, unnamed: bool = False) -> tuple[str, ...]:
    """Return the rules that an image breaks, by the manifest's field names.

    A localizer is what models are not made for; it is explained only where the
    request names it, and is refused as ``localizer`` where that is `unnamed`. A
    segmentation is never explained.
    """
    rules = {
        "modalities": (instance.modality, accept.modalities),
        "body_parts": (instance.body_part_examined, accept.body_parts),
        "view_positions": (instance.view_position, accept.view_positions),
        "lateralities": (instance.laterality, accept.lateralities),
        "photometric_interpretations": (
            instance.photometric_interpretation,
            accept.photometric_interpretations,
        ),
    }
    broken = [name for name, (value, allowed) in rules.items() if allowed and value not in allowed]
    if not set(accept.image_types) <= set(instance.image_type):
        broken.append("image_types")
    if (instance.presentation_intent or PRESENTATION) not in accept.presentation_intents:
        broken.append("presentation_intents")
    orientations = accept.volume.orientations if accept.volume else ()
    if orientations and instance.plane is not None and instance.plane not in orientations:
        broken.append("orientations")
    if instance.is_segmentation:
        broken.append("segmentation")
    if unnamed and instance.localizer:
        broken.append("localizer")
    return tuple(broken)


def refusals_of_several(
    instance: Instance, accept: Accept, *, unnamed: bool = False
) -> tuple[str, ...]:
    """Return the rules that an image breaks as one of several that a model sees at once.

    A view that was modified, such as a magnification, is none that models are made for, and is
    taken only by name. An object of several frames is no single image.
    """
    broken = list(refusals(instance, accept, unnamed=unnamed))
    if unnamed and instance.view_modified:
        broken.append("view_modified")
    if instance.number_of_frames > 1:
        broken.append("frames")
    return tuple(broken)
