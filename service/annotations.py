"""Boxes that a reader drew: whether each lies in an image, or the volume, that is explained."""

from collections.abc import Mapping, Sequence

from service.domain.request import ExplanationRequest
from service.domain.study import Instance
from service.errors.requests import InvalidRequest
from service.places import extent_of, extent_of_volume


def check_annotated(request: ExplanationRequest, images: Mapping[str | None, Instance]) -> None:
    """Refuse an annotation that reaches beyond its image, or is of none.

    Parameters
    ----------
    images
        By view; the one image of a model that takes no several under `None`.

    Raises
    ------
    InvalidRequest
        There is such an annotation.
    """
    for place, annotation in enumerate(request.annotations):
        instance = images.get(annotation.view)
        if instance is None:
            raise InvalidRequest(
                "Say which view the box is in, by one of these keys; of a model of one image none.",
                pointer=f"/annotations/{place}/view",
                views=[key for key in images if key],
            )
        _check_within(annotation.box, place, extent_of(instance))


def check_annotated_volume(request: ExplanationRequest, series: Sequence[Instance]) -> None:
    """Refuse an annotation that reaches beyond a volume.

    Parameters
    ----------
    series
        The volume's objects.

    Raises
    ------
    InvalidRequest
        There is such an annotation, or one of a view.
    """
    extent = extent_of_volume(series)
    for place, annotation in enumerate(request.annotations):
        if annotation.view is not None:
            raise InvalidRequest(
                "A volume has no views: leave it out.", pointer=f"/annotations/{place}/view"
            )
        _check_within(annotation.box, place, extent)


def _check_within(box: Sequence[float], place: int, extent: dict[str, int]) -> None:
    """Refuse a box of other axes than an image, or one that reaches beyond it."""
    axes = len(extent)
    ends = zip(box[axes:], extent.values(), strict=False)
    if len(box) == 2 * axes and all(end <= size for end, size in ends):
        return
    numbers = (
        "six numbers in voxels of the series, first slice, top, left, end, bottom, right"
        if "slices" in extent
        else "four numbers in pixels of the source image, top, left, bottom, right"
    )
    raise InvalidRequest(
        f"The box does not lie in the image: give it as {numbers}, the ends past the end.",
        pointer=f"/annotations/{place}/box",
        **extent,
    )
