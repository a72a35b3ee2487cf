"""All DICOM objects of series, judged by programs of others."""

import io
import os
import subprocess
from hashlib import sha256

import numpy as np
import pydicom
import pytest

from tests.support import corpus, orthanc
from tests.support.dciodvfy import complaints
from tests.support.iod_tables import missing
from tests.support.programs import needs
from tests.support.series import DRAWN, FOLDERS, real, series_sheet
from workers.formats.base import FORMATS
from workers.sheets import write

DICOM = tuple(name for name in FORMATS if FORMATS[name].media_type == "application/dicom")
EVERY = int(os.environ.get("WHYLIGHT_CONFORMANCE_EVERY", "2"))
REAL = tuple(FOLDERS.values())[::EVERY]


@pytest.fixture
def made(tmp_path):
    """Write every DICOM object of a map of a series; asked anew in each test."""

    def of(files, **changes):
        asked = sha256(str(tmp_path).encode()).hexdigest()
        sheet = series_sheet(files, tmp_path / "work", digest=asked, **changes)
        (tmp_path / "out").mkdir(exist_ok=True)
        found, omitted = write(sheet, DICOM, tmp_path / "out")
        placed = sheet.record.volume.frame_of_reference_uid != ""
        assert {each.format for each in omitted} == (set() if placed else {"dicom_pm", "dicom_seg"})
        return found

    return of


@pytest.fixture(params=list(DRAWN))
def drawn(request, tmp_path):
    (tmp_path / "in").mkdir()
    return DRAWN[request.param](tmp_path / "in")


WAYS = (
    {},
    {"objects": "single_frame"},
    {"slices": "all", "transfer_syntax": "rle_lossless"},
    {"style": "contour", "transfer_syntax": "jpeg_ls_lossless"},
)


@needs("dciodvfy")
@pytest.mark.parametrize("how", WAYS)
def test_no_object_has_an_error_or_lacks_what_the_tables_want(made, drawn, how):
    for artifact, file in made(drawn, **how):
        assert complaints(artifact.format, file) == [], artifact.name
        assert missing(pydicom.dcmread(file)) == [], artifact.name


@needs("dciodvfy")
@pytest.mark.skipif(not corpus.FOLDER, reason=corpus.REASON)
@pytest.mark.parametrize("folder", REAL)
def test_no_object_of_a_real_series_has_an_error(made, folder):
    for artifact, file in made(real(folder)):
        assert complaints(artifact.format, file) == [], artifact.name
        assert missing(pydicom.dcmread(file)) == [], artifact.name


@pytest.fixture(scope="module")
def pacs():
    with orthanc.running() as peer:
        yield peer


def stored(pacs, file):
    ds = pydicom.dcmread(file)
    return ds, pydicom.dcmread(io.BytesIO(pacs.file(ds.SOPInstanceUID)))


@pytest.mark.orthanc
def test_a_pacs_files_every_object_beside_its_slices(pacs, made, drawn):
    pacs.store(*(each.read_bytes() for each in drawn))
    for _, file in made(drawn):
        assert pacs.store(file.read_bytes()).status_code == 200
        sent, found = stored(pacs, file)
        assert found == sent
        assert found.StudyInstanceUID == pydicom.dcmread(drawn[0]).StudyInstanceUID


@pytest.mark.orthanc
@needs("storescu")
def test_a_pacs_takes_every_object_by_c_store_too(pacs, made, tmp_path):
    for _, file in made(DRAWN["axial"](tmp_path)):
        pacs.send(file, "-xe")
        sent, found = stored(pacs, file)
        assert found == sent


@pytest.mark.orthanc
def test_a_pacs_renders_the_pictures(pacs, made, tmp_path):
    for artifact, file in made(DRAWN["axial"](tmp_path)):
        if artifact.format == "dicom_sc":
            pacs.store(file.read_bytes())
            ds, _ = stored(pacs, file)
            uids = (ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)
            assert pacs.rendered(*uids).status_code == 200


@needs("dcm2pnm", "dcmdump")
def test_dcmtk_reads_every_object_and_shows_every_frame(made, tmp_path):
    for artifact, file in made(DRAWN["axial"](tmp_path)):
        subprocess.run(["dcmdump", "-q", file], check=True, capture_output=True, timeout=30)
        if artifact.format == "dicom_sc":
            frames = pydicom.dcmread(file).pixel_array
            for number in (1, len(frames)):
                shown = tmp_path / "shown.ppm"
                command = ["dcm2pnm", "+F", str(number), file, shown]
                subprocess.run(command, check=True, timeout=30)
                head, _, size, _, pixels = _parts(shown.read_bytes())
                assert head == b"P6"
                assert list(map(int, size.split())) == [frames.shape[2], frames.shape[1]]
                assert np.array_equal(
                    np.frombuffer(pixels, np.uint8).reshape(frames.shape[1:]), frames[number - 1]
                )


def _parts(data):
    """Split a PPM file into its lines of text and its pixels."""
    lines = data.split(b"\n", 4)
    if lines[1].startswith(b"#"):
        return lines
    head, size, depth, pixels = data.split(b"\n", 3)
    return [head, b"", size, depth, pixels]


@needs("dsrdump")
def test_dcmtk_reads_the_documents(made, tmp_path):
    for artifact, file in made(DRAWN["axial"](tmp_path)):
        if artifact.format in {"dicom_sr", "dicom_ko"}:
            read = subprocess.run(
                ["dsrdump", "+Pl", file], capture_output=True, check=True, timeout=30
            )
            assert b"ot for diagnosis" in read.stdout or b"Imaging Measurement" in read.stdout
