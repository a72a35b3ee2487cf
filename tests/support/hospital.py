"""What stands before a worker: a registered package, a study taken in, a job that asks."""

import hashlib
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from service import documents, paths
from service.backends import Backends
from service.contents import pack
from service.dicom.header import read_header
from service.domain.explanation import Explanation
from service.domain.ids import new_id
from service.domain.job import Job
from service.domain.request import ExplanationRequest
from service.domain.study import Instance, Study
from service.packages import ModelPackages, PackageRecord
from service.settings import LimitSettings
from service.store.base import BlobStore

TENANT = "hospital"
SAMPLES = 1 << 28
PACKAGE = "a" * 64


def blank_job() -> Job:
    """Return a job for tests in which nothing is computed; nobody has queued it yet."""
    return Job(
        id=new_id("ex"),
        tenant=TENANT,
        created=int(time.time() * 1000),
        cost=100,
        request='{"study":"st_none","model":"small","methods":["saliency"]}',
        model="small@1.0.0",
        package=PACKAGE,
    )


def register(store: BlobStore, folder: Path) -> PackageRecord:
    """Register the package in `folder`."""
    with tempfile.TemporaryDirectory() as work:
        archive = Path(work) / "package.zip"
        pack(folder, archive)
        return ModelPackages(store).add(archive, LimitSettings())


def take_in(store: BlobStore, *files: Path) -> Study:
    """Store DICOM objects as one study."""
    study_id = new_id("st")
    instances = []
    for number, file in enumerate(files, 1):
        name = f"in_{number:04}"
        data = file.read_bytes()
        path = paths.instance(TENANT, study_id, name)
        store.put(path, data)
        instances.append(
            Instance(
                id=name,
                part=number,
                path=path,
                bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                **read_header(file, max_samples=SAMPLES).model_dump(),
            )
        )
    now = datetime.now(UTC)
    study = Study(
        id=study_id,
        tenant=TENANT,
        created=now,
        expires=now + timedelta(days=1),
        instances=tuple(instances),
    )
    store.put(paths.study_record(TENANT, study_id), study.model_dump_json().encode())
    return study


def ask(
    backends: Backends,
    record: PackageRecord,
    study: Study,
    *,
    pool: str = "default",
    **request: Any,
) -> Job:
    """Queue a request about `study`; by default saliency of every class, as JSON."""
    asked = ExplanationRequest.model_validate(
        {
            "study": study.id,
            "model": record.name,
            "methods": ["saliency"],
            "artifacts": ["json"],
            **request,
        }
    )
    job = Job(
        id=new_id("ex"),
        tenant=TENANT,
        created=int(time.time() * 1000),
        cost=100,
        request=asked.model_dump_json(),
        model=f"{record.name}@{record.version}",
        package=record.package,
        priority=asked.priority,
        pool=pool,
    )
    return backends.queue.submit(job, digest=hashlib.sha256(job.id.encode()).hexdigest()).job


def ended(backends: Backends, job: Job, seconds: float = 60.0) -> Job:
    """Wait for the end of a job and return its record."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        record = backends.queue.get(job.tenant, job.id)
        if record.state.ended:
            return record
        time.sleep(0.05)
    record = backends.queue.get(job.tenant, job.id)
    raise AssertionError(f"still {record.state} in stage {record.stage}, {record.progress}/1000")


def document(backends: Backends, record: Job) -> Explanation:
    """Return the published document of an ended job."""
    assert record.result is not None
    return documents.read(backends.store.get(paths.document(record.result)), record.id)


def published(backends: Backends, job: Job) -> list[str]:
    """Return every path below the job's folder in the store."""
    return sorted(blob.path for blob in backends.store.list(paths.job(job.tenant, job.id)))
