"""Models: what workers found in them; packages registered and withdrawn."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth import ModelAdmin, needs
from api.context import Gateway, Here
from api.intake.base import FileSink, pour
from api.problems import answers
from api.v1.wire import ModelsBody, ModelVersionsBody
from service import errors
from service.domain.catalog import ModelEntry
from service.keys import Scope
from service.packages import PackageRecord
from service.telemetry import Log

router = APIRouter(prefix="/v1/models", tags=["models"])

READERS: Final = [Depends(needs(Scope.MODELS_READ))]
ZIP: Final = "application/zip"
PACKAGE: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "A zip archive with model.yaml and the files that it lists.",
        "content": {ZIP: {"schema": {"type": "string", "format": "binary"}}},
    }
}
Name = Annotated[str, Path(max_length=64)]
Version = Annotated[str, Path(max_length=32)]


@router.get(
    "",
    operation_id="listModels",
    summary="List models",
    responses=answers(),
    dependencies=READERS,
)
def index(here: Here) -> ModelsBody:
    """List the models that workers have probed, and packages that wait for a worker."""
    models = here.backends.fleet.catalog().models
    probed = {each.package for each in models}
    waiting = tuple(each for each in here.packages.list() if each.package not in probed)
    return ModelsBody(models=models, registered=waiting)


@router.get(
    "/{name}",
    operation_id="getModel",
    summary="Tell of a model's versions",
    responses=answers(errors.UnknownModel),
    dependencies=READERS,
)
def show(name: Name, here: Here) -> ModelVersionsBody:
    """Tell what each version of a model can be asked."""
    return ModelVersionsBody(models=tuple(_probed(here, name)))


@router.get(
    "/{name}/versions/{version}",
    operation_id="getModelVersion",
    summary="Tell of one version of a model",
    responses=answers(errors.UnknownModel),
    dependencies=READERS,
)
def show_version(name: Name, version: Version, here: Here) -> ModelEntry:
    """Tell a model's classes, layers and abilities, and which methods it refuses and why."""
    return next(iter(_probed(here, name, version)))


@router.put(
    "/{name}/versions/{version}",
    operation_id="putModelVersion",
    summary="Register a model package",
    responses={
        201: {"model": PackageRecord, "description": "Registered; workers probe it next."},
        **answers(
            errors.InvalidPackage,
            errors.UnsafeArchive,
            errors.TooLarge,
            errors.ArchiveTooLarge,
            errors.UnsupportedMediaType,
            errors.Conflict,
            errors.OutOfStorage,
        ),
    },
    status_code=201,
    openapi_extra=PACKAGE,
)
async def add(
    name: Name, version: Version, request: Request, here: Here, caller: ModelAdmin
) -> PackageRecord:
    """Check a package and register it under the name and version in its manifest.

    The same package again changes nothing; other content under the same name
    and version is refused.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != ZIP:
        raise errors.UnsupportedMediaType("Send the package as application/zip.", supported=[ZIP])
    with here.scratch.room() as room:
        sink = FileSink(room)
        await pour(request, sink, here.settings.limits.body_bytes)
        record = await run_in_threadpool(
            here.packages.add, sink.path, here.settings.limits, ref=f"{name}@{version}"
        )
    Log().info(
        "package_added", model=f"{record.name}@{record.version}", bytes=record.bytes, key=caller.key
    )
    return record


@router.delete(
    "/{name}/versions/{version}",
    operation_id="deleteModelVersion",
    summary="Withdraw a model package",
    status_code=204,
    responses=answers(errors.UnknownModel),
)
def remove(name: Name, version: Version, here: Here, caller: ModelAdmin) -> Response:
    """Withdraw a version; workers let go of it, and finished explanations stay."""
    here.packages.remove(name, version)
    Log().info("package_removed", model=f"{name}@{version}", key=caller.key)
    return Response(status_code=204)


def _probed(here: Gateway, name: str, version: str | None = None) -> Sequence[ModelEntry]:
    """Return the entries of a model, oldest version first; `UnknownModel` if there is none."""
    found = [
        each
        for each in here.backends.fleet.catalog().models
        if each.name == name and version in {None, each.version}
    ]
    if not found:
        here.packages.get(name, version)
        raise errors.UnknownModel("The model is registered, and no worker has probed it yet.")
    return found
