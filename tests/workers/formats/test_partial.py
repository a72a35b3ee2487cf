"""A map that was stopped early says so wherever it goes, and claims no work that was not done."""

import gzip
import io
import json
import re

import nibabel
import numpy as np
import pydicom
import pytest

from service.domain.trust import STATEMENTS, Flag, Grade, TrustReport, statements
from tests.support.sheets import REPORT, blob, sheet
from workers.formats.base import FORMATS
from workers.sheets import write

PLACED = {
    "FrameOfReferenceUID": "1.2.3",
    "ImagePositionPatient": [-10, -20, 30],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "PixelSpacing": [0.5, 0.5],
    "SliceThickness": 2,
}
FLAGS = (Flag.PARTIAL,)
EARLY = {
    "method": "rise",
    "method_title": "RISE",
    "parameters": {"cells": 8, "samples": 16777216},
    "extras": {"samples": 1234567.0},
    "partial": True,
    "trust": TrustReport(
        grade=Grade.NOT_CHECKED, flags=FLAGS, statements=statements(Grade.NOT_CHECKED, FLAGS)
    ),
}
WHOLE = EARLY | {"partial": False, "trust": REPORT}
MARK = re.compile(r"partial|stopped early", re.IGNORECASE)
DICOM = [name for name in FORMATS if FORMATS[name].media_type == "application/dicom"]


@pytest.fixture
def made(source, tmp_path):
    """A function that writes a map, whole or partial, in all formats and returns them by name."""

    def of(**changes) -> dict[str, bytes]:
        drawn = sheet(source(**PLACED), tmp_path / "work", blob((12, 10)), **changes)
        files, omitted = write(drawn, [*FORMATS], tmp_path)
        assert not omitted
        return {artifact.format: file.read_bytes() for artifact, file in files}

    return of


def objects(files) -> dict[str, pydicom.Dataset]:
    return {name: pydicom.dcmread(io.BytesIO(files[name])) for name in DICOM}


def text_items(ds):
    """All text of a document's content tree, by the meaning of its concept."""
    for item in ds.get("ContentSequence", ()):
        if item.ValueType == "TEXT":
            yield item.ConceptNameCodeSequence[0].CodeMeaning, item.TextValue
        yield from text_items(item)


def test_every_dicom_object_says_so_where_its_kind_is_read(made):
    of = objects(made(**EARLY))
    for ds in of.values():
        assert ds.SeriesDescription.startswith("PARTIAL: ")
    for name in ("dicom_sc", "dicom_sc_word", "dicom_pm", "dicom_seg"):
        assert "stopped early" in of[name].DerivationDescription
    assert of["dicom_sc"].ImageComments.startswith("Partial map: stopped early.")
    for name in ("dicom_pm", "dicom_seg"):
        assert of[name].ContentDescription.startswith("Partial map: stopped early.")
    (segment,) = of["dicom_seg"].SegmentSequence
    assert segment.SegmentLabel.startswith("PARTIAL: ")
    assert segment.SegmentDescription.startswith("Partial map: stopped early.")
    assert of["dicom_sr"].CompletionFlag == "PARTIAL"
    assert MARK.search(of["dicom_sr"].CompletionFlagDescription)
    said = dict(text_items(of["dicom_sr"]))
    assert STATEMENTS[Flag.PARTIAL] in said["Comment"]
    selected = dict(text_items(of["dicom_ko"]))["Key Object Description"]
    assert selected.startswith("Partial map: stopped early.")


def test_what_was_not_done_is_not_stated_as_done(made):
    of = objects(made(**EARLY))
    told = [of[name].DerivationDescription for name in DICOM if "DerivationDescription" in of[name]]
    parameters = [text for name, text in text_items(of["dicom_sr"]) if "Parameter" in name]
    for each in (*told, ", ".join(parameters)):
        assert "1234567 samples done" in each
        assert re.findall(r"samples=16777216(.{10})", f"{each},") == [" asked for"]


def test_files_that_are_no_dicom_say_so_too(made):
    files = made(**EARLY)
    described = nibabel.Nifti1Image.from_bytes(gzip.decompress(files["nifti"])).header["descrip"]
    assert described.item().decode().startswith("Partial map: stopped early.")
    assert "rise" in described.item().decode()
    assert json.loads(files["json"])["partial"] is True
    assert bool(np.load(io.BytesIO(files["npz"]))["partial"]) is True


def test_a_whole_map_bears_no_such_mark(made):
    whole = made(**WHOLE)
    for name, ds in objects(whole).items():
        assert not MARK.search(str(ds)), name
    assert objects(whole)["dicom_sr"].CompletionFlag == "COMPLETE"
    assert not MARK.search(gzip.decompress(whole["nifti"])[:348].decode("latin-1"))


def test_partial_maps_have_series_of_their_own(made):
    """Its description is the whole series', in which a whole map must not be called partial."""
    whole, part = objects(made(**WHOLE)), objects(made(**EARLY))
    series = [ds.SeriesInstanceUID for ds in (*whole.values(), *part.values())]
    assert len(set(series)) == len(series)
