"""All DICOM objects of an image, as far as every kind of image need not be asked."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis.strategies import booleans

from service.domain.artifact import Artifact
from tests.support.dciodvfy import complaints, ours
from tests.support.hostile_headers import HEADERS, PLANE, hostile, tried
from tests.support.phantom_dicom import encoded, of_pixels
from tests.support.programs import needs
from tests.support.sheets import blob, sheet
from workers.formats.base import FORMATS
from workers.sheets import write

DICOM = tuple(name for name in FORMATS if FORMATS[name].media_type == "application/dicom")


def made(path: Path, folder: Path, *, frame: int = 1, **changes) -> Iterator[tuple[Artifact, Path]]:
    """Every DICOM object of a signed map on one frame of the image."""
    relevance = blob((14, 14), signed=True)
    drawn = sheet(path, folder / "work", relevance, frame=frame, signed=True, **changes)
    files, omitted = write(drawn, DICOM, folder)
    assert {each.format for each in omitted} <= {"dicom_pm"}
    assert len(files) + len(omitted) == len(DICOM)
    yield from files


@needs("dciodvfy")
@tried(10)
@given(header=HEADERS, placed=booleans())
def test_no_object_of_a_hostile_header_has_an_error(tmp_path, header, placed):
    path = tmp_path / "source.dcm"
    path.write_bytes(hostile({**(PLANE if placed else {}), **header}))
    for artifact, file in made(path, tmp_path):
        assert ours(complaints(artifact.format, file), path) == [], artifact.format


@needs("dciodvfy")
@pytest.mark.parametrize("frame", [b"1.2.3", b"0.1.2"])
def test_no_object_of_a_study_in_chinese_has_an_error(tmp_path, frame):
    path = tmp_path / "source.dcm"
    long = {"StudyID": "山" * 16, "StudyDescription": "山" * 64, "PatientName": "山" * 30}
    said = {**PLANE, "FrameOfReferenceUID": frame, "SpecificCharacterSet": b"ISO_IR 192"}
    path.write_bytes(hostile({**said, **{name: text.encode() for name, text in long.items()}}))
    for artifact, file in made(path, tmp_path):
        assert ours(complaints(artifact.format, file), path) == [], artifact.format
        assert pydicom.dcmread(file).StudyID == long["StudyID"]


@needs("dciodvfy")
@pytest.mark.parametrize("said", [{"PixelAspectRatio": [2, 1]}, {"PixelSpacing": ["0.2", "0.1"]}])
def test_no_object_of_pixels_that_are_not_square_has_an_error(tmp_path, said):
    path = tmp_path / "source.dcm"
    path.write_bytes(encoded(of_pixels(np.zeros((64, 48), np.uint16), **said)))
    for artifact, file in made(path, tmp_path):
        assert complaints(artifact.format, file) == [], artifact.format


@needs("dciodvfy")
@pytest.mark.parametrize("placed", [{}, PLANE])
def test_no_object_of_a_map_that_was_stopped_early_has_an_error(tmp_path, placed):
    path = tmp_path / "source.dcm"
    path.write_bytes(hostile(placed))
    long = {"method_title": "A method of a very long name " * 3, "extras": {"samples": 50.0}}
    for artifact, file in made(path, tmp_path, partial=True, **long):
        assert ours(complaints(artifact.format, file), path) == [], artifact.format


@needs("dsrdump")
def test_dcmtk_reads_the_report(tmp_path):
    path = tmp_path / "source.dcm"
    path.write_bytes(encoded(of_pixels(np.zeros((64, 48), np.uint16))))
    (report,) = (file for artifact, file in made(path, tmp_path) if artifact.format == "dicom_sr")
    read = subprocess.run(["dsrdump", "+Pl", report], capture_output=True, check=True, timeout=30)
    text = read.stdout.decode()
    assert "Imaging Measurement Report" in text
    assert "describes the model, not the patient" in text
