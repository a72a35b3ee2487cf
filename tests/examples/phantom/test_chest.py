import numpy as np
import pytest

from examples.phantom.chest import MAXIMUM, Case, cases, draw
from examples.phantom.findings import FINDINGS
from examples.phantom.preparation import prepare
from examples.phantom.samples import full_size

SIZE = (256, 256)


def test_the_same_case_is_drawn_the_same_twice():
    case = Case(5, frozenset(FINDINGS))
    assert np.array_equal(draw(case, SIZE).stored, draw(case, SIZE).stored)


def test_another_seed_is_another_chest():
    assert not np.array_equal(draw(Case(5), SIZE).stored, draw(Case(6), SIZE).stored)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("finding", FINDINGS)
def test_a_finding_changes_the_image_inside_its_mask_and_nowhere_else(finding, seed):
    shown, without = draw(Case(seed, frozenset({finding})), SIZE), draw(Case(seed), SIZE)
    changed, mask = shown.stored != without.stored, shown.masks[finding]
    assert not (changed & ~mask).any()
    assert changed[mask].mean() > 0.97


@pytest.mark.parametrize("finding", FINDINGS)
def test_every_mask_is_there_and_smaller_than_a_quarter_of_the_image(finding):
    areas = [draw(Case(s, frozenset({finding})), SIZE).masks[finding].mean() for s in range(30)]
    assert min(areas) > 0.001
    assert max(areas) < 0.25


def test_other_findings_do_not_move_a_mask():
    alone = draw(Case(9, frozenset({"nodule"})), SIZE).masks["nodule"]
    together = draw(Case(9, frozenset(FINDINGS)), SIZE).masks["nodule"]
    assert np.array_equal(alone, together)


def test_stored_values_use_twelve_bits_without_saturating():
    stored = draw(Case(3, frozenset(FINDINGS)), SIZE).stored
    assert stored.dtype == np.uint16
    assert stored.min() > 0
    assert MAXIMUM / 2 < stored.max() < MAXIMUM


@pytest.mark.parametrize("seed", [10, 11])
def test_a_case_looks_the_same_to_the_model_at_any_size(seed):
    case = Case(seed, frozenset({"nodule", "effusion"}))
    draft, full = prepare(draw(case, SIZE).stored), prepare(draw(case, full_size(case)).stored)
    assert np.abs(draft - full).mean() < 0.03
    assert np.corrcoef(draft.ravel(), full.ravel())[0, 1] > 0.998


def test_findings_come_independently_of_each_other():
    shown = np.array([[name in case.findings for name in FINDINGS] for case in cases(1, 4000)])
    correlation = np.corrcoef(shown.T) - np.eye(len(FINDINGS))
    assert np.abs(shown.mean(0) - 0.3).max() < 0.04
    assert np.abs(correlation).max() < 0.06
