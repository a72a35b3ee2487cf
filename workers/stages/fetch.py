"""Fetch: what the job names, brought into its scratch folder."""

import hashlib
from pathlib import Path

from service import paths
from service.acceptance import choose_frame, choose_instance
from service.domain.manifest import Manifest
from service.domain.request import ExplanationRequest
from service.domain.study import Study
from service.errors import DamagedObject, Gone
from service.queue.base import Lease
from service.store.base import BlobStore
from workers.parcels import Fetched

SOURCE_NAME = "source.dcm"


def fetch(lease: Lease, manifest: Manifest, store: BlobStore, scratch: Path) -> Fetched:
    """Bring the study's one image that fits the model.

    Raises
    ------
    Gone
        The study was removed after the job was accepted.
    NotAcceptedByModel, AmbiguousStudy, NotFound, InvalidRequest
        No image fits, or several do, or the named one or its frame does not exist.
    DamagedObject
        The stored bytes are not those that were taken in.
    StoreUnavailable
        The store does not answer.
    """
    job = lease.job
    request = ExplanationRequest.model_validate_json(job.request)
    file = scratch / SOURCE_NAME
    try:
        record = store.get(paths.study_record(job.tenant, request.study))
        study = Study.model_validate_json(record)
        instance = choose_instance(study, manifest.inputs[0].accept, request.instance)
        frame = choose_frame(instance, request.frame)
        store.fetch(instance.path, file)
    except FileNotFoundError:
        raise Gone("The study was removed before it was explained; send it again.") from None
    with file.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != instance.sha256:
            raise DamagedObject("The stored image is damaged; send the study again.")
    return Fetched(lease, request, manifest, instance, file, scratch, frame)
