"""Every kind of object of series, judged by programs of others.

`make test` takes drawn series and two of the corpus; `make conformance` takes every file or
series of the corpus that is a volume, and keeps what was found for the conformance statement.
"""

import json
from dataclasses import asdict
from hashlib import sha256

import pydicom
import pytest

from service.errors.base import WhylightError
from tests.conformance.test_every_image import DICOM, EVERY
from tests.support import corpus, orthanc
from tests.support.programs import needs
from tests.support.series import DRAWN, FOLDERS, every, real, series_sheet
from tests.support.verdicts import PROGRAMS, verdicts
from workers.sheets import write

SERIES = (
    dict(list(every().items())[::EVERY])
    if EVERY
    else {name: real(FOLDERS[name]) for name in list(FOLDERS)[::2]}
)
WAYS = (
    {"slices": "all", "transfer_syntax": "rle_lossless"},
    {"style": "contour", "transfer_syntax": "jpeg_ls_lossless"},
    {"transfer_syntax": "jpeg_2000_lossless"},
)
pytestmark = [pytest.mark.orthanc, needs(*PROGRAMS)]


@pytest.fixture(scope="module")
def pacs():
    with orthanc.running() as peer:
        yield peer


@pytest.fixture
def judged(pacs, tmp_path):
    """Write every DICOM object of a map of a series, and have them judged."""

    def of(files, **how):
        (tmp_path / "out").mkdir(exist_ok=True)
        asked = sha256(f"{files[0]}/{how}".encode()).hexdigest()
        sheet = series_sheet(files, tmp_path / "work", digest=asked, **how)
        made, omitted = write(sheet, DICOM, tmp_path / "out")
        placed = sheet.record.volume.frame_of_reference_uid != ""
        assert {each.format for each in omitted} == (set() if placed else {"dicom_pm", "dicom_seg"})
        study = {pydicom.dcmread(file).StudyInstanceUID for _, file in made}
        assert study == {pydicom.dcmread(files[0], force=True).StudyInstanceUID}
        return list(verdicts(made, files, pacs)), [each.format for each in omitted]

    return of


@pytest.mark.skipif(not corpus.FOLDER, reason=corpus.REASON)
@pytest.mark.parametrize("name", SERIES)
def test_every_object_of_a_real_series_is_accepted(judged, name, record_property):
    found, omitted = [], []
    for objects in ("multi_frame", "single_frame") if EVERY else ("multi_frame",):
        try:
            verdicts_, lacking = judged(SERIES[name], objects=objects)
        except WhylightError as refusal:
            if not EVERY:
                raise
            record_property("series_refused", refusal.code)  # no volume, and so refused by name
            return
        found += verdicts_
        omitted += lacking
    record_property("series", json.dumps([*map(asdict, found)]))
    record_property("series_omitted", json.dumps(omitted))
    assert [each for each in found if not each.good] == []


@pytest.mark.parametrize("objects", ["multi_frame", "single_frame"])
@pytest.mark.parametrize("name", DRAWN)
def test_every_object_of_a_drawn_series_is_accepted(judged, tmp_path, name, objects):
    (tmp_path / "in").mkdir()
    found, _ = judged(DRAWN[name](tmp_path / "in"), objects=objects)
    assert [each for each in found if not each.good] == []


@pytest.mark.parametrize("how", WAYS)
def test_the_ways_to_write_a_series_are_accepted(judged, tmp_path, how):
    found, _ = judged(DRAWN["sheared"](tmp_path), **how)
    assert [each for each in found if not each.good] == []
