"""What goes over the wire: the bodies of version 1.

Times are RFC 3339 in UTC; progress is a share between 0 and 1.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import AwareDatetime, BaseModel, Field, JsonValue

from service.domain.artifact import Artifact
from service.domain.catalog import FormatEntry, MeasureEntry, MethodEntry, ModelEntry
from service.domain.explanation import (
    Check,
    ExecutedOn,
    InstanceShare,
    MapFacts,
    Omission,
    Prediction,
    Result,
    Subject,
    TargetLayer,
)
from service.domain.job import Job, JobKind, Priority, Stage, State
from service.domain.parity import ParityReport
from service.domain.request import ExplanationRequest
from service.domain.resolved import ResolvedTarget
from service.domain.study import Instance, Skipped, Study
from service.domain.trust import TrustReport
from service.domain.variable import VariableShare
from service.domain.view import ViewShare
from service.errors.base import Failure
from service.explain import Followed
from service.fleet.base import WorkerRecord
from service.packages import PackageRecord
from service.queue.base import DeadLetter, Depth
from service.submissions import Plan


def time_of(milliseconds: int | None) -> datetime | None:
    """Return a time in milliseconds since the epoch as a date and time."""
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)


# --------------------------------------------------------------------- studies


class InstanceBody(BaseModel):
    """One image of a study, without anything that names a patient or an object."""

    id: str
    series: str = Field(description="Name of its series within the study.")
    part: int | None = Field(
        description="Its place in the upload, counted from 1 as the places of `skipped` are; null"
        " of a study that came in before this was kept."
    )
    series_number: int | None = Field(description="Series Number, if it says.")
    instance_number: int | None = Field(description="Instance Number, if it says.")
    modality: str
    body_part_examined: str = Field(description="Body Part Examined, if it says.")
    image_type: tuple[str, ...] = Field(description="Image Type, value by value.")
    plane: str | None = Field(description="Plane of the body that it is nearest to, if it says.")
    view_position: str = Field(description="Its projection, if it says, such as MLO.")
    laterality: str = Field(description="Its side, if it says: L, R or B.")
    presentation_intent: str = Field(
        description="Of a digital X-ray, what its pixels are meant for: FOR PRESENTATION, or FOR"
        " PROCESSING, which most models do not take."
    )
    rows: int
    columns: int
    number_of_frames: int
    photometric_interpretation: str
    transfer_syntax_uid: str
    bytes: int

    @classmethod
    def of(cls, series: str, instance: Instance) -> "InstanceBody":
        """Return what may be shown of an instance of a series."""
        shown = instance.model_dump(include=set(cls.model_fields))
        return cls.model_validate({"series": series, **shown})


class StudyBody(BaseModel):
    """What came in together."""

    id: str
    created: AwareDatetime
    expires: AwareDatetime = Field(
        description="When it is removed, unless a job explains it later than that."
    )
    instances: tuple[InstanceBody, ...]
    skipped: tuple[Skipped, ...] = Field(description="Objects that were not kept, and why.")

    @classmethod
    def of(cls, study: Study) -> "StudyBody":
        """Return what may be shown of a study."""
        return cls(
            id=study.id,
            created=study.created,
            expires=study.expires,
            instances=tuple(
                InstanceBody.of(series, each)
                for series, instances in study.series.items()
                for each in instances
            ),
            skipped=study.skipped,
        )


class StudiesBody(BaseModel):
    """A page of studies, newest first."""

    studies: tuple[StudyBody, ...]
    cursor: str | None = Field(description="Hand it in to get the next page.")


class Receipt(BaseModel):
    """What a deletion removed."""

    id: str
    objects: int = Field(description="Stored objects that were removed.")


# ---------------------------------------------------------------- explanations


class ArtifactBody(Artifact):
    """One file of the results."""

    href: str


class ResultBody(BaseModel):
    """One method on one target."""

    method: str
    version: int | None = Field(
        description="Of the method: equal parameters give other maps in another version."
        " None of a method that could not start."
    )
    parameters: dict[str, JsonValue]
    layer: TargetLayer | None = Field(
        description="The layer that a class activation map was made of, and why this one."
    )
    target: ResolvedTarget | None
    status: str
    reason: Failure | None
    executed_on: ExecutedOn = Field(
        description="Whether the map was computed on the model itself, or on a network that"
        " stands in for it."
    )
    degenerate: bool
    partial: bool
    map: MapFacts | None
    variables: tuple[VariableShare, ...] = Field(
        description="What the values beside the image add to the score; empty of a method that"
        " explains the image alone."
    )
    instances: tuple[InstanceShare, ...] = Field(
        description="Of a bag: what each instance adds to the score, the most first, whatever the"
        " method; 'attention' is the network's own weight, and no attribution."
    )
    view: ViewShare | None = Field(
        description="Of a model of several views: which one the map is of, and its share of the"
        " evidence in all of them."
    )
    extras: dict[str, JsonValue]
    checks: tuple[Check, ...]
    trust: TrustReport | None
    artifacts: tuple[ArtifactBody, ...]
    omitted: tuple[Omission, ...] = Field(
        description="Artifacts that were asked for and do not suit this map."
    )

    @classmethod
    def of(cls, result: Result, base: str) -> "ResultBody":
        """Return a result with links to its files, which lie below `base`."""
        shown = {name: getattr(result, name) for name in cls.model_fields}
        files = tuple(artifact_body(each, base) for each in result.artifacts)
        return cls.model_validate({**shown, "artifacts": files})


class ModelBody(BaseModel):
    """The model that explains itself."""

    name: str
    version: str
    package: str
    weights: str | None = None
    runtime: str | None = None


class Links(BaseModel):
    """Where the rest is."""

    self: str
    events: str
    cancel: str
    artifacts: str


class JobBody(BaseModel):
    """A job as a listing shows it."""

    id: str
    state: State
    stage: Stage | None = Field(description="What is being done to it.")
    progress: float = Field(ge=0, le=1)
    priority: Priority
    model: ModelBody
    study: str
    instance: str | None
    series: str | None
    label: str | None
    attempt: int
    cancelling: bool
    partial: bool = Field(description="Whether some of its results are missing.")
    created: AwareDatetime
    started: AwareDatetime | None
    ended: AwareDatetime | None
    failure: Failure | None
    links: Links

    @classmethod
    def of(cls, job: Job, base: str) -> "JobBody":
        """Return a job; its resource lies at `base`."""
        return cls.model_validate(_job_fields(job, base))


class ExplanationBody(JobBody):
    """A job with everything that is known of it."""

    request: ExplanationRequest
    position: int | None = Field(
        default=None, description="Jobs of the same priority and tenant that wait before it."
    )
    subject: Subject | None = None
    predictions: tuple[Prediction, ...] = ()
    parity: ParityReport | None = Field(
        default=None,
        description="Whether the model says what was observed; null until it has answered.",
    )
    results: tuple[ResultBody, ...] = ()
    timings: dict[str, float] = Field(default={}, description="Seconds by stage.")
    versions: dict[str, str] = {}
    warnings: tuple[str, ...] = ()

    @classmethod
    def of_followed(cls, followed: Followed, base: str) -> "ExplanationBody":
        """Return a job and its document; its resource lies at `base`."""
        job, document = followed.job, followed.explanation
        fields = _job_fields(job, base)
        fields["request"] = ExplanationRequest.model_validate_json(job.request)
        fields["position"] = followed.position
        if document is not None:
            fields |= {
                "subject": document.subject,
                "predictions": document.predictions,
                "parity": document.parity,
                "results": tuple(ResultBody.of(each, base) for each in document.results),
                "timings": document.timings,
                "versions": document.versions,
                "warnings": document.warnings,
            }
        if document is not None and document.model is not None:
            shown = document.model.model_dump(include=set(ModelBody.model_fields))
            fields["model"] = ModelBody.model_validate(shown)
        return cls.model_validate(fields)


class ExplanationsBody(BaseModel):
    """A page of jobs, newest first."""

    explanations: tuple[JobBody, ...]
    cursor: str | None = Field(description="Hand it in to get the next page.")


class PlanBody(BaseModel):
    """What a request would lead to."""

    request: ExplanationRequest = Field(
        description="With the chosen instance and every method's parameters; one that is null is"
        " off, or found from the model when the job runs, and then told in the results."
    )
    model: str
    cost_seconds: float = Field(description="Estimated device time.")
    workers: int = Field(description="Workers alive that can serve it; 0 means 503 on submit.")

    @classmethod
    def of(cls, plan: Plan) -> "PlanBody":
        """Return a plan."""
        return cls(
            request=plan.request,
            model=plan.model,
            cost_seconds=plan.cost / 1000,
            workers=plan.workers,
        )


class ArtifactsBody(BaseModel):
    """The index of a job's files."""

    artifacts: tuple[ArtifactBody, ...]


class EventBody(BaseModel):
    """The data of one event of the stream."""

    state: State
    stage: Stage | None
    progress: float
    at: AwareDatetime


def artifact_body(artifact: Artifact, base: str) -> ArtifactBody:
    """Return a file with its link."""
    return ArtifactBody(**artifact.model_dump(), href=f"{base}/artifacts/{artifact.name}")


def _job_fields(job: Job, base: str) -> dict[str, object]:
    """Return the fields of a job's body."""
    name, _, version = job.model.partition("@")
    request = ExplanationRequest.model_validate_json(job.request)
    shown = {each: getattr(job, each) for each in JobBody.model_fields if hasattr(job, each)}
    return {
        **shown,
        "progress": job.progress / 1000,
        "model": ModelBody(name=name, version=version, package=job.package),
        "study": request.study,
        "instance": request.instance,
        "series": request.series,
        "created": time_of(job.created),
        "started": time_of(job.started),
        "ended": time_of(job.ended),
        "links": Links(
            self=base,
            events=f"{base}/events",
            cancel=f"{base}/cancel",
            artifacts=f"{base}/artifacts",
        ),
    }


# --------------------------------------------------------------------- catalog


class MethodsBody(BaseModel):
    """Everything that can be asked for, beside models."""

    methods: tuple[MethodEntry, ...]
    formats: tuple[FormatEntry, ...]
    measures: tuple[MeasureEntry, ...]
    unavailable: dict[str, str] = Field(description="Parts that cannot be used, and why.")


class ProbeBody(BaseModel):
    """The trial of a package by a worker: whether it serves, as the package was put."""

    state: State = Field(description="`succeeded` once the model serves.")
    attempt: int = Field(description="Workers that began it; each before the last was lost.")
    pool: str
    workers: int = Field(description="Workers alive that can run it; with 0 it waits for one.")
    starting: int = Field(
        description="Those of them that still load what was registered before they started."
    )
    created: AwareDatetime
    started: AwareDatetime | None
    ended: AwareDatetime | None
    failure: Failure | None = Field(description="Why the model does not serve.")
    href: str = Field(description="Where to follow it.")

    @classmethod
    def of(cls, probe: Job, workers: Sequence[WorkerRecord], href: str) -> "ProbeBody":
        """Return a probe; these `workers` can run it."""
        return cls(
            state=probe.state,
            attempt=probe.attempt,
            pool=probe.pool,
            workers=len(workers),
            starting=sum(each.loading for each in workers),
            created=datetime.fromtimestamp(probe.created / 1000, UTC),
            started=time_of(probe.started),
            ended=time_of(probe.ended),
            failure=probe.failure,
            href=href,
        )


class PackageBody(PackageRecord):
    """A registered model package."""

    probe: ProbeBody | None = Field(description="Its trial; null while a worker serves it.")

    @classmethod
    def of(cls, record: PackageRecord, probe: ProbeBody | None) -> "PackageBody":
        """Return a package with its probe."""
        return cls(**record.model_dump(), probe=probe)


class ModelsBody(BaseModel):
    """The models that workers have probed, and those that wait for it."""

    models: tuple[ModelEntry, ...]
    registered: tuple[PackageBody, ...] = Field(
        description="Registered packages that no worker has told of yet."
    )


class ModelVersionsBody(BaseModel):
    """The versions of one model, oldest first."""

    models: tuple[ModelEntry, ...]


# ------------------------------------------------------------------- operators


class PoolBody(Depth):
    """What waits in one pool."""

    workers: int
    estimated_wait_seconds: float | None = Field(
        description="Device time waiting, shared by the pool's workers; null without any."
    )


class QueueBody(BaseModel):
    """What waits, pool by pool."""

    pools: tuple[PoolBody, ...]


class WorkersBody(BaseModel):
    """The workers that are alive."""

    workers: tuple[WorkerRecord, ...]


class DeadLetterBody(BaseModel):
    """A job that was given up."""

    id: str
    kind: JobKind
    tenant: str = Field(description="`_installation` of a probe, which is no tenant's.")
    model: str
    attempt: int
    created: AwareDatetime
    ended: AwareDatetime | None
    reason: Failure

    @classmethod
    def of(cls, letter: DeadLetter) -> "DeadLetterBody":
        """Return a dead letter."""
        job = letter.job
        return cls.model_validate(
            {
                "id": job.id,
                "kind": job.kind,
                "tenant": job.tenant,
                "model": job.model,
                "attempt": job.attempt,
                "created": time_of(job.created),
                "ended": time_of(job.ended),
                "reason": letter.reason,
            }
        )


class DeadLettersBody(BaseModel):
    """The jobs that were given up, newest first."""

    dead_letters: tuple[DeadLetterBody, ...]


class LiveBody(BaseModel):
    """Whether the process is alive."""

    live: bool


class ReadyBody(BaseModel):
    """Whether requests can be served; of each dependency ``ok`` or its failure's code."""

    ready: bool
    checks: dict[str, str]
