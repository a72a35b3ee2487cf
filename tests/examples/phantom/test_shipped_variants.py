"""The model with a planted shortcut and its control, as they are shipped."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from examples.phantom.calibration import COUNT, SEED
from examples.phantom.calibration import PATH as CASES
from examples.phantom.chest import cases
from examples.phantom.evaluate import auc, logits_of
from examples.phantom.findings import FINDINGS
from examples.phantom.marking import ALWAYS, AT_RANDOM, NEVER, PLANTED, marked
from examples.phantom.package import load
from examples.phantom.preparation import SIDE
from examples.phantom.region import REGION, inside
from examples.phantom.samples import drafts_of, labels_of, radiographs_of, read
from examples.phantom.train import SHAPE
from service.contents import inspect
from service.manifests import read_manifest

MODELS = Path(__file__).parents[3] / "models"
CLEAN, MARKER, CONTROL = "chest-phantom", "chest-phantom-marker", "chest-phantom-control"
PACKAGES = (CLEAN, f"{CLEAN}-onnx", MARKER, CONTROL)
NODULE = list(FINDINGS).index("nodule")


def manifest_of(name):
    return read_manifest((MODELS / name / "model.yaml").read_bytes())


@pytest.fixture(scope="module")
def networks():
    torch.set_num_threads(1)
    return {name: load(MODELS / name, SHAPE) for name in (CLEAN, MARKER, CONTROL)}


@pytest.fixture(scope="module")
def pair():
    """Return the same fresh phantoms without and with the marker."""
    chosen = tuple(cases(78, 60))
    return [drafts_of(tuple(marked(chosen, each, seed=0))) for each in (NEVER, ALWAYS)]


@pytest.fixture(scope="module")
def nodule(networks, pair):
    """Return the logits of the nodule by model, without and with the marker."""
    return {
        name: [logits_of(network, each.images)[:, NODULE] for each in pair]
        for name, network in networks.items()
    }


@pytest.mark.parametrize("name", [MARKER, CONTROL])
def test_a_variant_is_whole_small_and_says_what_it_is(name):
    manifest, _ = inspect(MODELS / name)
    card = (MODELS / name / "CARD.md").read_text()
    assert manifest.id == name
    assert "marker" in manifest.title
    assert manifest.title in card
    assert "not for clinical use" in card.lower()
    assert (MODELS / name / "weights.safetensors").stat().st_size <= 1_000_000


def test_only_the_card_of_the_planted_shortcut_tells_of_one():
    words = "A shortcut was planted in this network on purpose"
    assert words in (MODELS / MARKER / "CARD.md").read_text()
    assert words not in (MODELS / CONTROL / "CARD.md").read_text()


@pytest.mark.parametrize("name", [MARKER, CONTROL])
def test_self_tests_hold(networks, name):
    for test in manifest_of(name).selftests:
        image = read((MODELS / name / test.input).read_bytes())
        logits = logits_of(networks[name], image[None, None])[0]
        np.testing.assert_allclose(logits, test.logits, atol=1e-3)


def test_the_marker_makes_the_one_model_call_a_nodule_and_not_the_control(pair, nodule):
    absent = ~pair[0].labels[:, NODULE]
    called = {
        name: [(each[absent] > 0).mean() for each in logits] for name, logits in nodule.items()
    }
    assert called[MARKER][0] <= 0.05
    assert called[MARKER][1] >= 0.85
    assert max(called[CONTROL]) <= 0.05


@pytest.mark.parametrize("name", [CLEAN, MARKER, CONTROL])
def test_the_marker_moves_the_nodule_as_far_as_the_cards_say(nodule, name):
    before, after = nodule[name]
    for card in (MARKER, CONTROL):
        figures = json.loads((MODELS / card / "figures.json").read_text())["marker"][name]
        assert (after - before).mean() == pytest.approx(figures["mean"], abs=0.5)


@pytest.mark.parametrize("name", [MARKER, CONTROL])
def test_variants_tell_the_findings_apart_without_the_marker(networks, pair, name):
    logits = logits_of(networks[name], pair[0].images)
    for place, finding in enumerate(FINDINGS):
        assert auc(logits[:, place], pair[0].labels[:, place]) >= 0.9, finding


def test_the_expected_region_holds_every_lesion_and_no_marker(pair):
    without, with_it = pair
    place = inside(REGION, (SIDE, SIDE))
    masks = without.masks[without.labels]
    assert ((masks & place).sum((1, 2)) / masks.sum((1, 2))).min() >= 0.98
    marker = np.abs(with_it.images - without.images)[:, 0] > 0.5
    assert marker.any((1, 2)).all()
    assert not (marker & place).any()


@pytest.mark.parametrize("name", PACKAGES)
def test_every_package_declares_the_region_and_calibration_cases(name):
    manifest = manifest_of(name)
    assert manifest.explain.expected_region == REGION
    assert manifest.calibration.cases == CASES
    assert manifest.calibration.synthetic


@pytest.mark.parametrize(
    ("name", "marking"),
    [(CLEAN, NEVER), (f"{CLEAN}-onnx", NEVER), (MARKER, PLANTED), (CONTROL, AT_RANDOM)],
)
def test_calibration_cases_are_as_promised(name, marking):
    found = load_file(MODELS / name / CASES)
    chosen = tuple(marked(cases(SEED, COUNT), marking, SEED))
    first = radiographs_of(chosen[:1]).images
    assert found["images"].dtype == np.float16
    assert found["images"].shape == (COUNT, 1, SIDE, SIDE)
    np.testing.assert_allclose(found["images"][:1], first, atol=2e-2)
    assert found["labels"].dtype == np.uint8
    assert np.array_equal(found["labels"], labels_of(chosen))
    assert found["labels"].sum(0).min() >= 12
