"""Targets of a model of several views: each view's map has a name of its own."""

from collections.abc import Sequence
from dataclasses import replace

from service.domain.target import ViewTarget
from service.domain.view import View
from workers.targets.base import Chosen, key_of


def in_views(chosen: Chosen, views: Sequence[View]) -> tuple[Chosen, ...]:
    """Return a target once for each view, whose map has the view's name; as it is without any."""
    if not views:
        return (chosen,)
    target = chosen.target
    return tuple(
        replace(
            chosen,
            target=target.model_copy(
                update={
                    "key": key_of(target.key, each.key),
                    "of": target.about,
                    "view": each.key,
                    "again": target.again
                    or ViewTarget(kind="view", of=target.about, view=each.key),
                }
            ),
        )
        for each in views
    )
