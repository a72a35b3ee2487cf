"""How a request for an explanation is read from a body."""

from collections.abc import Iterator

from fastapi import Request
from pydantic import JsonValue, ValidationError

from api.context import Gateway
from api.intake.base import Room, parse_json, read_whole, receive
from api.problems import invalid
from service.domain.ids import new_id
from service.domain.request import ExplanationRequest
from service.errors.requests import InvalidRequest
from service.studies import Part

STUDY = "study"
REQUEST = "/request"


async def read_request(request: Request, here: Gateway) -> ExplanationRequest:
    """Return the request in a JSON body.

    Raises
    ------
    TooLarge, MalformedBody, InvalidRequest
        The body is over its limit, no JSON, or not a request.
    """
    document = parse_json(await read_whole(request, here.settings.limits.json_bytes))
    return _validated(document, "")


async def read_form(
    request: Request, here: Gateway, room: Room
) -> tuple[dict[str, JsonValue], Iterator[Part]]:
    """Return the request in a form's part ``request``, and the form's objects.

    The request is checked before the first object is looked at; its study is
    the one that the form brings.

    Raises
    ------
    WhylightError
        Those of `receive`; `InvalidRequest` when the request is missing or not valid.
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
    _validated({**fields, STUDY: new_id("st")}, REQUEST)
    return fields, received.parts


def _validated(document: JsonValue, prefix: str) -> ExplanationRequest:
    """Return a document as a request; `InvalidRequest` tells every field that does not hold."""
    try:
        return ExplanationRequest.model_validate(document)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False), prefix) from None
