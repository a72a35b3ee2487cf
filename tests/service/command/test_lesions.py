"""Whether a peak lies in a known lesion, on the bundled studies' exact masks."""

import numpy as np
import pydicom
import pytest
from PIL import Image

from service.command.failure import CommandFailure
from service.command.lesions import Lesions
from tests.support.journey import STUDIES


@pytest.fixture(scope="module")
def lesions():
    return Lesions(STUDIES)


def center(mask):
    """Return the pixel of the lesion that lies nearest to the middle of its pixels."""
    cells = np.argwhere(mask)
    return cells[np.abs(cells - cells.mean(axis=0)).sum(axis=1).argmin()]


def test_every_bundled_study_is_dicom_and_has_a_lesion_that_contains_its_own_middle(lesions):
    assert lesions.studies()
    for study in lesions.studies():
        header = pydicom.dcmread(study, stop_before_pixels=True)
        for finding, path in lesions._masks[study.name].items():
            mask = np.asarray(Image.open(path).convert("L")) > 0
            assert mask.shape == (header.Rows, header.Columns)
            row, column = center(mask)
            assert lesions.hit(study, finding, (float(row), float(column))) is True


def test_a_peak_beside_the_lesion_or_outside_the_image_is_no_hit(lesions):
    study = STUDIES / "nodule.dcm"
    for peak in [(0.0, 0.0), (-5.0, 10.0), (1e6, 1e6)]:
        assert lesions.hit(study, "nodule", peak) is False


def test_a_finding_without_a_lesion_is_neither_hit_nor_miss(lesions):
    assert lesions.hit(STUDIES / "nodule.dcm", "effusion", (0.0, 0.0)) is None


def test_the_marker_is_where_it_was_drawn_and_only_there(lesions):
    marked = [study for study in lesions.studies() if lesions.marked(study)]
    assert [study.stem for study in marked] == ["marker"]
    mask = np.asarray(Image.open(STUDIES / "marker.marker.png").convert("L")) > 0
    row, column = center(mask)
    middle, pixel = (mask.shape[0] / 2, mask.shape[1] / 2), (1.0, 1.0)
    assert lesions.on_marker(marked[0], (float(row), float(column)), pixel) is True
    assert lesions.on_marker(marked[0], middle, pixel) is False
    assert lesions.on_marker(STUDIES / "nodule.dcm", (0.0, 0.0), pixel) is None
    assert lesions.findings(marked[0]) == frozenset()


def test_a_cell_that_covers_part_of_the_marker_is_on_it(lesions):
    (marked,) = (study for study in lesions.studies() if lesions.marked(study))
    corner = (39.5, 39.5)  # of a map with cells of 80 pixels; the marker begins at (45, 68)
    assert lesions.on_marker(marked, corner, (80.0, 80.0)) is True
    assert lesions.on_marker(marked, corner, (80.0, 56.0)) is False  # columns 12 to 67
    assert lesions.on_marker(marked, corner, (80.0, 58.0)) is True


def test_what_was_issued_names_every_finding_of_every_study(lesions):
    for study in lesions.studies():
        issued = lesions.issued(study, "chest-phantom")
        assert lesions.findings(study) == {key for key, logit in issued.items() if logit > 0}
        assert len(issued) == 5
    assert lesions.issued(STUDIES / "nodule.dcm", "unheard-of") == {}


def test_a_folder_without_the_truth_is_told(tmp_path):
    with pytest.raises(CommandFailure, match="no bundled studies"):
        Lesions(tmp_path)
