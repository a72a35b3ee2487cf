"""Reading ``model.yaml``: strict YAML into a strict manifest, with errors that help."""

from collections.abc import Collection
from itertools import takewhile
from typing import Any, Final, NoReturn

import yaml
from pydantic import JsonValue, ValidationError
from typing_extensions import override

from service import wording
from service.domain.manifest import CONTRADICTION, Manifest
from service.domain.value import NAME, SHA256, SLUG, VERSION
from service.entries import contradictions
from service.errors.models import InvalidPackage
from service.wording import escaped, innermost, nearest, place_of, says, sentence

LARGEST = 256 * 1024
"""Bytes of the largest manifest."""

Defect = dict[str, JsonValue]
"""What is wrong with one field: its JSON ``pointer`` and a ``message``."""


class Refused(yaml.YAMLError):
    """YAML that is well formed and still not taken; told at the JSON pointer of its place."""

    def __init__(self, pointer: str, message: str) -> None:
        super().__init__(message)
        self.pointer = pointer
        self.message = message


class StrictLoader(yaml.SafeLoader):
    """Safe YAML without aliases (which can swell) and without repeated keys."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self._path: list[str] = []

    @override
    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        part = index.value if isinstance(index, yaml.ScalarNode) else index
        self._path.append("" if part is None else f"/{escaped(str(part))}")
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.events.AliasEvent):
            self._refuse("Aliases are not allowed (write the value out), and one is given", event)
        if event.anchor is not None:
            self._refuse("Anchors are not allowed (write values out), and one is given", event)
        node: yaml.Node | None = super().compose_node(parent, index)  # type: ignore[arg-type]
        if isinstance(node, yaml.MappingNode):
            self._demand_each_key_once(node)
        self._path.pop()
        return node

    def _demand_each_key_once(self, node: yaml.MappingNode) -> None:
        lines: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in lines:
                self._path.append(f"/{escaped(key.value)}")
                first = f"The key '{key.value}' of line {lines[key.value]}"
                self._refuse(f"{first} is given again", key)
            lines[key.value] = key.start_mark.line + 1

    def _refuse(self, why: str, at: Any) -> NoReturn:
        raise Refused("".join(self._path), why + _place(at.start_mark))


def read_manifest(data: bytes) -> Manifest:
    """Return the manifest that ``model.yaml`` holds.

    Raises
    ------
    InvalidPackage
        It is too large, no YAML, or not a manifest; the fact ``errors`` lists
        every defect as ``{pointer, message}``.
    """
    if len(data) > LARGEST:
        raise invalid([defect("", f"model.yaml may have {LARGEST} bytes at most.")])
    try:
        manifest = Manifest.model_validate(parsed(data))
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise invalid([_defect(each) for each in innermost(found)]) from None
    if wrong := [defect(*each) for each in contradictions(manifest)]:
        raise invalid(wrong)
    return manifest


def manifest_schema() -> dict[str, JsonValue]:
    """Return the JSON schema of ``model.yaml``."""
    return Manifest.model_json_schema()


def invalid(defects: list[Defect]) -> InvalidPackage:
    """Return the failure that names every defect of a package."""
    return InvalidPackage(
        "The model package is not valid; 'errors' says what to mend, field by field.",
        errors=[*defects],
    )


def defect(pointer: str, message: str) -> Defect:
    """Return one defect."""
    return {"pointer": pointer, "message": message}


def unfit(error: ValidationError, pointer: str, what: str, fields: Collection[str]) -> list[Defect]:
    """Return what is wrong with the parameters that lie at `pointer`, unknown names first.

    Parameters
    ----------
    what
        What has the parameters: ``step``.
    fields
        The names of all that it has.
    """
    found: dict[str, str] = {}
    every = innermost(error.errors(include_url=False, include_input=False))
    for each in sorted(every, key=lambda one: one["type"] != "extra_forbidden"):
        whole = place_of(each)
        place = list(takewhile(lambda part: "[" not in part, whole))  # not into kinds of a union
        message = sentence(each, MESSAGES, _unfit)
        if each["type"] == "extra_forbidden" and len(whole) == 1:
            known = f"expected are {', '.join(fields)}" if fields else "it has none"
            message = f"The {what} has no parameter '{whole[0]}'; {known}."
            message += nearest(whole[0], fields)
        elif each["type"] == "missing" and place != whole:
            message = "Another number of entries is expected."
        found.setdefault("".join([pointer, *(f"/{escaped(part)}" for part in place)]), message)
    return [defect(at, message) for at, message in found.items()]


def parsed(data: bytes) -> object:
    """Return what strict YAML holds.

    Raises
    ------
    InvalidPackage
        It is none; told with line and column.
    """
    try:
        return yaml.load(data, StrictLoader)  # noqa: S506 - it derives from SafeLoader
    except Refused as error:
        raise invalid([defect(error.pointer, error.message)]) from None
    except yaml.MarkedYAMLError as error:
        message = "model.yaml is not valid YAML" + _place(error.problem_mark)
        raise invalid([defect("", message)]) from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise invalid([defect("", "model.yaml is not YAML in UTF-8.")]) from None


def _place(mark: Any) -> str:
    """Return where in the text a mark stands, counted from 1."""
    return "." if mark is None else f" at line {mark.line + 1}, column {mark.column + 1}."


def _defect(error: Any) -> Defect:
    pointer = "".join(f"/{escaped(part)}" for part in place_of(error))
    if error["type"] == CONTRADICTION:
        pointer += error["ctx"]["pointer"]
    return defect(pointer, sentence(error, MESSAGES, _unfit))


_unfit = says("This value does not fit here; see the manifest's schema.")
_mapping = says("Expected a mapping of fields.")

FORMS: Final = {
    VERSION: "Expected three numbers in quotes, such as '1.0.0', without a suffix.",
    SLUG: "Expected small letters, digits, '.', '_' and '-', 64 at most, such as 'chest-densenet'.",
    NAME: "Expected small letters, digits and '_', a letter first, such as 'lung_mass'.",
    SHA256: "Expected a SHA-256 in 64 hexadecimal digits; `whylight models seal` fills it in.",
}
"""What the forms of our texts mean."""

MESSAGES = wording.MESSAGES | {
    CONTRADICTION: says("{message}"),
    "missing": says("This field is required; add it."),
    "extra_forbidden": says("This field is unknown; remove it or mend its spelling."),
    "string_pattern_mismatch": lambda context: FORMS.get(
        context["pattern"], f"Expected text of the form {context['pattern']}"
    ),
    "string_type": says("Expected text; put quotes around it if it looks like a number."),
    "dict_type": _mapping,
    "model_type": _mapping,
    "model_attributes_type": _mapping,
}
