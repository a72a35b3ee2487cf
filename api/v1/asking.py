"""How a request for an explanation is read from a body."""

from collections.abc import Iterator
from typing import Any

from fastapi import Request
from pydantic import JsonValue, ValidationError
from pydantic_core import ErrorDetails
from starlette.concurrency import run_in_threadpool

from api.context import Gateway
from api.intake.base import Room, parse_json, read_whole, receive
from api.problems import invalid, places
from service.domain.ids import new_id
from service.domain.request import ExplanationRequest
from service.errors.requests import InvalidRequest, InvalidTarget
from service.keys import Caller
from service.studies import Part
from service.wording import innermost

STUDY = "study"
REQUEST = "/request"
TARGETS = "targets"


async def read_request(request: Request, here: Gateway, caller: Caller) -> ExplanationRequest:
    """Return the request in a JSON body.

    Raises
    ------
    TooLarge, MalformedBody, InvalidRequest
        The body is over its limit, no JSON, or not a request.
    InvalidTarget, UnknownModel, ModelUnavailable, ModelSilent, NoWorker
        A target is none that the model has; or there is no model that could have it.
    """
    document = parse_json(await read_whole(request, here.settings.limits.json_bytes))
    return await run_in_threadpool(_validated, document, "", here, caller)


async def read_form(
    request: Request, here: Gateway, room: Room, caller: Caller
) -> tuple[dict[str, JsonValue], Iterator[Part]]:
    """Return the request in a form's part ``request``, and the form's objects.

    The request is checked before the first object is looked at; its study is
    the one that the form brings.

    Raises
    ------
    WhylightError
        Those of `receive`; `InvalidRequest` when the request is missing or not valid; and those
        of `read_request` that are of targets.
    """
    received = await receive(request, room, here.settings.limits)
    fields = received.request
    if not isinstance(fields, dict):
        raise InvalidRequest(
            "Send the request as a part named 'request', a JSON object.", pointer=REQUEST
        )
    if STUDY in fields:
        raise InvalidRequest(
            "The study is the one in this form; leave 'study' out.", pointer=f"{REQUEST}/{STUDY}"
        )
    whole = {**fields, STUDY: new_id("st")}
    await run_in_threadpool(_validated, whole, REQUEST, here, caller)
    return fields, received.parts


def _validated(
    document: JsonValue, prefix: str, here: Gateway, caller: Caller
) -> ExplanationRequest:
    """Return a document as a request; the refusal tells every field that does not hold."""
    try:
        return ExplanationRequest.model_validate(document)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
    if isinstance(document, dict) and (wrong := _of_targets(found)):
        kinds = here.explain.submissions.target_kinds(caller, str(document["model"]))
        raise _no_such_target(found, wrong, document, prefix, kinds)
    raise invalid(found, prefix)


def _of_targets(found: list[ErrorDetails]) -> set[int]:
    """Return the numbers of wrong targets; none where nobody can tell which model is meant."""
    if any(each["loc"][:1] == ("model",) for each in found):
        return set()
    of_one = (each["loc"][1] for each in found if each["loc"][:1] == (TARGETS,) != each["loc"])
    return {place for place in of_one if isinstance(place, int)}


def _no_such_target(
    found: list[ErrorDetails],
    wrong: set[int],
    document: dict[str, Any],
    prefix: str,
    kinds: tuple[str, ...],
) -> InvalidTarget:
    """Return what is wrong with targets, and all else; of a kind that the model has not, that."""
    strange = {place for place in wrong if _kind(document[TARGETS][place]) not in kinds}
    expected = ", ".join(f"'{each}'" for each in kinds)
    detail = f"Expected one of the kinds {expected}."
    told: list[JsonValue] = [
        {"pointer": f"{prefix}/{TARGETS}/{place}/kind", "detail": detail}
        for place in sorted(strange)
    ]
    within = {(TARGETS, place) for place in strange}
    others = [each for each in innermost(found) if each["loc"][:2] not in within]
    return InvalidTarget(
        "A target is none that this model has: 'errors' says which field, 'kinds' which kinds of"
        " target the model has.",
        errors=[*told, *places(others, prefix)],
        kinds=[*kinds],
    )


def _kind(target: JsonValue) -> JsonValue:
    """Return what a target says that it is; one that does not say is a class."""
    return target.get("kind", "class") if isinstance(target, dict) else "class"
