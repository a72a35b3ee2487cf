"""Parameters of methods, held against their schemas, the model and each other."""

import json
import math
from collections.abc import Iterator
from typing import Any, Final

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError
from pydantic import JsonValue

from service.domain.catalog import MethodEntry, ModelEntry
from service.domain.request import MethodChoice
from service.errors.requests import InvalidParameter, MissingAbility, UnknownMethod
from service.wording import escaped

LAYER = "layer"
"""Parameter by which methods name their target layer."""

AT_MOST = "x-at-most"

UNDECLARED = (
    "The model offers no such target layer. A layer of the network can be named once the model's"
    " package lists it under 'explain.layers' in its model.yaml."
)

UNDER_IMAGE = "x-under-image"
"""Keywords of ours in a method's schema; `MethodEntry.parameters` says what they mean."""

STRICT: Final = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)
"""Of JSON schemas; 32.0 is no integer, as in every other field of a request."""

WORDS = {
    "enum": "Must be one of {}.",
    "const": "Must be {}.",
    "minimum": "Must be at least {}.",
    "exclusiveMinimum": "Must be over {}.",
    "maximum": "Must be at most {}.",
    "exclusiveMaximum": "Must be under {}.",
    "multipleOf": "Must be a multiple of {}.",
    "minItems": "Entries expected: at least {}.",
    "maxItems": "Entries expected: at most {}.",
    "minLength": "Characters expected: at least {}.",
    "maxLength": "Characters expected: at most {}.",
    "pattern": "Must be text of the form {}.",
}
"""What a JSON schema's keyword asks for, whose value is filled in."""


def resolved_parameters(choice: MethodChoice, entry: MethodEntry) -> dict[str, JsonValue]:
    """Return a method's parameters with the defaults of those that were not given."""
    schemas = _properties(entry.parameters)
    defaults = {name: each["default"] for name, each in schemas.items() if "default" in each}
    return {**defaults, **choice.parameters}


def check_method(
    choice: MethodChoice, pointer: str, methods: dict[str, MethodEntry], model: ModelEntry
) -> None:
    """Refuse a method that is unknown, not applicable, or given wrong parameters."""
    entry = methods.get(choice.name)
    if entry is None:
        raise UnknownMethod(
            "There is no such method; choose one of 'methods'.",
            pointer=f"{pointer}/name",
            methods=[*sorted(methods)],
        )
    if choice.name not in model.methods:
        reason = model.refused.get(choice.name, "The model was not probed for this method.")
        raise MissingAbility(
            f"The model cannot serve this method. {reason}",
            pointer=f"{pointer}/name",
            method=choice.name,
            methods=[*model.methods],
        )
    _check_parameters(choice, f"{pointer}/parameters", entry, model)
    _check_layer(choice, f"{pointer}/parameters/{LAYER}", model)


def _check_layer(choice: MethodChoice, pointer: str, model: ModelEntry) -> None:
    """Refuse a target layer that no worker found in the model."""
    asked = choice.parameters.get(LAYER)
    layers = [each.name for each in model.layers]
    if asked is None or asked in layers:
        return
    reason = model.refused_layers.get(str(asked))
    fault = UNDECLARED if reason is None else f"The target layer cannot be used. {reason}"
    raise InvalidParameter(
        f"{fault} Name one of 'layers', or none for the model's default.",
        pointer=pointer,
        method=choice.name,
        layers=[*layers[:100]],
        **({} if reason is None else {"reason": reason}),
    )


def _check_parameters(
    choice: MethodChoice, pointer: str, entry: MethodEntry, model: ModelEntry
) -> None:
    """Hold parameters against their schema, the model and each other; all breaches at once."""
    schema = STRICT(entry.parameters)
    told = [
        each for error in schema.iter_errors(dict(choice.parameters)) for each in _breach(error)
    ] or [*_misfits(choice, entry, model)]
    breaches: list[JsonValue] = [
        {"pointer": f"{pointer}{place}", "detail": text} for place, text in told
    ]
    if breaches:
        raise InvalidParameter(
            "A parameter is unknown, off its schema or does not fit; 'errors' says which.",
            method=entry.name,
            parameters=[*sorted(_properties(entry.parameters))],
            errors=breaches,
        )


def _misfits(
    choice: MethodChoice, entry: MethodEntry, model: ModelEntry
) -> Iterator[tuple[str, str]]:
    """Tell parameters that do not fit another one, or the model's input: place and what is off."""
    values = resolved_parameters(choice, entry)
    longest = max(model.shape[1:], default=0)
    for name, schema in _properties(entry.parameters).items():
        own, other = _numbers(values.get(name)), schema.get(AT_MOST, "")
        if max(own, default=0) > min(_numbers(values.get(other)), default=math.inf):
            culprit = name if name in choice.parameters else other
            yield f"/{culprit}", f"'{name}' must be at most '{other}'."
        if longest and UNDER_IMAGE in schema and max(own, default=0) >= longest:
            yield f"/{name}", f"Must be under {longest}, the longest edge of the model's input."


def _numbers(value: JsonValue) -> list[float]:
    """Return a number, or those of a list; nothing of anything else."""
    listed = value if isinstance(value, list) else [value]
    return [each for each in listed if isinstance(each, int | float)]


def _breach(error: ValidationError) -> Iterator[tuple[str, str]]:
    """Tell a breach of a schema in our own words: place and what is allowed."""
    place = "".join(f"/{escaped(str(part))}" for part in error.absolute_path)
    allowed: Any = error.validator_value
    match error.validator:
        case "additionalProperties":
            given: Any = error.instance
            for key in sorted(set(given) - set(_properties(error.schema))):
                yield f"{place}/{escaped(key)}", "There is no such parameter."
        case "required":
            yield place, "A required parameter is missing."
        case "type":
            yield place, f"Must be of type {allowed}."
        case str() as rule if rule in WORDS:
            yield place, WORDS[rule].format(json.dumps(allowed))
        case "anyOf":
            yield from _branch_breach(error, place)
        case _:
            yield place, f"Breaks '{error.validator}' of the method's schema; see /v1/methods."


def _branch_breach(error: ValidationError, place: str) -> Iterator[tuple[str, str]]:
    """Tell a breach of a union by the branch whose type was met, else by the types there are."""
    context = error.context or []
    depth = len(error.absolute_path)
    mistyped = {
        each.schema_path[0]
        for each in context
        if each.validator == "type" and len(each.absolute_path) == depth
    }
    met = [each for each in context if each.schema_path[0] not in mistyped]
    for each in met:
        yield from _breach(each)
    if not met:
        branches: Any = error.validator_value
        types = [str(each["type"]) for each in branches if "type" in each]
        yield place, f"Must be of type {' or '.join(types)}."


def _properties(schema: object) -> dict[str, Any]:
    """Return the schemas of an object's properties."""
    found = schema.get("properties") if isinstance(schema, dict) else None
    return found if isinstance(found, dict) else {}
