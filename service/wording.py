"""What is wrong with a document, in our words: pydantic's own are for programmers."""

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final

from service.domain.value import TAG

Says = Callable[[Mapping[str, Any]], str]
"""Makes a sentence of an error's context: the schema's numbers and names, never the input."""


def innermost(errors: Iterable[Any]) -> list[Any]:
    """Return the errors that no other explains: a bad entry also leaves its list short."""
    every = list(errors)
    outer = {each["loc"][:length] for each in every for length in range(1, len(each["loc"]))}
    return [each for each in every if each["loc"] not in outer]


def place_of(error: Any) -> list[str]:
    """Return the tokens of an error's place, without the kinds of a union on the way."""
    return [str(part) for part in error["loc"] if not str(part).startswith(TAG)]


def escaped(part: str) -> str:
    """Return a reference token of a JSON Pointer (RFC 6901, section 3)."""
    return part.replace("~", "~0").replace("/", "~1")


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a sentence with those of `names` that resemble `name`, or nothing where none do."""
    found = get_close_matches(name, list(names), n=3)
    return f" The nearest names are: {', '.join(found)}." if found else ""


def with_lists(text: str, facts: Mapping[str, object]) -> str:
    """Return a text with the lists that it names, such as 'classes': where no facts are shown."""
    lists = (
        f"'{name}': {', '.join(map(str, fact))}."
        for name, fact in facts.items()
        if isinstance(fact, list) and f"'{name}'" in text
    )
    return " ".join([text, *lists])


def sentence(error: Any, says: Mapping[str, Says], otherwise: Says) -> str:
    """Return what one of pydantic's errors means."""
    return says.get(error["type"], otherwise)(error.get("ctx", {}))


def says(text: str) -> Says:
    """Return what fills `text` from an error's context."""
    return lambda context: text.format(**context)


_whole = says("Expected a whole number.")
_number = says("Expected a number.")
_time = says("Expected date and time with a time zone (RFC 3339).")

MESSAGES: Final[dict[str, Says]] = {
    "missing": says("This field is required."),
    "extra_forbidden": says("There is no such field."),
    "literal_error": says("Expected {expected}."),
    "enum": says("Expected {expected}."),
    "string_type": says("Expected text."),
    "string_pattern_mismatch": says("Expected text of the form {pattern}"),
    "string_too_short": says("Characters expected: at least {min_length}."),
    "string_too_long": says("Characters expected: at most {max_length}."),
    "bool_type": says("Expected true or false."),
    "bool_parsing": says("Expected true or false."),
    "int_type": _whole,
    "int_parsing": _whole,
    "int_from_float": _whole,
    "float_type": _number,
    "float_parsing": _number,
    "finite_number": says("Expected a finite number."),
    "datetime_type": _time,
    "datetime_parsing": _time,
    "datetime_from_date_parsing": _time,
    "timezone_aware": _time,
    "dict_type": says("Expected an object."),
    "model_type": says("Expected an object."),
    "model_attributes_type": says("Expected an object."),
    "tuple_type": says("Expected a list."),
    "list_type": says("Expected a list."),
    "greater_than": says("Expected a number above {gt}."),
    "greater_than_equal": says("Expected a number of at least {ge}."),
    "less_than": says("Expected a number below {lt}."),
    "less_than_equal": says("Expected a number of at most {le}."),
    "too_short": says("Entries expected: at least {min_length}."),
    "too_long": says("Entries expected: at most {max_length}."),
    "union_tag_invalid": lambda context: (
        f"Expected one of the kinds {context['expected_tags'].replace(TAG, '')}."
    ),
    "value_error": says("{error}"),  # raised by our own rules, in our words
}
