"""Parcels of a job in hand, around a DICOM file of one's choice."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.dicom.header import read_header
from service.domain.files import File, SelfTest
from service.domain.inputs import Accept, Input, StepChoice
from service.domain.job import Job
from service.domain.manifest import Manifest
from service.domain.network import Architecture
from service.domain.outputs import ClassSpec, Output
from service.domain.request import ExplanationRequest
from service.domain.study import Instance, Study
from service.queue.base import Lease
from workers.parcels import Fetched

STEPS = (
    StepChoice(name="invert_monochrome1"),
    StepChoice(name="window", parameters={"kind": "percentile"}),
    StepChoice(name="resize", parameters={"size": [32, 32]}),
    StepChoice(name="normalize", parameters={"mean": [0.5], "std": [0.25]}),
)


def manifest(steps: tuple[StepChoice, ...] = STEPS) -> Manifest:
    """A manifest that takes chest radiographs."""
    digest = hashlib.sha256(b"").hexdigest()
    return Manifest(
        id="small",
        version="1.0.0",
        title="Small",
        publisher="Tests",
        license="Apache-2.0",
        intended_use="Tests.",
        not_for="Anything else.",
        task="classification-multilabel",
        runtime="torch",
        architecture=Architecture(name="residual_cnn"),
        files=(
            File(role="weights", format="safetensors", path="w", sha256=digest, bytes=1),
            File(role="selftest", format="dicom", path="t", sha256=digest, bytes=1),
        ),
        inputs=(Input(accept=Accept(modalities=("CR",)), steps=steps),),
        outputs=(Output(classes=(ClassSpec(key="effusion", label="Pleural effusion"),)),),
        selftests=(SelfTest(title="One", input="t", logits=(0.0,), tolerance=0.1),),
    )


def fetched(data: bytes, scratch: Path, **asked: Any) -> Fetched:
    """A fetched job on the object `data`; `asked` changes the request."""
    file = scratch / "source.dcm"
    file.write_bytes(data)
    header = read_header(file, max_samples=1 << 24)
    request = ExplanationRequest.model_validate(
        {"study": "st_1", "model": "small", "methods": ["saliency"], **asked}
    )
    instance = Instance(
        id="in_0001",
        part=1,
        path="x",
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        **header.model_dump(),
    )
    job = Job(
        id="ex_1",
        tenant="clinic",
        created=1_760_000_000_123,
        cost=1,
        request=json.dumps(request.model_dump(mode="json")),
        model="small@1.0.0",
        package="a" * 64,
    )
    frame = request.frame or 1
    return Fetched(Lease(job, "token"), request, manifest(), instance, file, scratch, frame)


def instance(**changes: Any) -> Instance:
    """A chest radiograph, as a study's record tells of it."""
    known = {
        "id": "in_0001",
        "part": 1,
        "path": "x",
        "bytes": 1,
        "sha256": hashlib.sha256(b"").hexdigest(),
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.1",
        "sop_instance_uid": "2.25.1",
        "series_instance_uid": "2.25.2",
        "study_instance_uid": "2.25.3",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "modality": "CR",
        "body_part_examined": "CHEST",
        "view_position": "PA",
        "photometric_interpretation": "MONOCHROME2",
        "rows": 8,
        "columns": 6,
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "bits_allocated": 16,
        "bits_stored": 12,
        "pixel_representation": 0,
    }
    return Instance.model_validate(known | changes)


def study(*instances: Instance) -> Study:
    """A study of these objects."""
    now = datetime.now(UTC)
    return Study(id="st_1", tenant="clinic", created=now, expires=now, instances=instances)
