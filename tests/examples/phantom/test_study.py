"""The bundled studies in ``examples/studies/chest``."""

import json
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from PIL import Image

from examples.phantom.chest import draw
from examples.phantom.evaluate import logits_of
from examples.phantom.package import load
from examples.phantom.samples import full_size, read
from examples.phantom.study import BUNDLE, FOLDER, box
from examples.phantom.train import SHAPE

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


def test_the_marked_study_shows_the_marker_where_the_index_says_and_no_lesion():
    (bundled,) = (each for each in BUNDLE if each.case.marker)
    entry = INDEX[f"{bundled.name}.dcm"]
    mask = np.asarray(Image.open(FOLDER / entry["marker"]["mask"])) == 255
    pixels = pydicom.dcmread(FOLDER / entry["dicom"]).pixel_array
    plain = draw(replace(bundled.case, marker=False), full_size(bundled.case)).stored
    assert entry["lesions"] == []
    assert box(mask) == entry["marker"]["box"]
    change = np.abs(pixels.astype(int) - plain)
    assert change[~mask].max() <= 1
    assert (change[mask] > 100).mean() > 0.9


def test_the_marked_study_is_a_nodule_to_the_model_with_the_shortcut_alone():
    content = (FOLDER / "marker.dcm").read_bytes()
    models = FOLDER.parents[2] / "models"
    called = {
        name: logits_of(load(models / name, SHAPE), read(content)[None, None])[0] > 0
        for name in ("chest-phantom", "chest-phantom-marker", "chest-phantom-control")
    }
    assert called["chest-phantom-marker"].tolist() == [True, False, False, False, False]
    assert not called["chest-phantom"].any()
    assert not called["chest-phantom-control"].any()


def test_only_marked_radiographs_have_a_marker_in_the_index():
    for bundled in BUNDLE:
        assert ("marker" in INDEX[f"{bundled.name}.dcm"]) is bundled.case.marker


def test_the_bundle_holds_both_photometric_interpretations_and_all_findings():
    assert {each.photometric for each in BUNDLE} == {"MONOCHROME1", "MONOCHROME2"}
    assert len(frozenset().union(*(each.case.findings for each in BUNDLE))) == 5
