"""Targets of one instance of a bag: whether the bag holds it."""

from collections.abc import Sequence
from itertools import islice

from service.domain.catalog import ModelEntry
from service.domain.study import Instance
from service.domain.target import InstanceTarget
from service.errors.requests import InvalidTarget

SHOWN = 100
"""Names that a refusal lists at most."""


def check_name(target: InstanceTarget, pointer: str, model: ModelEntry) -> None:
    """Refuse a slice or a frame of a bag of single images, which has neither.

    Raises
    ------
    InvalidTarget
        One is given.
    """
    if model.images is None:
        return
    for field in ("slice", "frame"):
        if getattr(target, field) is not None:
            raise InvalidTarget(
                "The instances of this model's bag are single images: give the name of one in"
                " 'instance', and no more.",
                pointer=f"{pointer}/{field}",
            )


def check_image(target: InstanceTarget, pointer: str, images: Sequence[Instance]) -> None:
    """Refuse what is none of the images in a bag; errors as of `check_slice`."""
    names = [each.id for each in images]
    if target.instance not in names:
        raise InvalidTarget(
            "The bag holds no such image; name one of 'instances'.",
            pointer=f"{pointer}/instance",
            instances=[*names],
        )


def check_slice(target: InstanceTarget, pointer: str, series: Sequence[Instance]) -> None:
    """Refuse what is none of the slices in a bag.

    Raises
    ------
    InvalidTarget
        There is no such slice, object or frame.
    """
    frames = {each.id: each.number_of_frames for each in series}
    if target.slice is not None:
        if target.slice > sum(frames.values()):
            raise InvalidTarget(
                "The series has fewer slices; they are counted from 1.",
                pointer=f"{pointer}/slice",
                slices=sum(frames.values()),
            )
        return
    count = frames.get(target.instance or "")
    if count is None:
        raise InvalidTarget(
            "The series has no such object; name one of 'instances', or a 'slice' by its number.",
            pointer=f"{pointer}/instance",
            instances=[*islice(frames, SHOWN)],
        )
    if (target.frame or count) > count or (target.frame is None and count > 1):
        raise InvalidTarget(
            "Name one frame of the object, counted from 1.",
            pointer=f"{pointer}/frame",
            number_of_frames=count,
        )
