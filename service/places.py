"""Places that targets mark: whether what is explained has their axes, and holds them."""

from collections.abc import Iterator, Sequence

from service.domain.catalog import ModelEntry
from service.domain.inputs import Accept
from service.domain.request import ExplanationRequest
from service.domain.study import Instance
from service.domain.target import Box, DetectionTarget, Point, SegmentationTarget, Target
from service.errors.requests import InvalidTarget


def extent_of(instance: Instance) -> dict[str, int]:
    """Return how far an image reaches along each axis, in source pixels."""
    return {"rows": instance.rows, "columns": instance.columns}


def extent_of_volume(series: Sequence[Instance]) -> dict[str, int]:
    """Return how far a volume's objects reach along each axis, at most."""
    return {
        "slices": sum(each.number_of_frames for each in series),
        "rows": max(each.rows for each in series),
        "columns": max(each.columns for each in series),
    }


def check_axes(target: Target, pointer: str, model: ModelEntry) -> None:
    """Refuse a place of other axes than the images that the model takes.

    Raises
    ------
    InvalidTarget
        It has others.
    """
    axes = 2 if Accept.model_validate(model.accept).volume is None else 3
    for field, place in _places(target):
        if len(place) != axes:
            raise InvalidTarget(
                "The region has not as many axes as what the model takes: give a row and a column,"
                " and of a volume the slice before them.",
                pointer=f"{pointer}/{field}",
                axes=axes,
            )


def check_within(request: ExplanationRequest, extent: dict[str, int]) -> None:
    """Refuse a target that marks nothing of the image or volume.

    A box may reach beyond an edge, as boxes that detectors find do.

    Raises
    ------
    InvalidTarget
        There is such a target.
    """
    axes = " and ".join(f"'{each}'" for each in extent)
    for number, target in enumerate(request.targets):
        for field, place in _places(target):
            if any(start >= end for start, end in zip(place, extent.values(), strict=True)):
                raise InvalidTarget(
                    "This lies off what is explained: give source pixels, counted from 0, within"
                    f" its {axes}.",
                    pointer=f"/targets/{number}/{field}",
                    **extent,
                )


def _places(target: Target) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Yield what a target marks: its field, and where that begins on each axis.

    Pixel `i` begins at `i` and ends at ``i + 1``; a point names a pixel by its center, `i`.
    """
    match target:
        case SegmentationTarget(region=Box(box=box)):
            yield "region/box", box[: len(box) // 2]
        case SegmentationTarget(region=Point(at=at)):
            yield "region/at", tuple(each + 0.5 for each in at)
        case DetectionTarget(box=tuple(box)):
            yield "box", box[: len(box) // 2]
        case DetectionTarget(at=tuple(at)):
            yield "at", tuple(each + 0.5 for each in at)
        case _:
            pass
