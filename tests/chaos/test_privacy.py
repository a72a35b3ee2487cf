"""Canaries: what a patient's object says must come out nowhere but in derived objects."""

import signal
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import redis

from service import paths
from service.domain.job import State
from service.telemetry import EVENTS, FIELDS
from tests.chaos.conftest import SIDE, Ward
from tests.support import worker_process
from tests.support.hospital import ask, ended, take_in
from tests.support.ports import free_port
from tests.support.small_model import picture, write_image
from tests.support.worker_process import WorkerProcess

pytestmark = [pytest.mark.redis, pytest.mark.slow]

CANARY = "Zwitschervogel"
ROOT = "1.2.826.0.1.3680043.10.31337"
BIRTH = "19330107"
TEXTS = {
    name: f"{CANARY}{number}"
    for number, name in enumerate(
        [
            "PatientName",
            "PatientID",
            "OtherPatientNames",
            "PatientAddress",
            "PatientComments",
            "AdditionalPatientHistory",
            "EthnicGroup",
            "Occupation",
            "AccessionNumber",
            "StudyID",
            "StudyDescription",
            "SeriesDescription",
            "ProtocolName",
            "InstitutionName",
            "InstitutionAddress",
            "InstitutionalDepartmentName",
            "ReferringPhysicianName",
            "PerformingPhysicianName",
            "OperatorsName",
            "StationName",
            "Manufacturer",
            "ManufacturerModelName",
            "DeviceSerialNumber",
            "RequestedProcedureDescription",
            "ImageComments",
            "DerivationDescription",
        ]
    )
}
TAGS = {
    **TEXTS,
    "PatientBirthDate": BIRTH,
    "StudyInstanceUID": f"{ROOT}.1",
    "SeriesInstanceUID": f"{ROOT}.2",
    "FrameOfReferenceUID": f"{ROOT}.3",
}


def images(folder: Path) -> Iterator[tuple[str, Path]]:
    """Objects that succeed and that fail in every stage, each full of canaries."""
    stored = picture(7, SIDE, SIDE)
    folder = folder / CANARY
    folder.mkdir()
    special: dict[str, dict[str, Any]] = {
        "succeeds": {},
        "not_accepted_by_model": {"Modality": "CT", "BodyPartExamined": CANARY.upper()[:16]},
        "non_finite_score": {"RescaleSlope": "5e34", "RescaleIntercept": "0"},
    }
    for outcome, tags in special.items():
        yield outcome, write_image(folder / f"{outcome}.dcm", stored, tags={**TAGS, **tags})
    broken = pydicom.dcmread(folder / "succeeds.dcm")
    broken.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    frame = b"\xff\x4f\xff\x51" + CANARY.encode() * 8
    broken.PixelData = pydicom.encaps.encapsulate([frame])
    broken["PixelData"].VR = "OB"
    broken.save_as(folder / "broken.dcm")
    yield "undecodable_pixels", folder / "broken.dcm"


def redis_values(ward: Ward) -> str:
    """Return every key of Redis with its value, as text."""
    client: Any = redis.Redis(unix_socket_path=ward.server.url.removeprefix("unix://"))
    readers: dict[bytes, Callable[[bytes], Any]] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"stream": client.xrange,
    }
    with client:
        keys = list(client.scan_iter())
        assert len(keys) > 5
        return repr([(key, readers[client.type(key)](key)) for key in keys])


def stored_texts(ward: Ward) -> str:
    """Return every name in the store, and what is no study, model, picture or DICOM object."""
    root = ward.folder / "store"
    texts = []
    for path in (each for each in root.rglob("*") if each.is_file()):
        name = path.relative_to(root).as_posix()
        texts.append(name)
        if name.startswith("catalog/") or ("/jobs/" in name and path.suffix == ".json"):
            texts.append(path.read_text())
    assert len(texts) > 10
    return "\n".join(texts)


def test_nothing_of_a_patient_leaves_by_logs_metrics_redis_or_documents(
    ward: Ward, start: Callable[..., WorkerProcess]
) -> None:
    port = free_port()
    worker = start("alpha", WHYLIGHT_WORKER__METRICS_PORT=str(port))
    worker_process.wait_ready(ward.backends, ward.package.package, worker)
    for outcome, file in images(ward.folder):
        study = take_in(ward.backends.store, file)
        job = ask(ward.backends, ward.package, study, artifacts=["json", "png", "dicom_sc"])
        record = ended(ward.backends, job)
        if outcome == "succeeds":
            assert record.state is State.SUCCEEDED
        else:
            assert record.failure is not None
            assert record.failure.code == outcome
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        metrics = answer.read().decode()
    for told in ("jobs_finished_total", "job_stage_duration_seconds_count", "batch_size_count"):
        assert f"whylight_{told}{{" in metrics
    assert "whylight_batch_wait_seconds_count 0.0" not in metrics
    assert worker.end(signal.SIGTERM) == 0
    log = worker.log.read_text()
    sources = {"log": log, "metrics": metrics, "redis": redis_values(ward)}
    for name, text in {**sources, "store": stored_texts(ward)}.items():
        assert CANARY.lower() not in text.lower(), name
        assert ROOT not in text, name
        assert BIRTH not in text, name
    allowed = FIELDS | {"at", "level", "component", "event"}
    for line in worker.lines():
        assert line["event"] in EVENTS
        assert set(line) <= allowed


def test_the_canaries_would_be_seen(ward: Ward) -> None:
    """The search above finds a canary where there is one: in the study's own record."""
    (_, file), *_ = images(ward.folder)
    study = take_in(ward.backends.store, file)
    record = ward.backends.store.get(paths.study_record("hospital", study.id)).decode()
    assert ROOT in record
    assert CANARY in str(pydicom.dcmread(file).PatientName)
    assert np.array_equal(pydicom.dcmread(file).pixel_array, picture(7, SIDE, SIDE))
