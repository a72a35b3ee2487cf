"""Models: what workers found in them; packages registered and withdrawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import JsonValue, StringConstraints
from starlette.concurrency import run_in_threadpool

from api.auth import ModelAdmin, holder, needs
from api.context import Gateway, Here
from api.intake.base import FileSink, pour
from api.problems import answers
from api.v1.wire import ModelsBody, ModelVersionsBody, PackageBody, ProbeBody
from service.domain.catalog import ModelEntry
from service.domain.job import Job
from service.errors.jobs import OutOfStorage, QueueFull
from service.errors.models import InvalidPackage
from service.errors.requests import (
    ArchiveTooLarge,
    Conflict,
    NotFound,
    TooLarge,
    UnknownModel,
    UnsafeArchive,
    UnsupportedMediaType,
)
from service.keys import Caller, KeyRecord, Scope
from service.manifests import manifest_schema
from service.packages import PackageRecord
from service.telemetry import Log

router = APIRouter(prefix="/v1/models", tags=["models"])

Shown = TypeVar("Shown", ModelEntry, PackageRecord)
EVERYONE: Final = "*"
"""In place of a tenant: the model is given to all."""
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
Tenant = Annotated[str, StringConstraints(pattern=r"^(\*|[a-z0-9][a-z0-9._-]{0,63})$")]


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks at models: a tenant sees those given to it, an administrator all."""

    tenant: str
    administers: bool

    def sees(self, tenants: Sequence[str]) -> bool:
        """Tell whether a model that is given to `tenants` is shown."""
        return self.administers or not tenants or self.tenant in tenants

    def shown(self, each: Shown) -> Shown:
        """Return an entry as it is shown: to whom it is given only administrators are told."""
        return each if self.administers else each.model_copy(update={"tenants": ()})


def viewer(
    record: Annotated[KeyRecord, Depends(holder)],
    caller: Annotated[Caller, Depends(needs(Scope.MODELS_READ))],
) -> Viewer:
    """Return who looks; the key needs the scope to read models."""
    return Viewer(caller.tenant, Scope.MODELS_ADMIN in record.scopes)


Looking = Annotated[Viewer, Depends(viewer)]


@router.get(
    "",
    operation_id="listModels",
    summary="List models",
    responses=answers(),
)
def index(here: Here, who: Looking) -> ModelsBody:
    """List the models that workers have probed, and packages that wait for a worker."""
    models = here.backends.fleet.catalog().models
    probed = {each.package for each in models}
    waiting = (each for each in here.packages.list() if each.package not in probed)
    return ModelsBody(
        models=tuple(who.shown(each) for each in models if who.sees(each.tenants)),
        registered=tuple(
            _package(here, who.shown(each), here.registrations.probe(each.package))
            for each in waiting
            if who.sees(each.tenants)
        ),
    )


@router.get(
    ":schema",
    operation_id="getManifestSchema",
    summary="Give the schema of model.yaml",
    responses=answers(),
    dependencies=[Depends(needs(Scope.MODELS_READ))],
)
def schema() -> dict[str, JsonValue]:
    """Give the JSON schema that a package's model.yaml is held against."""
    return manifest_schema()


@router.get(
    "/{name}",
    operation_id="getModel",
    summary="Tell of a model's versions",
    responses=answers(UnknownModel),
)
def show(name: Name, here: Here, who: Looking) -> ModelVersionsBody:
    """Tell what each version of a model can be asked."""
    return ModelVersionsBody(models=tuple(_probed(here, who, name)))


@router.get(
    "/{name}/versions/{version}",
    operation_id="getModelVersion",
    summary="Tell of one version of a model",
    responses=answers(UnknownModel),
)
def show_version(name: Name, version: Version, here: Here, who: Looking) -> ModelEntry:
    """Tell a model's classes, layers and abilities, and which methods it refuses and why."""
    return next(iter(_probed(here, who, name, version)))


@router.get(
    "/{name}/versions/{version}/probe",
    operation_id="getProbe",
    summary="Follow the trial of a model package",
    responses=answers(UnknownModel, NotFound),
)
async def follow(
    name: Name,
    version: Version,
    request: Request,
    *,
    here: Here,
    who: Looking,
    wait: Annotated[int, Query(ge=0, le=60, description="Seconds to wait for the end.")] = 0,
) -> ProbeBody:
    """Tell how far the probe is that registering the package queued, and what came of it.

    It tells of that trial alone: what the model can be asked now, the model's own entry says.
    """

    def ask() -> ProbeBody:
        record = here.packages.get(name, version)
        if not who.sees(record.tenants):
            raise _unknown()
        probe = here.registrations.probe(record.package)
        if probe is None:
            raise NotFound("No probe of this package is kept; put the package again for one.")
        return _probe(here, probe)

    return await here.wait_until(ask, lambda it: it.state.ended, wait, request)


@router.put(
    "/{name}/versions/{version}",
    operation_id="putModelVersion",
    summary="Register a model package",
    responses={
        201: {"model": PackageBody, "description": "Registered; `probe` tells where to follow on."},
        **answers(
            InvalidPackage,
            UnsafeArchive,
            TooLarge,
            ArchiveTooLarge,
            UnsupportedMediaType,
            Conflict,
            OutOfStorage,
            QueueFull,
        ),
    },
    status_code=201,
    openapi_extra=PACKAGE,
)
async def add(
    name: Name,
    version: Version,
    request: Request,
    *,
    here: Here,
    caller: ModelAdmin,
    tenant: Annotated[
        list[Tenant] | None,
        Query(description="Give the model to these tenants alone; `*` gives it to all."),
    ] = None,
) -> PackageBody:
    """Check a package, register it under the name and version in its manifest, and queue a probe.

    The same package again changes nothing but the tenants, if any are named, while
    a worker serves it; one that none serves is tried anew. Other content under the
    same name and version is refused. Without a tenant named, a new package is given to all.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != ZIP:
        raise UnsupportedMediaType("Send the package as application/zip.", supported=[ZIP])
    with here.scratch.room() as room:
        sink = FileSink(room)
        await pour(request, sink, here.settings.limits.body_bytes)
        record, probe = await run_in_threadpool(
            here.registrations.add,
            sink.path,
            here.settings.limits,
            ref=f"{name}@{version}",
            tenants=_given(tenant),
        )
    Log().info(
        "package_added", model=f"{record.name}@{record.version}", bytes=record.bytes, key=caller.key
    )
    return await run_in_threadpool(_package, here, record, probe)


@router.delete(
    "/{name}/versions/{version}",
    operation_id="deleteModelVersion",
    summary="Withdraw a model package",
    status_code=204,
    responses=answers(UnknownModel),
)
def remove(name: Name, version: Version, here: Here, caller: ModelAdmin) -> Response:
    """Withdraw a version; workers let go of it, and finished explanations stay."""
    here.registrations.remove(name, version)
    Log().info("package_removed", model=f"{name}@{version}", key=caller.key)
    return Response(status_code=204)


def _given(tenants: list[str] | None) -> tuple[str, ...] | None:
    """Return to whom a model is given: `None` for as before, none for all."""
    if tenants is None:
        return None
    return () if EVERYONE in tenants else tuple(sorted(set(tenants)))


def _probed(
    here: Gateway, who: Viewer, name: str, version: str | None = None
) -> Sequence[ModelEntry]:
    """Return the entries of a model, oldest version first; `UnknownModel` if there is none."""
    found = [
        who.shown(each)
        for each in here.backends.fleet.catalog().models
        if each.name == name and version in {None, each.version} and who.sees(each.tenants)
    ]
    if not found:
        if not who.sees(here.packages.get(name, version).tenants):
            raise _unknown()
        raise UnknownModel("The model is registered, and no worker has probed it yet.")
    return found


def _unknown() -> UnknownModel:
    return UnknownModel("No such model is registered, or no such version of it.")


def _package(here: Gateway, record: PackageRecord, probe: Job | None) -> PackageBody:
    return PackageBody.of(record, None if probe is None else _probe(here, probe))


def _probe(here: Gateway, probe: Job) -> ProbeBody:
    """Return a probe with its link and the workers that could run it."""
    name, _, version = probe.model.partition("@")
    path = f"{router.prefix}/{name}/versions/{version}/probe"
    return ProbeBody.of(probe, here.registrations.crew(probe), here.url(path))
