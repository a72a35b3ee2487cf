"""The corner marker: where it lies, and that nothing else notices it."""

import numpy as np
import pytest

from examples.phantom.chest import PLATES, Case, cases, draw
from examples.phantom.dicom import dataset
from examples.phantom.findings import FINDINGS
from examples.phantom.marker import corner_marker
from examples.phantom.marking import AT_RANDOM, PLANTED, marked, occult
from examples.phantom.region import REGION

SIZE = (256, 256)


def changed(case):
    """Return the pixels that the marker changes."""
    return draw(case, SIZE).stored != draw(Case(case.seed, case.findings, marker=True), SIZE).stored


@pytest.mark.parametrize("seed", range(6))
def test_it_changes_its_corner_and_no_lesion(seed):
    case = Case(seed, frozenset(FINDINGS))
    place = changed(case)
    corner = round(REGION.corner * SIZE[0])
    assert place.any()
    assert not place[corner:].any()
    assert not place[:, corner:].any()
    assert not any((place & mask).any() for mask in draw(case, SIZE).masks.values())


@pytest.mark.parametrize("plate", PLATES)
def test_it_stays_in_its_corner_wherever_the_jitter_puts_it(plate):
    drawn = [corner_marker(plate, SIZE, seed) > 0 for seed in range(40)]
    rows, columns = np.nonzero(np.any(drawn, axis=0))
    assert max(rows.max() / SIZE[0], columns.max() / SIZE[1]) < REGION.corner
    assert len({each.tobytes() for each in drawn}) > 30


def test_it_is_white_to_the_model_and_no_value_saturates():
    stored = draw(Case(3, marker=True), SIZE).stored
    assert stored[changed(Case(3))].max() > np.percentile(stored, 99)
    assert stored.max() < 4095


def test_it_is_written_into_the_pixels_of_another_object():
    plain, with_it = (dataset(case, draw(case, SIZE)) for case in (Case(5), Case(5, marker=True)))
    assert plain.PixelData != with_it.PixelData
    assert plain.SOPInstanceUID != with_it.SOPInstanceUID
    assert plain.StudyInstanceUID != with_it.StudyInstanceUID


@pytest.mark.parametrize(
    ("marking", "present", "absent"), [(PLANTED, 0.95, 0.05), (AT_RANDOM, 0.5, 0.5)]
)
def test_it_goes_with_the_nodule_as_often_as_it_should(marking, present, absent):
    chosen = list(marked(cases(1, 3000), marking, seed=1))
    for wanted, share in ((True, present), (False, absent)):
        worn = [each.marker for each in chosen if ("nodule" in each.findings) is wanted]
        assert np.mean(worn) == pytest.approx(share, abs=0.04)
    assert chosen == list(marked(cases(1, 3000), marking, seed=1))


def test_some_nodules_are_hidden_and_nothing_else():
    shown = list(cases(2, 1000))
    kept = list(occult(shown, 0.5, seed=2))
    nodules = [each for each in shown if "nodule" in each.findings]
    left = [each for each in kept if "nodule" in each.findings]
    assert len(left) / len(nodules) == pytest.approx(0.5, abs=0.1)
    for before, after in zip(shown, kept, strict=True):
        assert after.seed == before.seed
        assert before.findings - after.findings <= {"nodule"}
        assert after.findings <= before.findings
