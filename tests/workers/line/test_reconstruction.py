"""An autoencoder through the whole line: the map of its error lies on the anomaly."""

import numpy as np
import pytest

from examples.planted.dicom import plate
from examples.planted.pictures import plain
from service.domain.job import State
from tests.workers.line.conftest import MODELS

STRANGE = plain(4_002, 8.0)
AWAY = 6
"""Source pixels that a peak may lie beside what was planted: a cell of the coarsest map."""

METHODS = ("saliency", "integrated_gradients", "occlusion")


@pytest.fixture(scope="module")
def served():
    return [MODELS / "autoencoder-phantom"]


def explain(clinic, picture, *methods):
    study = clinic.take_in([plate(picture, "line plain", "BREAST")])
    return clinic.explain(
        "autoencoder-phantom",
        study,
        targets=[{"kind": "embedding", "of": "reconstruction_error"}],
        methods=list(methods),
        artifacts=["json", "png", "dicom_sc", "dicom_sr"],
    )


@pytest.fixture(scope="module")
def told(clinic):
    occlusion = {"name": "occlusion", "parameters": {"window": 8}}
    record, document = explain(clinic, STRANGE, *METHODS[:2], occlusion)
    assert record.state is State.SUCCEEDED, document.failure
    return document


@pytest.mark.parametrize("method", METHODS)
def test_the_map_of_the_error_points_at_the_anomaly(told, method):
    (entry,) = [each for each in told.results if each.method == method]
    assert entry.status == "succeeded", entry.reason
    away = np.linalg.norm(np.argwhere(STRANGE.masks["anomaly"]) - entry.map.peak, axis=1).min()
    assert away <= AWAY
    assert "uncertified" in entry.trust.flags
    assert entry.trust.certificate.reason == "target_is_no_class"
    assert not entry.omitted


def test_the_error_is_larger_than_that_of_the_same_tissue_without_it(clinic, told):
    _, usual = explain(clinic, plain(4_002), "saliency")
    assert told.predictions[0].value > 2 * usual.predictions[0].value
