"""The pages of the methods for the documentation: ``python -m tests.support.method_pages``.

Everything on them is read off the code: docstrings, parameters and what the
catalog publishes. Pictures are drawn by ``python -m tests.support.method_pictures``.
"""

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from service.domain.catalog import Sense
from workers.methods.base import METHODS, Method, ModelFacts
from workers.passes import Cost

FOLDER: Final = Path(__file__).parents[2] / "docs" / "methods"
PICTURES: Final = FOLDER / "images"
SHAPE: Final = (1, 128, 128)
"""The image that rows are counted for: the demo model's input."""

FACTS: Final = ModelFacts(layers=("layer",), linear_heads=("layer",))

OF_ATTENTION: Final = ("attention_rollout", "gradient_attention")
"""Methods that the demo model cannot serve: their pictures are of `vit-phantom`."""

BOUNDS: Final = (
    ("minimum", "from {}"),
    ("exclusiveMinimum", "above {}"),
    ("maximum", "to {}"),
    ("exclusiveMaximum", "below {}"),
    ("multipleOf", "in steps of {}"),
    ("maxLength", "of at most {} characters"),
)
"""Words of a JSON schema for limits, and ours."""

SIGNS: Final[Mapping[Sense, str]] = {
    "evidence": "Values above zero speak for the target, those below zero against it",
    "sensitivity": "Above zero, a higher pixel value there raises the score; below zero it lowers "
    "the score. Neither says by itself what speaks for or against the target",
    "guided": "The sign of the altered gradient; it tells neither for nor against the target",
}

INDEX: Final = """\
# Methods

What can be asked for under `methods` of [an explanation](../api.md), one page for each method.
A method costs rows: images that go through the model, forward only or forward and back for a
gradient. All targets of a job share them. The column counts the rows of one image of 128 x 128
pixels with default parameters.

Which of them a model can be asked for depends on what its runtime can serve: the catalog says so
for each model, and [a table](../models/kinds.md) for each kind. How far a map may be believed is
told in [its own chapter](../trust.md).

Methods that look into a layer make a map of the layer's cells. These are drawn side by side over
what the model was given, as tiles. What a cell answers to may be centered about half a tile away,
and is not known better than that: [decision 30](../adr/0030-cells-stay-tiles.md) has what was
measured. The legend of a picture tells how much of the image one cell covers.

When the time that an operator allows a job is up, a method whose column says so returns a map of
what it has by then, if that is enough; the map is marked as partial, and figures beside it tell how
much was done. The page of each tells what that map is, how much is enough, and how like the whole
map it is then. Of several views, images of a bag or boxes in different windows there is a map of
each if there is enough of each, and else of none. The other methods are done in one or two passes,
and before their end there is nothing to show.

{table}
These pages are written by `python -m tests.support.method_pages` and the pictures on them by
`python -m tests.support.method_pictures`: the demo model's answer to "why a nodule?" on the
bundled study, orange for the finding and blue against it, each scaled to itself. The two methods of
attention show why `vit-phantom`, a small transformer, finds a stone (the bright square) beside a
cyst. They show what a method draws, and not which one is right.
"""

PAGE: Final = """\
# {title}

`{name}`: {summary}

{picture}{body}

| | |
|---|---|
| Cost | {cost} |
| By default | {rows} on an image of 128 x 128 pixels |
| Needs | {needs} |
| When time is up | {late} |
| Sign | {sign} |
| Paper | {paper} |

## Parameters

{parameters}
## Weaknesses

{weaknesses}

## References

{references}

[All methods](index.md)
"""


def pages() -> dict[str, str]:
    """Return each page's text by its file's name."""
    texts = {f"{name}.md": page(method) for name, method in ours().items()}
    return {"index.md": INDEX.format(table=_index()), **texts}


def ours() -> dict[str, type[Method]]:
    """Return the methods of this repository by name, without those of other packages."""
    return {
        name: method
        for name, method in METHODS.items()
        if method.__module__.startswith("workers.methods.")
    }


def page(method: type[Method]) -> str:
    """Return the page of one method."""
    sections = _sections(inspect.getdoc(method) or "")
    summary, _, body = sections[""].partition("\n\n")
    finding = "a stone" if method.name in OF_ATTENTION else "a nodule"
    return PAGE.format(
        name=method.name,
        title=method.title,
        summary=_inline(summary),
        picture=f"![{method.title} of {finding}](images/{method.name}.png)\n\n",
        body=_markdown(body),
        cost=method.cost,
        rows=_rows(_cost(method)),
        needs=", ".join(f"`{need}`" for need in sorted(method.needs)),
        late=_late(method),
        sign=_sign(method),
        paper=method.paper,
        parameters=_parameters(method.model_json_schema()),
        weaknesses=method.weaknesses,
        references=_markdown(sections.get("References", "")),
    )


def _index() -> str:
    """Return the table of all methods."""
    head = ["| method | in a line | needs | rows | when time is up |", "|---|---|---|---|---|"]
    return "\n".join([*head, *map(_line, ours().values())]) + "\n"


def _line(method: type[Method]) -> str:
    summary = (inspect.getdoc(method) or "").partition("\n\n")[0]
    needs = ", ".join(f"`{need}`" for need in sorted(method.needs))
    link = f"[{method.title}]({method.name}.md)"
    cells = (link, _inline(summary), needs, _rows(_cost(method)), _late(method))
    return f"| {' | '.join(cells)} |"


def _late(method: type[Method]) -> str:
    return "partial map" if method.partial_map else "no map"


def _sign(method: type[Method]) -> str:
    if method.signed:
        return SIGNS[method.sense]
    return "No sign: values tell how much, not for or against"


def _cost(method: type[Method]) -> Cost:
    return method().settled(FACTS).estimate(SHAPE, 1)


def _rows(cost: Cost) -> str:
    """Say rows in words, such as ``32 gradient and 2 forward``."""
    kinds = [(cost.gradient_rows, "gradient"), (cost.forward_rows, "forward")]
    said = " and ".join(f"{count} {kind}" for count, kind in kinds if count)
    rows = "row" if cost.rows == 1 else "rows"
    return f"{said} {rows}" if cost.exact else f"at most {said} {rows}"


def _parameters(schema: Mapping[str, Any]) -> str:
    """Return the table of parameters."""
    fields = schema.get("properties", {})
    if not fields:
        return "None.\n"
    head = ["| parameter | values | default | meaning |", "|---|---|---|---|"]
    lines = [
        f"| `{name}` | {_values(field)} | {_default(field)} | {field.get('description', '')} |"
        for name, field in fields.items()
    ]
    return "\n".join([*head, *lines]) + "\n"


def _default(field: Mapping[str, Any]) -> str:
    default = field.get("default")
    return "-" if default is None else f"`{default}`"


def _values(schema: Mapping[str, Any]) -> str:
    """Say in words what a JSON schema allows."""
    if "anyOf" in schema:
        kinds = [each for each in schema["anyOf"] if each.get("type") != "null"]
        return " or ".join(map(_values, kinds))
    if "enum" in schema:
        return " or ".join(f"`{each}`" for each in schema["enum"])
    if schema["type"] == "array":
        return f"{schema['minItems']} to {schema['maxItems']} of: {_values(schema['items'])}"
    bounds = [text.format(_number(schema[key])) for key, text in BOUNDS if key in schema]
    return " ".join([schema["type"], *bounds])


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _sections(doc: str) -> dict[str, str]:
    """Return a numpy-style docstring's sections by heading; the text above is under ``""``."""
    parts = re.split(r"^(\w+)\n-{3,}$", doc, flags=re.MULTILINE)
    texts = [part.strip() for part in parts]
    return {"": texts[0], **dict(zip(texts[1::2], texts[2::2], strict=True))}


def _markdown(text: str) -> str:
    """Return docstring text with its formulas as Markdown has them."""
    return "\n\n".join(map(_paragraph, text.split("\n\n")))


def _paragraph(text: str) -> str:
    directive = ".. math::"
    if not text.startswith(directive):
        return _inline(text)
    lines = [line.strip() for line in text.removeprefix(directive).strip().splitlines()]
    return "\n".join(["```math", *lines, "```"])


def _inline(text: str) -> str:
    """Turn inline formulas and code into Markdown's."""
    text = re.sub(r":math:`([^`]+)`", r"$`\1`$", text)
    return re.sub(r"``([^`]+)``", r"`\1`", text)


def main() -> None:
    """Write all pages, and remove those of methods that are gone."""
    FOLDER.mkdir(exist_ok=True)
    texts = pages()
    for path in FOLDER.glob("*.md"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
