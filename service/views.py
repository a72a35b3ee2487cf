"""Which images of a study are the views that a model takes at once.

Each view is told by its header's own words, and nothing is guessed: where two images fit one
view, the request must say which is meant.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import JsonValue

from service.acceptance import SHOWN, offered, refusals_of_several
from service.domain.inputs import Accept
from service.domain.request import ExplanationRequest
from service.domain.study import Instance, Study
from service.domain.view import View
from service.errors.requests import InvalidRequest, NotFound
from service.errors.studies import AmbiguousStudy, MissingView, NotAcceptedByModel

OTHERS: Final = ("instance", "series", "frame", "instances")
"""Fields of a request that name images and not which view they are."""


def choose_views(
    study: Study, accept: Accept, views: Sequence[View], request: ExplanationRequest
) -> dict[str, Instance]:
    """Return the image of each view, by key, in the model's order.

    An image that the request names may say nothing of its view, but not that it is another one.

    Raises
    ------
    InvalidRequest
        One image or frame is named in place of `views`, a key is none of the model's, or one
        image is named for two views.
    NotFound
        An image that is named is not in the study.
    NotAcceptedByModel
        An image that is named is not what the model was made for, or is another view.
    MissingView
        No image is one of the views.
    AmbiguousStudy
        Several are, and the request names none.
    """
    _check_names(views, request)
    known = {each.id: each for each in study.instances}
    named = {key: _named(key, known.get(id_)) for key, id_ in request.views.items()}
    fitting = {
        view.key: [each for each in study.instances if not _refusals(each, accept, view)]
        for view in views
        if view.key not in named
    }
    if missing := [key for key, found in fitting.items() if not found]:
        raise MissingView(
            "The model takes several views at once, and no image of the study is one of those in"
            " 'missing'; send the study whole, or name images in 'views' whose headers do not say"
            " which view they are.",
            pointer="/study",
            missing=[*missing],
            refused=_refused(study.instances, accept, views),
        )
    for key, found in fitting.items():
        if len(found) > 1:
            raise AmbiguousStudy(
                "Several images of the study are the same view; name one in 'views'.",
                pointer=f"/views/{key}",
                view=key,
                **offered(found),
            )
    for view in views:
        if view.key in named:
            _demand_fitting(named[view.key], accept, view)
    return {each.key: named.get(each.key) or fitting[each.key][0] for each in views}


def _check_names(views: Sequence[View], request: ExplanationRequest) -> None:
    """Refuse names of one image, and of views that the model does not take."""
    keys: list[JsonValue] = [each.key for each in views]
    for field in OTHERS:
        if getattr(request, field):
            raise InvalidRequest(
                "The model takes several images at once: name them in 'views', by these keys.",
                pointer=f"/{field}",
                views=keys,
            )
    for key in request.views:
        if key not in keys:
            raise InvalidRequest(
                "The model takes no such view; those of 'views' it takes.",
                pointer=f"/views/{key}",
                views=keys,
            )
    if len(set(request.views.values())) < len(request.views):
        raise InvalidRequest("One image cannot be two views.", pointer="/views")


def _named(key: str, instance: Instance | None) -> Instance:
    if instance is None:
        raise NotFound("The study has no such instance.", pointer=f"/views/{key}")
    return instance


def _demand_fitting(instance: Instance, accept: Accept, view: View) -> None:
    """Refuse an image that was named for a view, and is said to be something else."""
    if broken := _refusals(instance, accept, view, named=True):
        raise NotAcceptedByModel(
            "The image that is named for this view is not one by its header; 'refused' says why.",
            pointer=f"/views/{view.key}",
            view=view.key,
            refused={instance.id: [*broken]},
        )


def _refused(
    instances: Sequence[Instance], accept: Accept, views: Sequence[View]
) -> dict[str, JsonValue]:
    """Return, of the images that are no view at all, the rules that they break in each."""
    every: Mapping[str, list[tuple[str, ...]]] = {
        each.id: [_refusals(each, accept, view) for view in views] for each in instances
    }
    none = {id_: broken for id_, broken in every.items() if all(broken)}
    return {
        id_: [*dict.fromkeys(rule for rules in broken for rule in rules)]
        for id_, broken in [*none.items()][:SHOWN]
    }


def _refusals(
    instance: Instance, accept: Accept, view: View, *, named: bool = False
) -> tuple[str, ...]:
    """Return the rules that an image breaks as a view, by the manifest's names.

    What is `named` may be silent.
    """
    broken = list(refusals_of_several(instance, accept, unnamed=not named))
    said = {
        "view_positions": instance.view_position,
        "lateralities": instance.laterality,
        "body_parts": instance.body_part_examined,
    }
    broken += [
        name
        for name, allowed in view.rules.items()
        if allowed and said[name] not in allowed and not (named and not said[name])
    ]
    return tuple(dict.fromkeys(broken))
