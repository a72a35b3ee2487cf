"""The OpenAPI document, completed; and a page that shows it without any script."""

from html import escape
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from pydantic.json_schema import models_json_schema

from api.problems import URN, Problem, catalog, status_of
from api.v1.wire import ArtifactsBody, EventBody

REF: Final = "#/components/schemas/{model}"
DESCRIPTION: Final = (
    "Explains what imaging models say: DICOM in, checked attribution maps out. Every failure is a"
    " problem document (RFC 9457); its `code` is stable, and /docs#problems lists them all."
)
SHORTHANDS: Final = {
    "methods": {"type": "string", "description": "A method's name alone: default parameters."},
    "targets": {
        "anyOf": [{"type": "string"}, {"type": "integer"}],
        "description": "A class key or index alone.",
    },
}
"""What an entry of these lists may be, instead of an object."""

STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code{background:#eee;padding:0 .2em}table{border-collapse:collapse}"
    "td,th{text-align:left;vertical-align:top;padding:.3em .8em;border-bottom:1px solid #ccc}"
)


def openapi(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document with the schemas that only problems and streams use."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=DESCRIPTION,
        routes=app.routes,
        separate_input_output_schemas=False,
        tags=app.openapi_tags,
    )
    schemas: dict[str, Any] = document["components"]["schemas"]
    _, extra = models_json_schema(
        [(each, "serialization") for each in (Problem, ArtifactsBody, EventBody)], ref_template=REF
    )
    for name, schema in extra["$defs"].items():
        schemas.setdefault(name, schema)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    properties = schemas["ExplanationRequest"]["properties"]
    for name, shorthand in SHORTHANDS.items():
        properties[name]["items"] = {"anyOf": [properties[name]["items"], shorthand]}
    return document


def page(document: dict[str, Any]) -> HTMLResponse:
    """Return the operations and the problems as one page."""
    operations = "".join(
        _operation(verb, path, told)
        for path, verbs in document["paths"].items()
        for verb, told in verbs.items()
    )
    problems = "".join(_problem(code) for code in catalog())
    return HTMLResponse(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Whylight</title>"
        f"<style>{STYLE}</style><h1>Whylight {escape(document['info']['version'])}</h1>"
        f"<p>{escape(DESCRIPTION)}</p><p>The whole description: "
        f"<a href=/openapi.json>/openapi.json</a> (OpenAPI 3.1).</p>"
        f"<h2 id=operations>Operations</h2><table>{operations}</table>"
        f"<h2 id=problems>Problems</h2><table><tr><th>code<th>status<th>meaning{problems}</table>"
    )


def _operation(verb: str, path: str, told: dict[str, Any]) -> str:
    statuses = ", ".join(told["responses"])
    return (
        f"<tr id={escape(told['operationId'])}><td><code>{verb.upper()} {escape(path)}</code>"
        f"<td><b>{escape(told['summary'])}.</b> {escape(told.get('description', ''))}"
        f"<br><small>answers {statuses}</small>"
    )


def _problem(code: str) -> str:
    kind = catalog()[code]
    meaning = " ".join((kind.__doc__ or "").split())
    return (
        f"<tr id={code}><td><code>{URN}{code}</code><td>{status_of(kind)}"
        f"<td><b>{escape(kind.title)}.</b> {escape(meaning)}"
    )
