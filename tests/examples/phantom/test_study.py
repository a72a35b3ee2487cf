"""The bundled studies in ``examples/studies/chest``."""

import json

import numpy as np
import pydicom
import pytest
from PIL import Image

from examples.phantom.chest import draw
from examples.phantom.samples import full_size
from examples.phantom.study import BUNDLE, FOLDER, box

INDEX = {
    entry["dicom"]: entry for entry in json.loads((FOLDER / "lesions.json").read_text())["images"]
}


@pytest.mark.parametrize("bundled", BUNDLE, ids=lambda each: each.name)
def test_a_bundled_radiograph_is_its_case(bundled):
    data = pydicom.dcmread(FOLDER / f"{bundled.name}.dcm")
    radiograph = draw(bundled.case, full_size(bundled.case))
    pixels = data.pixel_array.astype(int)
    if bundled.photometric == "MONOCHROME1":
        pixels = 4095 - pixels
    assert data.PhotometricInterpretation == bundled.photometric
    # Other processors may round a value the other way.
    assert np.abs(pixels - radiograph.stored).max() <= 1
    for name, mask in radiograph.masks.items():
        stored = np.asarray(Image.open(FOLDER / f"{bundled.name}.{name}.png")) == 255
        assert (stored ^ mask).mean() < 1e-4


@pytest.mark.parametrize("bundled", BUNDLE, ids=lambda each: each.name)
def test_the_index_tells_where_every_finding_is(bundled):
    entry = INDEX[f"{bundled.name}.dcm"]
    data = pydicom.dcmread(FOLDER / entry["dicom"], stop_before_pixels=True)
    assert entry["sop_instance_uid"] == data.SOPInstanceUID
    assert {lesion["finding"] for lesion in entry["lesions"]} == bundled.case.findings
    for lesion in entry["lesions"]:
        mask = np.asarray(Image.open(FOLDER / lesion["mask"])) == 255
        assert mask.shape == (entry["rows"], entry["columns"]) == (data.Rows, data.Columns)
        assert box(mask) == lesion["box"]


def test_the_bundle_holds_both_photometric_interpretations_and_all_findings():
    assert {each.photometric for each in BUNDLE} == {"MONOCHROME1", "MONOCHROME2"}
    assert len(frozenset().union(*(each.case.findings for each in BUNDLE))) == 5
