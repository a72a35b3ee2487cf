"""All DICOM objects of real images, judged by programs of others."""

import io
import os
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import booleans
from pydicom.dataset import Dataset

from service.dicom.header import read_header
from service.domain.artifact import Artifact
from service.errors import UnsupportedImage, WhylightError
from tests.support import corpus, orthanc
from tests.support.dciodvfy import complaints, ours
from tests.support.hostile_headers import HEADERS, PLANE, hostile
from tests.support.iod_tables import missing
from tests.support.phantom_dicom import encoded, of_pixels
from tests.support.programs import needs
from tests.support.sheets import blob, sheet
from workers.formats.base import FORMATS
from workers.sheets import write

DICOM = tuple(name for name in FORMATS if FORMATS[name].media_type == "application/dicom")
EVERY = int(os.environ.get("WHYLIGHT_CONFORMANCE_EVERY", "2"))
"""Every how many-th image is taken; `make conformance` takes them all."""

PLACED = {
    "FrameOfReferenceUID": "2.25.4",
    "ImagePositionPatient": [0, 0, 0],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "PixelSpacing": [0.5, 0.5],
    "SliceThickness": "3",
}


def frames(path: Path) -> int:
    """Return how many frames a study with this image could be asked for; 0 if it is refused."""
    try:
        return read_header(path, max_samples=corpus.LIMIT).number_of_frames
    except WhylightError:
        return 0


SOURCES = [path for path in corpus.FILES if frames(path)][::EVERY]
FEW = ("dx_image.dcm", "693_J2KR.dcm", "MR_small.dcm", "US1_UNCR.dcm", "chrX1.dcm")


def made(path: Path, folder: Path, *, frame: int = 1, **changes) -> Iterator[tuple[Artifact, Path]]:
    """Every DICOM object of a signed map on one frame of the image."""
    relevance = blob((14, 14), signed=True)
    drawn = sheet(path, folder / "work", relevance, frame=frame, signed=True, **changes)
    files, omitted = write(drawn, DICOM, folder)
    assert {each.format for each in omitted} <= {"dicom_pm"}
    assert len(files) + len(omitted) == len(DICOM)
    yield from files


@pytest.fixture(params=["projection", "slice"])
def phantom(request, tmp_path: Path) -> Path:
    path = tmp_path / "source.dcm"
    ramp = np.add.outer(np.arange(256), np.arange(192)).astype(np.uint16)
    elements = PLACED if request.param == "slice" else {}
    path.write_bytes(encoded(of_pixels(ramp, bits=12, **elements)))
    return path


@needs("dciodvfy")
def test_no_object_has_an_error(phantom, tmp_path):
    for artifact, file in made(phantom, tmp_path):
        assert complaints(artifact.format, file) == [], artifact.format


def test_no_object_lacks_what_the_standards_tables_want(phantom, tmp_path):
    for artifact, file in made(phantom, tmp_path):
        assert missing(pydicom.dcmread(file)) == [], artifact.format


def test_the_tables_find_what_lacks(phantom, tmp_path):
    for _, file in made(phantom, tmp_path):
        ds = pydicom.dcmread(file)
        del ds.StudyID
        ds.SOPInstanceUID = ""
        assert missing(ds) == ["SOPInstanceUID", "StudyID"]


@needs("dciodvfy")
@pytest.mark.parametrize("syntax", ["jpeg_ls_lossless", "jpeg_2000_lossless", "rle_lossless"])
def test_no_compressed_object_has_an_error(phantom, tmp_path, syntax):
    for artifact, file in made(phantom, tmp_path, transfer_syntax=syntax):
        assert complaints(artifact.format, file) == [], artifact.format


@needs("dciodvfy")
@pytest.mark.skipif(not corpus.FOLDER, reason=corpus.REASON)
@pytest.mark.parametrize("path", SOURCES, ids=corpus.name)
def test_no_object_of_a_real_image_has_an_error(path, tmp_path):
    try:
        objects = list(made(path, tmp_path, frame=frames(path)))
    except UnsupportedImage:
        assert frames(path) > 1  # one-bit and 32-bit color
        return
    for artifact, file in objects:
        assert ours(complaints(artifact.format, file), path) == [], artifact.format


@needs("dciodvfy")
@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # shrinking takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(header=HEADERS, placed=booleans())
def test_no_object_of_a_hostile_header_has_an_error(tmp_path, header, placed):
    path = tmp_path / "source.dcm"
    path.write_bytes(hostile({**(PLANE if placed else {}), **header}))
    for artifact, file in made(path, tmp_path):
        assert complaints(artifact.format, file) == [], artifact.format


@needs("dsrdump")
def test_dcmtk_reads_the_report(phantom, tmp_path):
    (report,) = (
        file for artifact, file in made(phantom, tmp_path) if artifact.format == "dicom_sr"
    )
    read = subprocess.run(["dsrdump", "+Pl", report], capture_output=True, check=True, timeout=30)
    text = read.stdout.decode()
    assert "Imaging Measurement Report" in text
    assert "describes the model, not the patient" in text


@needs("dcmdjpls", "dcmdrle")
@pytest.mark.parametrize(
    ("syntax", "program"), [("jpeg_ls_lossless", "dcmdjpls"), ("rle_lossless", "dcmdrle")]
)
def test_dcmtk_decodes_what_is_compressed(phantom, tmp_path, syntax, program):
    (tmp_path / "plain").mkdir()
    plain = {each.format: file for each, file in made(phantom, tmp_path / "plain")}
    for artifact, file in made(phantom, tmp_path, transfer_syntax=syntax):
        if artifact.format.startswith("dicom_sc"):
            subprocess.run([program, file, tmp_path / "x.dcm"], check=True, timeout=30)
            expected = pydicom.dcmread(plain[artifact.format]).pixel_array
            assert np.array_equal(pydicom.dcmread(tmp_path / "x.dcm").pixel_array, expected)


@pytest.fixture(scope="module")
def pacs():
    with orthanc.running() as peer:
        yield peer


def round_trip(pacs: orthanc.Orthanc, file: Path) -> Dataset:
    """Store an object and read it back; it must be equal, element by element."""
    data = file.read_bytes()
    ds = pydicom.dcmread(io.BytesIO(data))
    answer = pacs.store(data)
    assert answer.status_code == 200, answer.text
    assert pydicom.dcmread(io.BytesIO(pacs.file(ds.SOPInstanceUID))) == ds
    return ds


@pytest.mark.orthanc
@pytest.mark.parametrize("syntax", ["explicit_vr_little_endian", "jpeg_ls_lossless"])
def test_a_pacs_stores_every_object_and_gives_it_back(pacs, phantom, tmp_path, syntax):
    asked = sha256(str(tmp_path).encode()).hexdigest()  # another question each time
    for _, file in made(phantom, tmp_path, transfer_syntax=syntax, digest=asked):
        round_trip(pacs, file)


@pytest.mark.orthanc
@needs("storescu")
@pytest.mark.parametrize(
    ("syntax", "option"), [("explicit_vr_little_endian", "-xe"), ("jpeg_ls_lossless", "-xt")]
)
def test_a_pacs_takes_every_object_by_c_store_too(pacs, phantom, tmp_path, syntax, option):
    asked = sha256(str(tmp_path).encode()).hexdigest()
    for artifact, file in made(phantom, tmp_path, transfer_syntax=syntax, digest=asked):
        pacs.send(file, option if artifact.format.startswith("dicom_sc") else "-xe")
        ds = pydicom.dcmread(file)
        assert pydicom.dcmread(io.BytesIO(pacs.file(ds.SOPInstanceUID))) == ds


@pytest.mark.orthanc
@pytest.mark.skipif(not corpus.FOLDER, reason=corpus.REASON)
@pytest.mark.parametrize("name", FEW)
def test_a_pacs_files_every_object_beside_its_real_source(pacs, name, tmp_path):
    source = corpus.find(f"/{name}")
    pacs.store(source.read_bytes())
    study = {round_trip(pacs, file).StudyInstanceUID for _, file in made(source, tmp_path)}
    assert len(study) == 1
