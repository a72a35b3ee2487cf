"""Captures, judged by programs of others."""

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from tests.support import corpus, orthanc
from tests.support.phantom_dicom import encoded, of_pixels
from tests.support.sheets import blob, sheet
from workers.sheets import write


def capture(path: Path, folder: Path) -> Path:
    drawn = sheet(path, folder / "work", blob((14, 14)))
    ((_, file),), _ = write(drawn, ["dicom_sc"], folder)
    return file


@pytest.fixture
def phantom(tmp_path: Path) -> Path:
    path = tmp_path / "source.dcm"
    ramp = np.add.outer(np.arange(512), np.arange(512)).astype(np.uint16)
    path.write_bytes(encoded(of_pixels(ramp, bits=12)))
    return path


NAMED = [path for path in corpus.FILES if path.name.startswith("chr")]


@pytest.mark.skipif(not corpus.FILES, reason=corpus.REASON)
def test_a_name_in_any_character_set_is_kept(tmp_path):
    kept = {}
    pixels = of_pixels(np.zeros((64, 48), np.uint16))
    for path in NAMED:
        ds = pydicom.dcmread(path)
        for element in pixels.group_dataset(0x0028):
            ds[element.tag] = element
        ds.add_new("PixelData", "OW", pixels.PixelData)
        ds.save_as(tmp_path / path.name)  # the name's bytes stay as they are
        made = pydicom.dcmread(capture(tmp_path / path.name, tmp_path))
        kept[path.name] = str(made.get("PatientName") or "")
        name = str(ds.get("PatientName") or "")
        assert kept[path.name] == name.replace("\x1b$)A", ""), path.name  # pydicom leaves it in
    assert kept["chrGB2312.dcm"] == "Zhang^XiaoDong=\u5f20^\u5c0f\u4e1c"
    assert kept["chrH31.dcm"].startswith("Yamada^Tarou=\u5c71\u7530^\u592a\u90ce=")


@pytest.fixture(scope="module")
def pacs():
    with orthanc.running() as peer:
        yield peer


def round_trip(pacs: orthanc.Orthanc, file: Path) -> None:
    data = file.read_bytes()
    ds = pydicom.dcmread(io.BytesIO(data))
    answer = pacs.store(data)
    assert answer.status_code == 200, answer.text
    stored = pydicom.dcmread(io.BytesIO(pacs.file(ds.SOPInstanceUID)))
    assert stored == ds
    picture = pacs.rendered(ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)
    assert picture.status_code == 200, picture.text
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(picture.content))), ds.pixel_array)


@pytest.mark.orthanc
def test_storing_a_capture_twice_keeps_one(pacs, phantom, tmp_path):
    file = capture(phantom, tmp_path)
    assert {pacs.store(file.read_bytes()).status_code for _ in range(2)} == {200}
    assert pacs.file(pydicom.dcmread(file).SOPInstanceUID)


@pytest.mark.orthanc
@pytest.mark.skipif(not corpus.FOLDER, reason=corpus.REASON)
@pytest.mark.parametrize("name", ["dx_image.dcm", "chrX1.dcm"])
def test_a_pacs_files_a_capture_beside_its_real_source(pacs, name, tmp_path):
    source = corpus.find(f"/{name}")
    pacs.store(source.read_bytes())
    round_trip(pacs, capture(source, tmp_path))
