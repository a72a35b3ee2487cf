"""The ``WHYLIGHT_*`` variables as the command sees them."""

import os
from collections.abc import Iterator

from pydantic import BaseModel, ValidationError

from service.command.failure import CommandFailure
from service.settings import PREFIX, Settings, faults, variable

QUEUE_URL = "WHYLIGHT_QUEUE__URL"
STORE_URL = "WHYLIGHT_STORE__URL"
GATEWAY_URL = "WHYLIGHT_URL"
API_KEY = "WHYLIGHT_API_KEY"
CORPUS = "WHYLIGHT_CORPUS"
OTHERS = frozenset({GATEWAY_URL, API_KEY, CORPUS})
"""Variables that are no settings: the command's own, and the tests'."""


def read_settings() -> Settings:
    """Return the environment's settings.

    Raises
    ------
    CommandFailure
        A variable is not valid; it is told by its name, never by its value.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise CommandFailure("The settings are not valid.", "\n".join(faults(error))) from None


def known() -> frozenset[str]:
    """Return every variable that is read."""
    return frozenset(variable(each) for each in _fields(Settings, ())) | OTHERS


def misspelt() -> list[str]:
    """Return the variables that look like ours and are read by nobody."""
    ours = (name for name in os.environ if name.startswith(PREFIX))
    return sorted(name for name in ours if name.upper() not in known())


def forget() -> None:
    """Drop every variable of ours from this process, and so from its children."""
    for name in [each for each in os.environ if each.startswith(PREFIX)]:
        del os.environ[name]


def _fields(model: type[BaseModel], above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the path of each field that is a value, and of each group."""
    for name, field in model.model_fields.items():
        yield (*above, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _fields(field.annotation, (*above, name))
