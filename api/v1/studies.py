"""Studies: taken in, listed, told of, removed."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth import StudyReader, StudyWriter
from api.context import Here
from api.intake.base import receive
from api.problems import answers
from api.v1.wire import Receipt, StudiesBody, StudyBody
from service.errors.jobs import OutOfStorage
from service.errors.requests import (
    ArchiveTooLarge,
    Conflict,
    InvalidRequest,
    MalformedBody,
    NotFound,
    TooLarge,
    UnsafeArchive,
    UnsupportedMediaType,
)
from service.errors.studies import (
    AbsurdDimensions,
    ContradictoryObjects,
    NoPixelData,
    NotDicom,
    NothingUsable,
    SeveralPatients,
    SeveralStudies,
    StudyContradicted,
    TruncatedDicom,
    UnsupportedImage,
    UnsupportedTransferSyntax,
)

router = APIRouter(prefix="/v1/studies", tags=["studies"])

BINARY: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "binary"}}
BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "One DICOM object, a zip archive of some, a form with files, or objects as"
        ' STOW-RS has them (`multipart/related; type="application/dicom"`).',
        "content": {
            "application/dicom": BINARY,
            "application/zip": BINARY,
            "multipart/related": BINARY,
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "array", "items": BINARY["schema"]}},
                }
            },
        },
    }
}

INTAKE_PROBLEMS: Final = (
    MalformedBody,
    NotDicom,
    TruncatedDicom,
    NoPixelData,
    AbsurdDimensions,
    UnsupportedTransferSyntax,
    UnsupportedImage,
    UnsupportedMediaType,
    NothingUsable,
    SeveralStudies,
    SeveralPatients,
    ContradictoryObjects,
    StudyContradicted,
    UnsafeArchive,
    TooLarge,
    ArchiveTooLarge,
    OutOfStorage,
)
"""What can be wrong with an upload."""


@router.post(
    "",
    operation_id="createStudy",
    summary="Take a study in",
    status_code=201,
    responses=answers(*INTAKE_PROBLEMS),
    openapi_extra=BODY,
)
async def create(
    request: Request, response: Response, here: Here, caller: StudyWriter
) -> StudyBody:
    """Keep the images of an upload; objects that are none are skipped, each with its reason."""
    with here.scratch.room() as room:
        received = await receive(request, room, here.settings.limits)
        if received.request is not None:
            raise InvalidRequest(
                "A part 'request' belongs to POST /v1/explanations, not here.", pointer="/request"
            )
        study = await run_in_threadpool(here.explain.submissions.take_in, caller, received.parts)
    response.headers["Location"] = here.url(f"/v1/studies/{study.id}")
    return StudyBody.of(study)


@router.get(
    "", operation_id="listStudies", summary="List studies, newest first", responses=answers()
)
def index(
    here: Here,
    caller: StudyReader,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> StudiesBody:
    """List the tenant's studies, newest first."""
    page = here.explain.studies.list(caller.tenant, limit=limit, cursor=cursor)
    return StudiesBody(
        studies=tuple(StudyBody.of(each) for each in page.studies), cursor=page.cursor
    )


@router.get(
    "/{study_id}",
    operation_id="getStudy",
    summary="Tell of a study",
    responses=answers(NotFound),
)
def show(study_id: str, here: Here, caller: StudyReader) -> StudyBody:
    """Tell what a study's images are; nothing in it names a patient."""
    return StudyBody.of(here.explain.studies.get(caller.tenant, study_id))


@router.delete(
    "/{study_id}",
    operation_id="deleteStudy",
    summary="Remove a study",
    responses=answers(NotFound, Conflict),
)
def purge(study_id: str, here: Here, caller: StudyWriter) -> Receipt:
    """Remove a study's objects; refused while a job that needs them has not ended."""
    return Receipt(id=study_id, objects=here.explain.purge_study(caller, study_id))
