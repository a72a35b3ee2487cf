"""Artifacts: the index, all of them at once, and each by its name."""

import secrets
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.auth import Reader
from api.bundle import related, zipped
from api.context import Here
from api.negotiation import choose, span
from api.problems import RangeNotSatisfiable, answers
from api.v1.wire import ArtifactsBody, artifact_body
from service.errors.jobs import ResultDamaged
from service.errors.requests import Gone, NotAcceptable, NotFound, NotReady

router = APIRouter(prefix="/v1/explanations/{explanation_id}/artifacts", tags=["artifacts"])

JSON: Final = "application/json"
ZIP: Final = "application/zip"
RELATED: Final = "multipart/related"
DICOM: Final = "application/dicom"
OFFERED: Final = (JSON, ZIP, RELATED)

BINARY: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "binary"}}
PROBLEMS: Final = (
    NotFound,
    NotReady,
    NotAcceptable,
    Gone,
    ResultDamaged,
)
INDEX: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The index, an archive of all files, or all DICOM objects.",
        "content": {
            JSON: {"schema": {"$ref": "#/components/schemas/ArtifactsBody"}},
            ZIP: BINARY,
            RELATED: BINARY,
        },
    },
    **answers(*PROBLEMS),
}
FILE: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The whole file.", "content": {"*/*": BINARY}},
    206: {"description": "The range that was asked for.", "content": {"*/*": BINARY}},
    304: {"description": "It is as the ETag in If-None-Match says."},
    **answers(*PROBLEMS, RangeNotSatisfiable),
}


@router.head(
    "",
    operation_id="headArtifacts",
    summary="The artifacts' headers",
    response_class=Response,
    responses=INDEX,
)
@router.get(
    "",
    operation_id="getArtifacts",
    summary="List or fetch all artifacts",
    response_class=Response,
    responses=INDEX,
)
def index(
    explanation_id: str,
    request: Request,
    here: Here,
    caller: Reader,
    *,
    accept: Annotated[str | None, Header()] = None,
) -> Response:
    """Give an ended job's files in the form that Accept names; without it the index."""
    results = here.explain.results
    job = here.explain.glance(caller, explanation_id)
    files = results.artifacts(job)
    wanted = files if request.method == "GET" else ()
    vary = {"Vary": "Accept"}
    match choose(accept, OFFERED):
        case "application/zip":
            vary["Content-Disposition"] = f'attachment; filename="{explanation_id}.zip"'
            archive = zipped(wanted, results.open(job, wanted))
            return StreamingResponse(archive, 200, vary, ZIP)
        case "multipart/related":
            boundary = secrets.token_hex(16)
            objects = [each for each in wanted if each.media_type == DICOM]
            kind = f'{RELATED}; type="{DICOM}"; boundary={boundary}'
            parts = related(objects, results.open(job, objects), boundary)
            return StreamingResponse(parts, 200, vary, kind)
        case _:
            base = here.url(f"/v1/explanations/{explanation_id}")
            body = ArtifactsBody(artifacts=tuple(artifact_body(each, base) for each in files))
            return JSONResponse(body.model_dump(mode="json"), 200, vary)


@router.head(
    "/{name}",
    operation_id="headArtifact",
    summary="An artifact's headers",
    response_class=Response,
    responses=FILE,
)
@router.get(
    "/{name}",
    operation_id="getArtifact",
    summary="Fetch an artifact",
    response_class=Response,
    responses=FILE,
)
async def show(
    explanation_id: str,
    name: str,
    request: Request,
    here: Here,
    caller: Reader,
    *,
    accept: Annotated[str | None, Header()] = None,
    range_: Annotated[str | None, Header(alias="range")] = None,
    if_range: Annotated[str | None, Header()] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Give one file, or a range of it; its ETag is its SHA-256."""
    results = here.explain.results
    job = await run_in_threadpool(here.explain.glance, caller, explanation_id)
    artifact = await run_in_threadpool(results.artifact, job, name)
    choose(accept, (artifact.media_type,))
    tag = f'"{artifact.sha256}"'
    headers = {
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Vary": "Accept",
        "Content-Disposition": f'attachment; filename="{artifact.name}"',
    }
    if if_none_match is not None and (tag in if_none_match or if_none_match.strip() == "*"):
        return Response(status_code=304, headers=headers)
    asked = span(range_, artifact.bytes) if if_range in {None, tag} else None
    start, end = asked or (0, artifact.bytes)
    headers["Content-Length"] = str(end - start)
    if asked is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{artifact.bytes}"
    status = 200 if asked is None else 206
    if request.method == "HEAD":
        return Response(None, status, headers, artifact.media_type)
    read = await run_in_threadpool(results.open, job, [artifact])
    chunks = await run_in_threadpool(read, artifact, start, end)
    return StreamingResponse(chunks, status, headers, artifact.media_type)
