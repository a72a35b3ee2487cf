"""The table of settings for the documentation: ``python -m tests.support.settings_table``."""

from collections.abc import Iterator
from datetime import timedelta

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from service.command.environment import variable
from service.settings import Settings


def table() -> str:
    """Return every setting as a Markdown table, in the order of the code."""
    head = ["| variable | default | what it does |", "|---|---|---|"]
    return "\n".join([*head, *_rows(Settings, ())]) + "\n"


def _rows(model: type[BaseModel], above: tuple[str, ...]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        path = (*above, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _rows(field.annotation, path)
        else:
            yield f"| `{variable(path)}` | {_default(field)} | {field.description or ''} |"


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None:
        return "none"
    if isinstance(value, timedelta):
        return f"`{_iso(value)}`"
    return f"`{value}`"


def _iso(value: timedelta) -> str:
    """Return a duration as ISO 8601, the form that the variable takes."""
    seconds = value.total_seconds()
    if seconds % 86400 == 0:
        return f"P{seconds / 86400:.0f}D"
    if seconds % 3600 == 0:
        return f"PT{seconds / 3600:.0f}H"
    if seconds % 60 == 0:
        return f"PT{seconds / 60:.0f}M"
    return f"PT{seconds:g}S"


if __name__ == "__main__":
    print(table())  # noqa: T201 - this program prints
