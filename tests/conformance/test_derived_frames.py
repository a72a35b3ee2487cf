"""Objects made of one frame of real cine loops and enhanced images: the validator agrees."""

import pydicom
import pytest

from tests.conformance.test_derived_objects import made
from tests.support import corpus
from tests.support.dciodvfy import complaints, ours
from tests.support.programs import needs

CHOSEN = {"MOVEKNEE.dcm": 3, "NM-MONO2-16-13x-heart": 4}
"""Frames that are neither the first nor the last."""


@needs("dciodvfy")
@pytest.mark.skipif(not corpus.FOLDER, reason=corpus.REASON)
@pytest.mark.parametrize("name", CHOSEN)
def test_no_object_of_a_frame_has_an_error(name, tmp_path):
    path = corpus.find(f"/{name}")
    for artifact, file in made(path, tmp_path, frame=CHOSEN[name]):
        assert ours(complaints(artifact.format, file), path) == [], artifact.format


@pytest.mark.skipif(not corpus.FOLDER, reason=corpus.REASON)
def test_a_map_of_an_enhanced_frame_lies_where_the_frame_lies(tmp_path):
    path = corpus.find("/eCT_Supplemental.dcm")
    groups = pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
    for frame in (1, 2):
        objects = {
            each.format: file for each, file in made(path, tmp_path / str(frame), frame=frame)
        }
        place = pydicom.dcmread(objects["dicom_pm"]).PerFrameFunctionalGroupsSequence[0]
        expected = groups[frame - 1].PlanePositionSequence[0].ImagePositionPatient
        assert place.PlanePositionSequence[0].ImagePositionPatient == expected
