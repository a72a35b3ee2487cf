"""Parts of what a model sees: each view's or image's map has a name of its own, a slice's too."""

from collections.abc import Sequence
from dataclasses import replace

from service.domain.explanation import BagInstance
from service.domain.resolved import ResolvedTarget
from service.domain.target import ClassTarget, InstanceTarget, Target, ViewTarget
from service.domain.view import View
from service.errors.requests import InvalidTarget
from workers.targets.base import Answer, Chosen, key_of


def in_parts(chosen: Chosen, asked: Target, answer: Answer) -> tuple[Chosen, ...]:
    """Return a target once for each view or image that is asked for, or for one slice.

    As it is of one image, and of a volume whose slices are not asked for.

    Raises
    ------
    InvalidTarget
        There is no such view, image or slice.
    """
    if answer.views:
        return tuple(_in_view(chosen, each, answer) for each in _views(asked, answer))
    if isinstance(asked, InstanceTarget):
        return (_in_slice(chosen, _slice(asked, answer.slices)),)
    return (chosen,)


def _views(asked: Target, answer: Answer) -> tuple[View, ...]:
    """Return the views or images whose maps are asked for: all, unless the target names some."""
    views = tuple(answer.views)
    if isinstance(asked, ViewTarget):
        named = asked.among(views)
    elif isinstance(asked, InstanceTarget):
        named = tuple(each for each in views if each.key == asked.instance)
    else:
        named = views
    if not named:
        raise InvalidTarget("The model sees no such image.", views=[each.key for each in views])
    return named


def _slice(asked: InstanceTarget, slices: Sequence[BagInstance]) -> int:
    """Return the number of the slice that is asked for, counted from 1."""
    named = [
        each.slice
        for each in slices
        if asked.slice == each.slice
        or (asked.instance == each.instance and asked.frame in (None, each.frame or 1))
    ]
    if len(named) != 1 or named[0] is None:
        raise InvalidTarget("The bag has no such slice.", slices=len(slices))
    return named[0]


def _in_view(chosen: Chosen, view: View, answer: Answer) -> Chosen:
    """Return a target with the map of one view, or of one image of a bag."""
    target = chosen.target
    again: Target | None = target.again
    if again is None or isinstance(again, ClassTarget):
        score = None if again is None else again.score
        again = (
            ViewTarget(kind="view", of=target.about, view=view.key, score=score)
            if answer.manifest.image.views
            else InstanceTarget(kind="instance", of=target.about, instance=view.key, score=score)
        )
    named = {"key": key_of(target.key, view.key), "view": view.key}
    return replace(chosen, target=_named(target, again, **named))


def _in_slice(chosen: Chosen, number: int) -> Chosen:
    """Return a target with the map of one slice."""
    target = chosen.target
    score = target.again.score if isinstance(target.again, ClassTarget) else None
    again = InstanceTarget(kind="instance", of=target.about, slice=number, score=score)
    named = {"key": key_of(target.key, f"slice-{number}"), "slice": number}
    return replace(chosen, target=_named(target, again, **named))


def _named(target: ResolvedTarget, again: Target, **changes: object) -> ResolvedTarget:
    return target.model_copy(update={"of": target.about, "again": again, **changes})
