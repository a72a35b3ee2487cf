"""A worker without a model: it publishes a catalog, leases, writes results, settles."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from service import documents, paths
from service.backends import Backends
from service.domain.artifact import Artifact
from service.domain.catalog import Catalog, ClassEntry, FormatEntry, MethodEntry, ModelEntry
from service.domain.explanation import Explanation, MapFacts, ModelRef, Result
from service.domain.job import Job, State
from service.domain.request import ExplanationRequest
from service.domain.resolved import ResolvedTarget
from service.domain.target import ClassTarget
from service.errors.base import Failure, Kind, WhylightError
from service.errors.studies import UndecodablePixels
from service.fleet.base import WorkerRecord
from service.queue.base import Lease, Outcome

PACKAGES = {"chest@1.0.0": "a" * 64, "chest@1.1.0": "b" * 64, "blackbox@1.0.0": "c" * 64}
BROKEN = "d" * 64
MEDIA_TYPES = {
    "dicom_sc": "application/dicom",
    "png": "image/png",
    "npy": "application/x-npy",
    "json": "application/json",
}
EXTENSIONS = {"dicom_sc": "dcm", "png": "png", "npy": "npy", "json": "json"}


def schema(**properties: dict[str, Any]) -> dict[str, Any]:
    """Return a parameters' schema as pydantic publishes one."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


def method(name: str, **properties: dict[str, Any]) -> MethodEntry:
    """Return a method's entry."""
    return MethodEntry(
        name=name,
        version=2,
        title=name.replace("_", " ").capitalize(),
        parameters=schema(**properties),
        needs=("input_gradient",),
        signed=True,
        paper="arXiv:0000.00000",
        cost="gradient rows",
        weaknesses="None that matter here.",
    )


METHODS = (
    method("saliency"),
    method(
        "integrated_gradients",
        steps={"type": "integer", "minimum": 1, "maximum": 512, "default": 32},
        path={"enum": ["straight", "guided"], "type": "string", "default": "straight"},
    ),
    method("sweeping", windows={"type": "array"}),
    method("occlusion", window={"type": "integer", "exclusiveMinimum": 0, "default": 16}),
)


def model(ref: str, package: str, **changes: Any) -> ModelEntry:
    """Return the entry of a chest model with two findings."""
    name, _, version = ref.partition("@")
    fields: dict[str, Any] = {
        "name": name,
        "version": version,
        "package": package,
        "title": "A chest model",
        "task": "classification-multilabel",
        "intended_use": "Tests.",
        "not_for": "Anything else.",
        "license": "MIT",
        "runtime": "torch",
        "state": "ready",
        "abilities": ("input_gradient",),
        "classes": (
            ClassEntry(key="nodule", label="Nodule", index=0, threshold=0.5),
            ClassEntry(key="effusion", label="Effusion", index=1, threshold=0.5),
        ),
        "accept": {"modalities": ["CR", "DX"]},
        "methods": ("saliency", "integrated_gradients", "sweeping", "occlusion"),
        "row_seconds": {"forward": 0.01, "gradient": 0.02},
        "method_rows": {"saliency": {"gradient": 1}, "integrated_gradients": {"gradient": 32}},
    }
    return ModelEntry(**{**fields, **changes})


CATALOG = Catalog(
    methods=METHODS,
    models=(
        *(model(ref, PACKAGES[ref]) for ref in ("chest@1.0.0", "chest@1.1.0")),
        model(
            "blackbox@1.0.0",
            PACKAGES["blackbox@1.0.0"],
            runtime="onnx",
            default_targets=(ClassTarget(of="top1"),),
            methods=("occlusion",),
            refused={
                "saliency": "It needs input gradient, which runtime 'onnx' cannot give.",
                "integrated_gradients": "It needs input gradient, which 'onnx' cannot give.",
            },
        ),
        model(
            "broken@1.0.0",
            BROKEN,
            state="unavailable",
            failure=Failure(
                kind=Kind.OURS,
                code="model_unavailable",
                title="The model cannot be loaded",
                detail="Self-test 'one' gave other logits.",
                facts={"field": "/selftests"},
            ),
        ),
    ),
    formats=tuple(
        FormatEntry(name=name, title=name, media_type=MEDIA_TYPES[name], extension=EXTENSIONS[name])
        for name in MEDIA_TYPES
    ),
)


UNDECODABLE = UndecodablePixels("The decoder failed on the pixels.")


class FakeWorker:
    """Does by hand, through the real ports, what a worker does."""

    def __init__(self, backends: Backends, name: str = "w1", pool: str = "default") -> None:
        self._backends = backends
        self.name = name
        self.pool = pool

    def publish(self, catalog: Catalog = CATALOG, seconds: float = 120.0, **changes: Any) -> None:
        """Announce the worker."""
        record: dict[str, Any] = {
            "id": self.name,
            "pool": self.pool,
            "device": "cpu",
            "started": 1,
            "version": "0.1.0",
            "packages": tuple(PACKAGES.values()),
            "running": 0,
            "slots": 2,
        }
        self._backends.fleet.publish(
            WorkerRecord(**{**record, **changes}), catalog, seconds=seconds
        )

    def retire(self) -> None:
        """Withdraw it."""
        self._backends.fleet.retire(self.name)

    def lease(self, wait: float = 5.0) -> Lease:
        """Take the next job."""
        packages = tuple(PACKAGES.values())
        lease = self._backends.queue.lease(self.name, self.pool, packages, wait=wait)
        assert lease is not None, "no job was waiting"
        return lease

    def lease_probe(self) -> Lease:
        """Take the next probe."""
        lease = self._backends.queue.lease(self.name, self.pool, (), probes=True, wait=5.0)
        assert lease is not None, "no probe was waiting"
        return lease

    def probe(self, failure: Failure | None = None) -> Job:
        """Lease a probe and end it, well if there is no `failure`."""
        state = State.SUCCEEDED if failure is None else State.FAILED
        return self._settle(self.lease_probe(), Outcome(state, failure=failure))

    def succeed(self, lease: Lease | None = None, **said: Any) -> Job:
        """Lease a job if need be, and publish results of every kind asked for.

        Parameters
        ----------
        said
            Fields of the document to replace.
        """
        lease = lease or self.lease()
        request = ExplanationRequest.model_validate_json(lease.job.request)
        prefix = paths.result(lease.job.tenant, lease.job.id, lease.token)
        results = tuple(self._result(prefix, each.name, request) for each in request.methods)
        self._write(prefix, lease.job, request, "succeeded", **{"results": results, **said})
        return self._settle(lease, Outcome(State.SUCCEEDED, result=prefix))

    def fail(
        self, lease: Lease | None = None, error: WhylightError = UNDECODABLE, **said: Any
    ) -> Job:
        """Lease a job if need be, and fail it; `said` as of `succeed`."""
        lease = lease or self.lease()
        failure = error.failure()
        request = ExplanationRequest.model_validate_json(lease.job.request)
        prefix = paths.result(lease.job.tenant, lease.job.id, lease.token)
        self._write(prefix, lease.job, request, "failed", failure=failure, **said)
        return self._settle(lease, Outcome(State.FAILED, result=prefix, failure=failure))

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Succeed at whatever comes, on a thread, until the end."""
        over = threading.Event()

        def run() -> None:
            while not over.is_set():
                packages = tuple(PACKAGES.values())
                lease = self._backends.queue.lease(self.name, self.pool, packages, wait=0.1)
                if lease is not None:
                    self.succeed(lease)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(10)

    def _settle(self, lease: Lease, outcome: Outcome) -> Job:
        assert self._backends.queue.settle(lease, outcome)
        return self._backends.queue.get(lease.job.tenant, lease.job.id)

    def _result(self, prefix: str, name: str, request: ExplanationRequest) -> Result:
        files = tuple(self._artifact(prefix, name, each) for each in request.artifacts)
        target = ResolvedTarget(
            key="nodule",
            label="Nodule",
            index=0,
            asked_as="nodule",
            score=1.5,
            probability=0.8,
            threshold=0.5,
            above_threshold=True,
        )
        facts = MapFacts(
            shape=(1, 2, 2),
            signed=True,
            affine=((4.0, 0.0, 0.0), (0.0, 3.0, 0.0), (0.0, 0.0, 1.0)),
            cell=(4.0, 3.0),
            minimum=0.0,
            maximum=1.0,
            sum=1.0,
            positive_fraction=0.25,
            peak=(2.0, 1.5),
        )
        return Result(
            method=name,
            version=2,
            parameters={},
            target=target,
            status="succeeded",
            map=facts,
            artifacts=files,
        )

    def _artifact(self, prefix: str, method_name: str, format_: str) -> Artifact:
        extension = EXTENSIONS[format_]
        name = f"{method_name}.nodule.{extension}"
        data = f"{name} ".encode() * 1000
        self._backends.store.put(paths.artifact(prefix, name), data)
        return Artifact(
            name=name,
            format=format_,
            method=method_name,
            target="nodule",
            media_type=MEDIA_TYPES[format_],
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )

    def _write(
        self, prefix: str, job: Job, request: ExplanationRequest, state: Any, **fields: Any
    ) -> None:
        document = Explanation(
            id=job.id,
            state=state,
            request=request,
            model=ModelRef(
                name="chest",
                version="1.1.0",
                title="A chest model",
                package=job.package,
                weights="e" * 64,
                runtime="torch",
            ),
            attempt=job.attempt,
            created=job.created,
            started=job.started,
            ended=int(time.time() * 1000),
            timings={"attribute": 0.1},
            **fields,
        )
        self._backends.store.put(paths.document(prefix), documents.written(document, job.id))
