"""The use cases: ask, follow, cancel, collect, purge. No web framework here."""

import hashlib
import json
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from pydantic import JsonValue

from service import documents, paths
from service.additions import Addition, Additions
from service.admission import Admitted, admit, find_model, resolved_parameters, worker_for
from service.backends import Backends
from service.domain.artifact import Artifact
from service.domain.catalog import Catalog
from service.domain.explanation import Explanation, Result
from service.domain.ids import ALPHABET, LENGTH, new_id
from service.domain.job import Job, State
from service.domain.request import ExplanationRequest
from service.domain.study import Study
from service.errors.base import WhylightError
from service.errors.jobs import NoWorker, ResultDamaged
from service.errors.requests import (
    Conflict,
    Gone,
    NotAcceptable,
    NotFound,
    NotReady,
    PrecisionNotOffered,
    UnknownModel,
)
from service.precision import unmeasured
from service.precisions import Wishes
from service.queue.base import Event, Filter, Page, Submitted
from service.redis_server import Clock
from service.settings import Settings
from service.studies import Part, Studies
from service.telemetry import ADMISSION_REJECTED, JOBS_SUBMITTED, Log

PREFIX = "ex"
NOT_READY_RETRY = 1
DAMAGED_FILE = "The stored file is not the one that was written for this explanation."
_ID = re.compile(rf"{PREFIX}_[{ALPHABET}]{{{LENGTH}}}")


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf something is done."""

    tenant: str
    key: str
    """Identifier of the API key; no secret."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request would lead to."""

    request: ExplanationRequest
    """With the chosen instance and every method's parameters."""

    model: str
    """``name@version``."""

    cost: int
    """Estimated device time in milliseconds."""

    workers: int
    """Workers alive that can serve it now."""


@dataclass(frozen=True, slots=True)
class Followed:
    """A job as it is now."""

    job: Job
    position: int | None
    """Jobs of the same tenant and priority that wait before it."""

    explanation: Explanation | None
    """The finished document, once there is one."""


class Reader(Protocol):
    """Reads files that were found undamaged."""

    def __call__(
        self, artifact: Artifact, start: int = 0, end: int | None = None
    ) -> Iterator[bytes]:
        """Return bytes ``[start, end)`` of an artifact in chunks."""


class Explain:
    """What can be done with explanations and their studies.

    Parameters
    ----------
    backends
        Queue, fleet, store.
    settings
        Limits and times.
    clock
        Milliseconds since the epoch.

    Notes
    -----
    Thread-safe. Every method takes the tenant from the caller's key; what is
    another tenant's is `NotFound`.
    """

    def __init__(
        self,
        backends: Backends,
        settings: Settings,
        clock: Clock = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._queue = backends.queue
        self._fleet = backends.fleet
        self._store = backends.store
        self._wishes = Wishes(backends.store)
        self._clock = clock
        self._log = Log()
        self.studies = Studies(backends.store, settings, clock)
        self._additions = Additions(backends.store, settings.limits)

    # ------------------------------------------------------------------- ask

    def take_in(self, caller: Caller, parts: Iterable[Part]) -> Study:
        """Keep an upload's images as a study; errors of `Studies.take_in`."""
        study = self.studies.take_in(caller.tenant, parts)
        self._log.info(
            "study_taken_in",
            study=study.id,
            tenant=caller.tenant,
            key=caller.key,
            instances=len(study.instances),
            skipped=len(study.skipped),
        )
        return study

    def submit(
        self, caller: Caller, request: ExplanationRequest, key: str | None = None
    ) -> Submitted:
        """Admit and queue a request; the same `key` and request give the same job.

        A job that was made is found again although the request would be refused
        by now: its study may be gone, or no worker alive.

        Raises
        ------
        WhylightError
            Those of `admission.admit`, `NoWorker`, and of `JobQueue.submit`.
        """
        asked = json.dumps(request.model_dump(mode="json"), sort_keys=True)
        return self._submit(caller, request, asked, key)

    def submit_with_study(
        self,
        caller: Caller,
        parts: Iterable[Part],
        fields: dict[str, JsonValue],
        key: str | None = None,
    ) -> Submitted:
        """Take a study in and ask for its explanation, both or neither.

        Parameters
        ----------
        caller
            On whose behalf.
        parts
            The upload.
        fields
            The request without its study, already validated with another.
        key
            Idempotency key. It covers the objects' digests, so a repeated
            upload gives the job of the first, and keeps no second study.

        Raises
        ------
        WhylightError
            Those of `take_in` and of `submit`.
        """
        study = self.take_in(caller, parts)
        try:
            request = ExplanationRequest.model_validate({**fields, "study": study.id})
            asked = json.dumps([fields, [each.sha256 for each in study.instances]], sort_keys=True)
            submitted = self._submit(caller, request, asked, key)
        except BaseException:
            self.studies.purge(caller.tenant, study.id)
            raise
        if submitted.replayed:
            self.studies.purge(caller.tenant, study.id)
        return submitted

    def _submit(
        self, caller: Caller, request: ExplanationRequest, asked: str, key: str | None
    ) -> Submitted:
        digest = hashlib.sha256(asked.encode()).hexdigest()
        try:
            submitted = self._queue_or_replay(caller, request, digest, key)
        except WhylightError as error:
            ADMISSION_REJECTED.labels(reason=error.code).inc()
            raise
        if not submitted.replayed:
            self._tell_submitted(caller, submitted.job, request)
        return submitted

    def _queue_or_replay(
        self, caller: Caller, request: ExplanationRequest, digest: str, key: str | None
    ) -> Submitted:
        """Queue a job; what was answered to the key before is answered again, come what may."""
        try:
            admitted = self._admit_or_wish(caller, request)
            job = self._new_job(caller, admitted)
            return self._noted_and_queued(job, admitted.addition, digest, key)
        except WhylightError:
            # asked after the refusal, so that a twin that came first meanwhile is found too
            earlier = key and self._queue.earlier(caller.tenant, digest=digest, key=key)
            if not earlier:
                raise
            return earlier

    def _noted_and_queued(
        self, job: Job, addition: Addition, digest: str, key: str | None
    ) -> Submitted:
        """Queue a job whose objects count; those of a job that is not queued do not."""
        self._additions.note(job.tenant, job.id, addition)
        submitted = None
        try:
            submitted = self._queue.submit(job, digest=digest, key=key)
            return submitted
        finally:
            if submitted is None or submitted.replayed:
                self._additions.forget(job.tenant, job.id, addition)

    def _new_job(self, caller: Caller, admitted: Admitted) -> Job:
        request = admitted.request
        worker = worker_for(admitted.model.package, self._fleet.workers())
        return Job(
            id=new_id(PREFIX),
            tenant=caller.tenant,
            pool=worker.pool,
            priority=request.priority,
            created=self._clock(),
            cost=admitted.cost,
            request=admitted.canonical,
            model=admitted.model_ref,
            package=admitted.model.package,
            label=request.label,
        )

    def _admit_or_wish(self, caller: Caller, request: ExplanationRequest) -> Admitted:
        """Check a request; have measured what it wants in a precision that nobody measured yet."""
        try:
            return self._admit(caller, request)
        except PrecisionNotOffered:
            model = find_model(request.model, self._catalog(caller).models)
            for choice in unmeasured(request, model):
                self._wishes.enter(model.package, choice)
            raise

    def _catalog(self, caller: Caller) -> Catalog:
        """Return what a caller can ask for: models of others are as if they were not there."""
        return self._fleet.catalog().seen_by(caller.tenant)

    def _admit(self, caller: Caller, request: ExplanationRequest) -> Admitted:
        """Check a request and its study's room; with no worker a model may only be unloaded."""
        catalog = self._catalog(caller)
        try:
            study = self.studies.get(caller.tenant, request.study)
            admitted = admit(request, catalog, study)
        except UnknownModel:
            if not catalog.models and not self._fleet.workers():
                raise NoWorker("No worker has been here yet; start one.", workers=0) from None
            raise
        self._additions.demand_room(caller.tenant, admitted.addition)
        return admitted

    def _tell_submitted(self, caller: Caller, job: Job, request: ExplanationRequest) -> None:
        for each in request.methods:
            JOBS_SUBMITTED.labels(job.model, each.name, job.priority.value).inc()
        self._log.info(
            "job_submitted",
            job=job.id,
            tenant=caller.tenant,
            key=caller.key,
            model=job.model,
            priority=job.priority.value,
            cost=job.cost,
        )

    def validate(self, caller: Caller, request: ExplanationRequest) -> Plan:
        """Tell what a request would lead to, and queue nothing. Errors as of `submit`."""
        admitted = self._admit(caller, request)
        catalog = self._fleet.catalog()
        package = admitted.model.package
        return Plan(
            request=_with_defaults(admitted.request, catalog),
            model=admitted.model_ref,
            cost=admitted.cost,
            workers=sum(
                package in each.packages and not each.draining for each in self._fleet.workers()
            ),
        )

    # ---------------------------------------------------------------- follow

    def follow(self, caller: Caller, job_id: str) -> Followed:
        """Return a job as it is now, with its document when it has one.

        Raises
        ------
        NotFound
            There is no such job, or it is another tenant's.
        Gone
            Its results were removed after their time.
        ResultDamaged
            Its document was changed, or is another job's.
        """
        job = self._job(caller, job_id)
        waits = job.state is State.QUEUED
        position = self._queue.position(caller.tenant, job_id) if waits else None
        return Followed(job, position, self._document(job))

    def glance(self, caller: Caller, job_id: str) -> Job:
        """Return a job's record alone: one question to the queue. Errors as of `follow`."""
        return self._job(caller, job_id)

    def list(
        self, caller: Caller, which: Filter, *, limit: int = 50, cursor: str | None = None
    ) -> Page:
        """List a tenant's jobs, newest first."""
        return self._queue.list(caller.tenant, which, limit=limit, cursor=cursor)

    def events(self, caller: Caller, job_id: str, *, after: str | None = None) -> tuple[Event, ...]:
        """Return a job's events after the one with id `after`. Errors as of `follow`."""
        _check_id(job_id)
        return self._queue.events(caller.tenant, job_id, after=after)

    def cancel(self, caller: Caller, job_id: str) -> Job:
        """Cancel a job; return it as it now is. Errors as of `follow`."""
        _check_id(job_id)
        job = self._queue.cancel(caller.tenant, job_id)
        self._log.info("job_cancelled", job=job_id, tenant=caller.tenant, key=caller.key)
        return job

    # --------------------------------------------------------------- collect

    def artifacts(self, caller: Caller, job_id: str) -> tuple[Job, tuple[Artifact, ...]]:
        """Return an ended job and its artifacts, the document as the last of them.

        Raises
        ------
        NotReady
            The job has not ended.
        NotFound, Gone, ResultDamaged
            As of `follow`.
        """
        job, results, document = self._ended(caller, job_id)
        return job, (*(file for each in results for file in each.artifacts), *document)

    def artifact(self, caller: Caller, job_id: str, name: str) -> tuple[Job, Artifact]:
        """Return an ended job and one of its artifacts.

        Raises
        ------
        NotAcceptable
            It was asked for and does not suit the map.
        NotReady, NotFound, Gone, ResultDamaged
            As of `artifacts`.
        """
        job, results, document = self._ended(caller, job_id)
        for file in (*(file for each in results for file in each.artifacts), *document):
            if file.name == name:
                return job, file
        for omitted in (omission for each in results for omission in each.omitted):
            if omitted.name == name:
                why = omitted.reason
                raise NotAcceptable(why.detail, pointer=None, format=omitted.format, **why.facts)
        raise NotFound("The job has no such artifact; its index lists those there are.")

    def _ended(
        self, caller: Caller, job_id: str
    ) -> tuple[Job, tuple[Result, ...], tuple[Artifact, ...]]:
        """Return an ended job, its results, and its document as a file if it has one."""
        job = self._job(caller, job_id)
        if not job.state.ended:
            raise NotReady(
                "The job has not ended; ask again later, or follow its events.",
                state=job.state.value,
                retry_after=NOT_READY_RETRY,
            )
        data = self._stored(job)
        if data is None:
            return job, (), ()
        return job, self._read(job, data).results, (_listed(data),)

    def open(self, job: Job, files: Iterable[Artifact]) -> Reader:
        """Hold artifacts against their digests; return what reads them.

        Each file is read twice then, so that not one byte of a wrong one is
        handed out, however large it is and whichever range of it is asked for.

        Raises
        ------
        ResultDamaged
            A file is not the one that was written for this job.
        Gone
            A file was removed.
        """
        for each in files:
            digest = hashlib.sha256()
            for chunk in self._stream(job, each.name):
                digest.update(chunk)
            if digest.hexdigest() != each.sha256:
                raise self._damaged(job, ResultDamaged(DAMAGED_FILE))
        return lambda artifact, start=0, end=None: self._stream(job, artifact.name, start, end)

    def _stream(
        self, job: Job, name: str, start: int = 0, end: int | None = None
    ) -> Iterator[bytes]:
        try:
            return self._store.stream(paths.artifact(_published(job), name), start, end)
        except FileNotFoundError:
            raise _gone() from None

    def _document(self, job: Job) -> Explanation | None:
        data = self._stored(job)
        return None if data is None else self._read(job, data)

    def _stored(self, job: Job) -> bytes | None:
        """Return the bytes of a job's document, if it has one."""
        if not job.state.ended or job.result is None:
            return None
        try:
            return self._store.get(paths.document(job.result))
        except FileNotFoundError:
            raise _gone() from None

    def _read(self, job: Job, data: bytes) -> Explanation:
        """Return a document whose seal holds and that is of this job."""
        try:
            return documents.read(data, job.id)
        except ResultDamaged as error:
            raise self._damaged(job, error) from None

    def _damaged(self, job: Job, error: ResultDamaged) -> ResultDamaged:
        """Tell the operator of a damaged result; return what its caller is told."""
        self._log.warning("result_damaged", job=job.id, tenant=job.tenant)
        return error

    # ----------------------------------------------------------------- purge

    def purge(self, caller: Caller, job_id: str) -> int:
        """Remove an ended job with its results; return how many objects it had.

        Raises
        ------
        Conflict
            The job has not ended.
        NotFound
            As of `follow`.
        """
        job = self._job(caller, job_id)
        if not job.state.ended:
            raise Conflict("The job has not ended; cancel it first.", state=job.state.value)
        count = self._store.purge(paths.job(caller.tenant, job_id))
        self._queue.forget(caller.tenant, job_id)
        self._log.info(
            "job_purged", job=job_id, tenant=caller.tenant, key=caller.key, objects=count
        )
        return count

    def purge_study(self, caller: Caller, study_id: str) -> int:
        """Remove a study; return how many objects it had.

        Raises
        ------
        Conflict
            A job that needs it has not ended.
        NotFound
            There is no such study, or it is another tenant's.
        """
        self.studies.get(caller.tenant, study_id)
        for state in (State.RUNNING, State.QUEUED):
            for job in self.jobs_of(caller.tenant, study_id, state):
                raise Conflict(
                    "A job that needs the study has not ended; cancel it first.", job=job.id
                )
        count = self.studies.purge(caller.tenant, study_id)
        self._log.info(
            "study_purged", study=study_id, tenant=caller.tenant, key=caller.key, objects=count
        )
        return count

    def jobs_of(self, tenant: str, study_id: str, state: State | None = None) -> Iterator[Job]:
        """Iterate over the jobs that explain a study, newest first."""
        cursor: str | None = None
        while True:
            page = self._queue.list(tenant, Filter(study=study_id, state=state), cursor=cursor)
            yield from page.jobs
            cursor = page.cursor
            if cursor is None:
                return

    def _job(self, caller: Caller, job_id: str) -> Job:
        _check_id(job_id)
        return self._queue.get(caller.tenant, job_id)


def _check_id(job_id: str) -> None:
    """Refuse what can be no job's identifier before it becomes part of a key."""
    if not _ID.fullmatch(job_id):
        raise NotFound("There is no such explanation.")


def _published(job: Job) -> str:
    if job.result is None:
        raise _gone()
    return job.result


def _listed(data: bytes) -> Artifact:
    """Return the document as a file among the artifacts."""
    return Artifact(
        name=paths.DOCUMENT_NAME,
        format="job",
        media_type="application/json",
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _gone() -> Gone:
    return Gone("The results were removed: their time is over. Ask for the explanation anew.")


def _with_defaults(request: ExplanationRequest, catalog: Catalog) -> ExplanationRequest:
    """Return the request with every parameter that its methods will be given."""
    entries = {each.name: each for each in catalog.methods}
    methods = tuple(
        each.model_copy(update={"parameters": resolved_parameters(each, entries[each.name])})
        for each in request.methods
    )
    return request.model_copy(update={"methods": methods})
