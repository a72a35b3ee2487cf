"""A survival model through the whole line: its maps point at the planted tumor."""

import numpy as np
import pytest

from examples.planted.dicom import plate
from examples.planted.pictures import tumor
from service.domain.job import State
from service.domain.parity import Parity
from tests.workers.line.conftest import MODELS

TUMOR = tumor(4_711, 12.0)
AWAY = 6
"""Source pixels that a peak may lie beside what was planted: a cell of the coarsest map."""

METHODS = ("grad_cam", "integrated_gradients", "occlusion")


@pytest.fixture(scope="module")
def served():
    return [MODELS / "survival-phantom"]


@pytest.fixture(scope="module")
def foretold(clinic):
    study = clinic.take_in([plate(TUMOR, "line tumor", "KIDNEY")])
    return clinic.explain(
        "survival-phantom",
        study,
        targets=[{"kind": "time_to_event", "horizon": each} for each in (365, 90)],
        methods=[
            "grad_cam",
            "integrated_gradients",
            {"name": "occlusion", "parameters": {"window": 8}},
        ],
        artifacts=["json", "png", "dicom_sc", "dicom_sr"],
        observed=[{"of": "progression-by-365d", "score": 0.8, "tolerance": 0.2}],
    )


def test_the_curve_is_told_and_compared(foretold):
    record, told = foretold
    assert record.state is State.SUCCEEDED, told.failure
    curve = [each.probability for each in told.predictions]
    assert curve == sorted(curve)
    true = 1 - np.exp(-TUMOR.course.hazard * np.array([90, 180, 365, 730]))
    np.testing.assert_allclose(curve, true, atol=0.15)
    assert told.parity.outcome is Parity.MATCHED


@pytest.mark.parametrize("method", METHODS)
def test_the_map_of_an_event_points_at_the_tumor(foretold, method):
    _, told = foretold
    entries = [each for each in told.results if each.method == method]
    assert [each.target.key for each in entries] == ["progression-by-365d", "progression-by-90d"]
    for entry in entries:
        assert entry.status == "succeeded", entry.reason
        away = np.linalg.norm(np.argwhere(TUMOR.masks["tumor"]) - entry.map.peak, axis=1).min()
        assert away <= AWAY
        assert "uncertified" in entry.trust.flags
        assert entry.trust.grade != "supported"
        assert entry.trust.certificate.reason == "target_is_no_class"
        assert not entry.omitted
