"""Which single images of a study are the instances of a bag, and what they are called."""

from collections.abc import Sequence

from service.acceptance import SHOWN, narrowed, offered, refusals_of_several
from service.domain.inputs import Accept, ImageCount
from service.domain.request import ExplanationRequest
from service.domain.study import Instance, Study
from service.domain.view import View
from service.errors.requests import InvalidRequest, NotFound
from service.errors.studies import AmbiguousStudy, NotAcceptedByModel, TooFewImages


def choose_bag(
    study: Study, accept: Accept, images: ImageCount, request: ExplanationRequest
) -> tuple[Instance, ...]:
    """Return the images of a bag, in the study's order: those named, or all that fit.

    Raises
    ------
    InvalidRequest
        One image, a frame or views are named, or one image twice.
    NotFound
        An image or series that is named is not in the study.
    NotAcceptedByModel
        An image that is named is not what the model was made for, or none is.
    TooFewImages
        Fewer fit than the model takes.
    AmbiguousStudy
        More fit than it takes, or are named.
    """
    for field in ("instance", "frame"):
        if getattr(request, field):
            raise InvalidRequest(
                "The model takes several images at once: name those that are meant in 'instances',"
                " or none for all that fit.",
                pointer=f"/{field}",
            )
    asked = narrowed(study, request.series)
    named = request.instances
    fitting = tuple(
        each
        for each in asked.instances
        if (each.id in named if named else not refusals_of_several(each, accept, unnamed=True))
    )
    if named:
        _demand_fitting(fitting, accept, named)
    if not fitting:
        raise NotAcceptedByModel(
            "No image of the study is what the model was made for; 'facts' says why.",
            pointer="/study",
            accepts=accept.model_dump(mode="json"),
            refused={
                each.id: [*refusals_of_several(each, accept, unnamed=True)]
                for each in asked.instances[:SHOWN]
            },
        )
    if len(fitting) < images.least:
        raise TooFewImages(
            "The study has fewer images that fit than the model takes at once; send it whole.",
            pointer="/instances" if named else "/study",
            images=len(fitting),
            least=images.least,
        )
    if len(fitting) > images.most:
        raise AmbiguousStudy(
            "More images fit than the model takes at once; name those that are meant in"
            " 'instances'.",
            pointer="/instances",
            images=len(fitting),
            most=images.most,
            **offered(fitting),
        )
    return fitting


def _demand_fitting(found: Sequence[Instance], accept: Accept, named: Sequence[str]) -> None:
    """Refuse names of nothing, of one image twice, and of what the model was not made for."""
    known = {each.id: each for each in found}
    for place, id_ in enumerate(named):
        pointer = f"/instances/{place}"
        if id_ in named[:place]:
            raise InvalidRequest("An image is in the bag once.", pointer=pointer)
        if id_ not in known:
            raise NotFound("The study has no such instance.", pointer=pointer)
        if broken := refusals_of_several(known[id_], accept):
            raise NotAcceptedByModel(
                "The image that is named is not what the model was made for; 'refused' says why.",
                pointer=pointer,
                refused={id_: [*broken]},
            )


def views_of(instances: Sequence[Instance]) -> tuple[View, ...]:
    """Return the images of a bag as views: each has its name in the study as its key.

    What readers call it says the projection as well, where the header does.
    """
    return tuple(
        View(
            key=each.id,
            label=f"Image {number} of {len(instances)}{_projection(each)}",
            lateralities=(each.laterality,) if each.laterality else (),
        )
        for number, each in enumerate(instances, 1)
    )


def _projection(instance: Instance) -> str:
    """Return what a header says of side and view, for the end of a label."""
    said = " ".join(filter(None, (instance.laterality, instance.view_position)))
    return f", {said}" if said else ""
