"""Scores of targets: whether the model gives them, and which methods are right of them."""

from collections.abc import Mapping

from pydantic import JsonValue

from service.domain.catalog import MethodEntry, ModelEntry
from service.domain.request import ExplanationRequest
from service.domain.scores import ScoreEntry, asked_of
from service.domain.target import InstanceTarget, Target, ViewTarget
from service.errors.requests import InvalidTarget, MissingAbility

CUSP = (
    "It takes derivatives, and this score has none on the unchanged image: the overlap of the box"
    " with itself falls whichever way an edge moves. Ask for one of 'scores', or choose one of"
    " 'methods', which change the image alone."
)
CURVED = (
    "It is right of scores alone that are weighted sums of what the network puts out, and this one"
    " is not. Ask for one of 'scores', or choose one of 'methods'."
)


def check_score(target: Target, pointer: str, model: ModelEntry) -> None:
    """Refuse a score that the model does not give.

    Raises
    ------
    InvalidTarget
        There is no such score; `scores` lists those there are.
    """
    if _is_of_no_class(target, model) and getattr(target, "score", None) is not None:
        raise InvalidTarget("Classes alone have a 'score'; leave it out.", pointer=pointer)
    asked = _asked(target, model)
    known = [each.score for each in model.scores if asked and each.kind == asked[0]]
    if asked and known and asked[1] not in known:
        raise InvalidTarget(
            "The model gives no such number; choose one of 'scores'.",
            pointer=pointer,
            scores=[*known],
        )


def demand_suited(
    request: ExplanationRequest, methods: Mapping[str, MethodEntry], model: ModelEntry
) -> None:
    """Refuse a method that is not right of a score that is asked for beside it.

    Raises
    ------
    MissingAbility
        The score has no derivative, or is no weighted sum of the network's outputs, and the
        method needs that.
    """
    scores = {(each.kind, each.score): each for each in model.scores}
    asked = dict.fromkeys(_asked(each, model) for each in request.targets)
    wanted = [scores[each] for each in asked if each in scores]
    for place, choice in enumerate(request.methods):
        for score in wanted:
            reason = _unsuited(methods[choice.name], score)
            if reason is not None:
                raise MissingAbility(
                    f"The method cannot explain this score. {reason}",
                    pointer=f"/methods/{place}/name",
                    method=choice.name,
                    score=score.score,
                    scores=_scores(methods[choice.name], score.kind, model),
                    methods=_methods(score, methods, model),
                )


def _is_of_no_class(target: Target, model: ModelEntry) -> bool:
    """Tell whether a view or an instance is of something else than a class."""
    return isinstance(target, ViewTarget | InstanceTarget) and "class" not in model.target_kinds


def _asked(target: Target, model: ModelEntry) -> tuple[str, str] | None:
    """Return kind and score that a target asks a model for; `None` where there is no choice."""
    if _is_of_no_class(target, model):  # such models have one score, or none is told
        return next(((each.kind, each.score) for each in model.scores), None)
    return asked_of(target)


def _unsuited(method: MethodEntry, score: ScoreEntry) -> str | None:
    """Return why a method is not right of a score, if it is not."""
    if method.differentiates and not score.smooth:
        return CUSP
    return CURVED if method.linear and not score.linear else None


def _scores(method: MethodEntry, kind: str, model: ModelEntry) -> list[JsonValue]:
    """Return the scores of a kind that a method is right of."""
    of_kind = (each for each in model.scores if each.kind == kind)
    return [each.score for each in of_kind if _unsuited(method, each) is None]


def _methods(
    score: ScoreEntry, methods: Mapping[str, MethodEntry], model: ModelEntry
) -> list[JsonValue]:
    """Return the methods of the model that are right of a score."""
    served = (methods[name] for name in model.methods if name in methods)
    return [each.name for each in served if _unsuited(each, score) is None]
