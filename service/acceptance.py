"""Which image of a study a model was made for."""

from service.domain.manifest import Accept
from service.domain.study import Instance, Study
from service.errors import AmbiguousStudy, InvalidRequest, NotAcceptedByModel, NotFound


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
        raise NotAcceptedByModel(
            "No image of the study is what the model was made for; 'facts' says why.",
            pointer="/study" if instance_id is None else "/instance",
            accepts=accept.model_dump(mode="json"),
            refused={
                each.id: list(refusals(each, accept, unnamed=unnamed)) for each in candidates[:20]
            },
        )
    if len(fitting) > 1:
        raise AmbiguousStudy(
            "Several images of the study fit the model; name one in 'instance'.",
            pointer="/instance",
            instances=[each.id for each in fitting[:20]],
        )
    return fitting[0]


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


def refusals(instance: Instance, accept: Accept, *, unnamed: bool = False) -> tuple[str, ...]:
    """Return the rules that an image breaks, by the manifest's field names.

    A localizer is what models are not made for; it is explained only where the
    request names it, and is refused as ``localizer`` where that is `unnamed`.
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
    if unnamed and instance.localizer:
        broken.append("localizer")
    return tuple(broken)
