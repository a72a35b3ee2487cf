"""Submissions: studies and requests on their way in, up to the queue."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import JsonValue

from service.additions import Addition, Additions
from service.admission import Admitted, admit, find_model, none_serves, worker_for
from service.backends import Backends
from service.domain.catalog import Catalog
from service.domain.ids import new_id
from service.domain.job import Job
from service.domain.request import ExplanationRequest
from service.domain.study import Study
from service.errors.base import WhylightError
from service.errors.jobs import NoWorker
from service.errors.requests import PrecisionNotOffered, UnknownModel
from service.keys import Caller
from service.parameters import resolved_parameters
from service.precision import unmeasured
from service.precisions import Wishes
from service.queue.base import Submitted
from service.redis_server import Clock
from service.settings import LimitSettings
from service.studies import Part, Studies
from service.telemetry import ADMISSION_REJECTED, JOBS_SUBMITTED, Log

PREFIX = "ex"
"""What the identifiers of explanations begin with."""


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


class Submissions:
    """What is asked, and what it is asked of.

    Parameters
    ----------
    backends
        Queue, fleet, store.
    limits
        What explanations may add to a study.
    studies
        Where uploads are kept.
    clock
        Milliseconds since the epoch.
    """

    def __init__(
        self, backends: Backends, limits: LimitSettings, studies: Studies, clock: Clock
    ) -> None:
        self._queue = backends.queue
        self._fleet = backends.fleet
        self._packages = backends.packages
        self._studies = studies
        self._additions = Additions(backends.store, limits)
        self._wishes = Wishes(backends.store)
        self._clock = clock
        self._log = Log()

    def take_in(self, caller: Caller, parts: Iterable[Part]) -> Study:
        """Keep an upload's images as a study; errors of `Studies.take_in`."""
        study = self._studies.take_in(caller.tenant, parts)
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
            self._studies.purge(caller.tenant, study.id)
            raise
        if submitted.replayed:
            self._studies.purge(caller.tenant, study.id)
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

    def target_kinds(self, caller: Caller, model: str) -> tuple[str, ...]:
        """Return the kinds of target that a model has, by ``name`` or ``name@version``.

        Raises
        ------
        UnknownModel, ModelUnavailable, ModelSilent, NoWorker
            As of `submit`.
        """
        with self._awaiting_workers(caller, model, catalog := self._catalog(caller)):
            return find_model(model, catalog.models).target_kinds

    def _catalog(self, caller: Caller) -> Catalog:
        """Return what a caller can ask for: models of others are as if they were not there."""
        return self._fleet.catalog().seen_by(caller.tenant)

    @contextmanager
    def _awaiting_workers(self, caller: Caller, model: str, catalog: Catalog) -> Iterator[None]:
        """Say of a model that nobody knows yet that a worker is starting, or that none was here."""
        try:
            yield
        except UnknownModel:
            workers = self._fleet.workers()
            if not catalog.methods and not workers:
                raise NoWorker("No worker has been here yet; start one.", workers=0) from None
            if any(each.loading for each in workers) and self._is_registered(caller, model):
                raise none_serves(workers) from None
            raise

    def _is_registered(self, caller: Caller, model: str) -> bool:
        """Tell whether a model that a caller may see is registered, by ``name[@version]``."""
        name, _, version = model.partition("@")
        try:
            tenants = self._packages.get(name, version or None).tenants
        except UnknownModel:
            return False
        return not tenants or caller.tenant in tenants

    def _admit(self, caller: Caller, request: ExplanationRequest) -> Admitted:
        """Check a request and its study's room; with no worker a model may only be unloaded."""
        with self._awaiting_workers(caller, request.model, catalog := self._catalog(caller)):
            study = self._studies.get(caller.tenant, request.study)
            admitted = admit(request, catalog, study)
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


def _with_defaults(request: ExplanationRequest, catalog: Catalog) -> ExplanationRequest:
    """Return the request with every parameter that its methods will be given."""
    entries = {each.name: each for each in catalog.methods}
    methods = tuple(
        each.model_copy(update={"parameters": resolved_parameters(each, entries[each.name])})
        for each in request.methods
    )
    return request.model_copy(update={"methods": methods})
