"""Calibrations of maps whose figures are known on paper."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from service.domain.certificate import MethodCalibration
from service.domain.grid import Grid
from service.domain.outputs import ClassSpec
from tests.support.cells import weights
from workers.certify.calibration import calibrated
from workers.certify.cases import Case
from workers.certify.ground import Ground
from workers.certify.maps import Drawn
from workers.measures.bank import Bank
from workers.measures.bearing import brought

EXTENT = (64, 64)
PLACES = weights(EXTENT)
"""Weight of each place that the bank hides, at each pixel."""

SPECS = tuple(ClassSpec(key=key, label=key, threshold=0.5) for key in ("a", "b"))


def manifest_of(*views):
    image = SimpleNamespace(views=[SimpleNamespace(key=each) for each in views])
    return SimpleNamespace(classes=SPECS, task="classification-multilabel", image=image)


def drawn(values):
    values = np.asarray(values, np.float32)[None]
    return (Drawn(values, Grid.partition(values.shape[1:], EXTENT), EXTENT),)


def blob(row, column):
    """Return a smooth spot on the image's own grid."""
    y, x = np.mgrid[0:64, 0:64]
    return np.exp(-((y - row) ** 2 + (x - column) ** 2) / 128)


def ground(*falls, scores=(3.0, -3.0), present=(0,)):
    """Return cases whose bank fell, for class ``a``, by the mass of a map at each place."""
    banks = []
    for fall in falls:
        mass = PLACES.reshape(len(PLACES), -1) @ fall.ravel()
        drops = np.stack([mass / mass.max(), np.zeros(len(PLACES))], axis=1)
        banks.append((Bank(EXTENT, np.array(scores), drops),))
    case = Case(torch.zeros(1, *EXTENT), 0, 1, present)
    return Ground(manifest_of(), (case,) * len(falls), None, None, tuple(banks))


def test_maps_that_mark_what_counts_are_supported_and_others_are_not():
    spots = [blob(12, 40), blob(50, 20), blob(30, 8), blob(8, 8)]
    maps = [drawn(spots[0]), drawn(spots[1]), drawn(spots[2]), drawn(blob(56, 56))]
    found = calibrated(ground(*spots), [{0: each} for each in maps], signed=True)
    assert (found.maps, found.supported, found.weak) == (4, 0.75, False)
    assert found.r.p95 > 0.99
    assert found.r.p05 < 0.5
    assert found.p.p05 < 0.02 < found.p.p95


@pytest.mark.parametrize(
    ("scores", "present"), [((-1.0, -3.0), (0,)), ((3.0, -3.0), (1,)), ((3.0, -3.0), ())]
)
def test_only_what_is_present_and_reported_counts(scores, present):
    spots = [blob(12, 40)] * 2
    cases = ground(*spots, scores=scores, present=present)
    assert calibrated(cases, [{0: drawn(each)} for each in spots], signed=True) is None


def test_a_method_that_made_no_map_has_no_calibration():
    assert calibrated(ground(blob(12, 40)), [{}], signed=True) is None


def test_the_reference_is_the_usual_value_in_full_color():
    maps = [{0: drawn(height * np.eye(4))} for height in (1.0, 5.0, -3.0)]
    cases = ground(*[blob(12, 40)] * 3)
    assert calibrated(cases, maps, signed=True).reference == 3.0
    assert calibrated(cases, maps, signed=False).reference == 3.0  # the negative one is blank
    blank = [{0: drawn(np.zeros((4, 4)))}] * 3
    assert calibrated(cases, blank, signed=True).reference is None


def test_a_template_is_the_mean_of_maps_that_count_alike():
    spots = [blob(12, 40), 100 * blob(50, 20)]
    cases = ground(*spots)
    found = calibrated(cases, [{0: drawn(each)} for each in spots], signed=True)
    assert set(found.templates) == {"a"}
    units = []
    for spot in spots:
        coarse = brought(np.float32(spot)[None], Grid.identity(EXTENT), EXTENT, 16)
        units.append(coarse / np.linalg.norm(coarse))
    mean = sum(units) / np.linalg.norm(sum(units))
    np.testing.assert_allclose(found.templates["a"], mean, atol=1e-5)


def test_a_template_of_volumes_has_three_axes_and_is_kept_as_it_was_found():
    extent = (32, 48, 40)
    spot = np.random.default_rng(0).random((4, 6, 5)).astype(np.float32)
    places = weights(extent)
    bank = Bank(extent, np.array((3.0, -3.0)), np.ones((len(places), 2)))
    case = Case(torch.zeros(1, *extent), 0, 1, (0,))
    cases = Ground(manifest_of(), (case,), None, None, ((bank,),))
    grid = Grid.partition(spot.shape, extent)
    found = calibrated(cases, [{0: (Drawn(spot[None], grid, extent),)}], signed=True)
    coarse = brought(spot[None], grid, extent, 8)
    unit = coarse / np.linalg.norm(coarse)
    np.testing.assert_allclose(found.templates["a"], unit, atol=1e-5)
    again = MethodCalibration.model_validate_json(found.model_dump_json())
    assert again == found


def test_a_map_that_is_not_finite_supports_nothing_and_is_in_no_template():
    spots = [blob(12, 40)] * 2
    maps = [{0: drawn(spots[0])}, {0: drawn(np.full((4, 4), np.nan))}]
    found = calibrated(ground(*spots), maps, signed=True)
    assert (found.maps, found.supported) == (2, 0.5)
    assert np.isfinite(found.templates["a"]).all()


def test_of_several_views_that_counts_in_which_the_method_finds_most():
    spot, away = blob(12, 40), blob(56, 56)
    faint = 0.01 * away
    cases = ground(spot, spot)
    ((bank,), _) = cases.banks
    nothing = Bank(EXTENT, bank.scores, np.zeros_like(bank.drops))
    of_views = Ground(manifest_of("front", "side"), cases.cases, None, None, ((bank, nothing),) * 2)
    right = (*drawn(spot), *drawn(faint))
    wrong = (*drawn(faint), *drawn(spot))
    found = calibrated(of_views, [{0: right}, {0: wrong}], signed=True)
    assert (found.maps, found.supported) == (2, 0.5)
    assert set(found.templates) == {"a-front", "a-side"}
