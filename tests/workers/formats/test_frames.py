"""Objects made of one frame of several say which frame it was."""

import json

import numpy as np
import pydicom
import pytest

from tests.support.phantom_dicom import encoded, of_pixels
from tests.support.sheets import blob, sheet
from workers.formats.base import FORMATS

FRAMES = np.random.default_rng(8).integers(0, 4096, (3, 64, 64)).astype(np.uint16)


@pytest.fixture
def written(tmp_path):
    """Write `names` of the map of a frame of a cine; returns the objects by name."""

    def write(*names, frame=2, frames=3):
        ds = of_pixels(FRAMES[0], bits=12, Modality="US")
        ds.NumberOfFrames = frames
        ds.PixelData = FRAMES[:frames].tobytes()
        source = tmp_path / "cine.dcm"
        source.write_bytes(encoded(ds))
        drawn = sheet(source, tmp_path / "work", blob((8, 8)), frame=frame)
        found = {}
        for name in names:
            FORMATS[name]().write(drawn, tmp_path / name)
            found[name] = pydicom.dcmread(tmp_path / name)
        return found

    return write


def references(ds):
    """The frame that each reference to the source names, by path; `None` where it names none."""
    found = {}

    def look(node, path):
        if isinstance(node, dict):
            if node.get("00081155", {}).get("Value") == ["2.25.1"]:
                found[path] = node.get("00081160", {}).get("Value")
            for key, each in node.items():
                look(each, f"{path}/{key}")
        elif isinstance(node, list):
            for each in node:
                look(each, path)

    look(json.loads(ds.to_json(suppress_invalid_tags=True)), "")
    return found


NAMES = ("dicom_sc", "dicom_sc_word", "dicom_seg", "dicom_sr")


def test_every_reference_to_the_image_names_its_frame(written):
    for name, ds in written(*NAMES).items():
        images = [
            frame
            for path, frame in references(ds).items()
            if "00082112" in path or "0040A730" in path
        ]
        assert images, name
        assert set(map(tuple, images)) == {(2,)}, name


def test_a_single_frame_is_referred_to_without_a_number(written):
    for name, ds in written(*NAMES, frame=1, frames=1).items():
        assert set(references(ds).values()) == {None}, name


def test_other_frames_of_an_object_give_other_maps_on_other_pixels(written):
    first, third = (written("dicom_sc", frame=k)["dicom_sc"] for k in (1, 3))
    assert first.SOPInstanceUID != third.SOPInstanceUID
