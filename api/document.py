"""The OpenAPI document, completed; and a page that shows it to those who have a key."""

import base64
import hashlib
from importlib.resources import files
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
    " problem document (RFC 9457); its `code` is stable, and `x-problems` lists them all."
)
SHORTHANDS: Final = {
    "methods": {"type": "string", "description": "A method's name alone: default parameters."},
    "targets": {
        "anyOf": [{"type": "string"}, {"type": "integer"}],
        "description": "A class key or index alone.",
    },
}
"""What an entry of these lists may be, instead of an object."""

PAGE: Final = (files("api") / "docs.html").read_text(encoding="utf-8")
"""Holds nothing of the service: it asks for a key, and fetches the document with it."""


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
    document["x-problems"] = {code: _problem(code) for code in catalog()}
    return document


def page() -> HTMLResponse:
    """Return the page; its one script is known to the browser by its digest."""
    script = PAGE.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}';"
        " connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(PAGE, headers={"Content-Security-Policy": policy})


def _problem(code: str) -> dict[str, str | int]:
    kind = catalog()[code]
    return {
        "type": f"{URN}{code}",
        "status": status_of(kind),
        "title": kind.title,
        "meaning": " ".join((kind.__doc__ or "").split()),
    }
