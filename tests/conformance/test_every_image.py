"""Every kind of object of every kind of image, judged by programs of others.

`make test` takes images in which each class, modality, transfer syntax and form of pixels
comes once at least; `make conformance` takes all, and keeps what was found for the tables of
the conformance statement.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import get_args

import numpy as np
import pydicom
import pytest

from service.domain.request import TransferSyntax
from service.errors.studies import UnsupportedImage
from tests.support import corpus, orthanc
from tests.support.phantom_dicom import encoded, of_pixels
from tests.support.programs import needs
from tests.support.sheets import blob, sheet
from tests.support.verdicts import PROGRAMS, Verdict, verdicts
from workers.formats.base import FORMATS
from workers.sheets import write

EVERY = int(os.environ.get("WHYLIGHT_CONFORMANCE_EVERY", "0"))
"""Every how many-th image is taken; 0: those that cover all kinds."""

DICOM = tuple(name for name in FORMATS if FORMATS[name].media_type == "application/dicom")
CAPTURES = ("dicom_sc", "dicom_sc_word")
"""Those that can be compressed."""

PLAIN, *LOSSLESS = get_args(TransferSyntax)
SOURCES = (
    [path for path in corpus.FILES if corpus.header(path)][::EVERY] if EVERY else corpus.covering()
)
PLACED = {
    "FrameOfReferenceUID": "2.25.4",
    "ImagePositionPatient": [0, 0, 0],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "PixelSpacing": [0.5, 0.5],
    "SliceThickness": "3",
}
pytestmark = [pytest.mark.orthanc, needs(*PROGRAMS)]


@pytest.fixture(scope="module")
def pacs():
    with orthanc.running() as peer:
        yield peer


def judged(
    path: Path, folder: Path, pacs: orthanc.Orthanc, syntax: str, formats: Sequence[str]
) -> tuple[list[Verdict], list[str]]:
    """Return what is found of the objects of a map on an image's last frame, and what lacks."""
    header = corpus.header(path)
    frame = 1 if header is None else header.number_of_frames
    asked = sha256(f"{path}/{syntax}".encode()).hexdigest()  # another question each time
    said = {"signed": True, "digest": asked, "transfer_syntax": syntax}
    drawn = sheet(path, folder / "work", blob((14, 14), signed=True), frame=frame, **said)
    made, omitted = write(drawn, formats, folder)
    studies = {pydicom.dcmread(file).StudyInstanceUID for _, file in made}
    assert header is None or studies == {header.study_instance_uid}
    return list(verdicts(made, [path], pacs)), [each.format for each in omitted]


@pytest.mark.skipif(not corpus.FOLDER, reason=corpus.REASON)
@pytest.mark.parametrize("path", SOURCES, ids=corpus.name)
def test_every_object_of_a_real_image_is_accepted(path, pacs, tmp_path, record_property):
    try:
        found, omitted = judged(path, tmp_path, pacs, PLAIN, DICOM)
        syntax = LOSSLESS[SOURCES.index(path) % len(LOSSLESS)]  # each in turn
        found += judged(path, tmp_path, pacs, syntax, CAPTURES)[0]
    except UnsupportedImage:
        header = corpus.header(path)
        assert header is not None
        assert header.bits_allocated == 1  # a segmentation
        record_property("images_refused", "unsupported_image")
        return
    record_property("images", json.dumps([*map(asdict, found)]))
    record_property("images_omitted", json.dumps(omitted))
    assert [each for each in found if not each.good] == []
    assert set(omitted) <= {"dicom_pm"}


@pytest.mark.parametrize("syntax", [PLAIN, *LOSSLESS])
@pytest.mark.parametrize("place", [{}, PLACED], ids=["projection", "slice"])
def test_every_object_of_a_drawn_image_is_accepted(place, syntax, pacs, tmp_path):
    path = tmp_path / "source.dcm"
    ramp = np.add.outer(np.arange(256), np.arange(192)).astype(np.uint16)
    path.write_bytes(encoded(of_pixels(ramp, bits=12, **place)))
    found, omitted = judged(path, tmp_path, pacs, syntax, DICOM)
    assert [each for each in found if not each.good] == []
    assert omitted == ([] if place else ["dicom_pm"])
    assert len(found) + len(omitted) == len(DICOM)


def test_what_is_wrong_is_told(pacs, tmp_path):
    path = tmp_path / "source.dcm"
    path.write_bytes(encoded(of_pixels(np.zeros((64, 48), np.uint16))))
    drawn = sheet(path, tmp_path / "work", blob((14, 14)))
    ((artifact, file),), _ = write(drawn, ["dicom_sc"], tmp_path)
    wrong = file.read_bytes().replace(b"\x08\x00\x64\x00CS\x04\x00WSD ", b"")  # Conversion Type
    file.write_bytes(wrong)
    (verdict,) = verdicts([(artifact, file)], [path], pacs)
    assert verdict.errors
    assert verdict.lacking == ("ConversionType",)
    assert not verdict.good
