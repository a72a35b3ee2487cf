"""The package in ``models/chest-phantom``: whole, and as good as its card says."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from safetensors.torch import load_file

from examples.packaging import write_object
from examples.phantom.chest import Case, draw
from examples.phantom.dicom import dataset
from examples.phantom.evaluate import LAYER, detection, grad_cam, logits_of, pointing
from examples.phantom.findings import FINDINGS
from examples.phantom.samples import drafts, full_size, read
from service.contents import inspect
from service.manifests import read_manifest
from workers.architectures.base import ARCHITECTURES

MODELS = Path(__file__).parents[3] / "models"
PACKAGE = MODELS / "chest-phantom"


@pytest.fixture(scope="module")
def manifest():
    return read_manifest((PACKAGE / "model.yaml").read_bytes())


@pytest.fixture(scope="module")
def network(manifest):
    torch.set_num_threads(1)
    chosen = manifest.architecture
    network = ARCHITECTURES[chosen.name].model_validate(chosen.parameters).build()
    network.load_state_dict(load_file(PACKAGE / "weights.safetensors"), strict=True)
    return network.eval()


@pytest.fixture(scope="module")
def fresh():
    """Phantoms that neither training nor the card's figures have seen."""
    return drafts(seed=77, count=180)


@pytest.mark.parametrize("name", ["chest-phantom", "chest-phantom-onnx"])
def test_both_packages_are_whole_and_their_digests_hold(name):
    manifest, _ = inspect(MODELS / name)
    assert manifest.id == name


def test_both_packages_hold_the_same_network():
    first, second = (
        MODELS / name / "model.onnx" for name in ("chest-phantom", "chest-phantom-onnx")
    )
    assert first.read_bytes() == second.read_bytes()


def test_weights_are_small_in_both_forms():
    assert (PACKAGE / "weights.safetensors").stat().st_size <= 1_000_000
    assert (PACKAGE / "model.onnx").stat().st_size <= 1_000_000


def test_classes_are_the_findings_in_order(manifest):
    assert [each.key for each in manifest.classes] == list(FINDINGS)


def test_self_tests_hold_and_cover_both_photometric_interpretations(manifest, network):
    for test in manifest.selftests:
        image = read((PACKAGE / test.input).read_bytes())
        logits = logits_of(network, image[None, None])[0]
        np.testing.assert_allclose(logits, test.logits, atol=1e-3)
    assert len(manifest.selftests) >= 2


@pytest.mark.parametrize("count", [1, 3])
def test_onnx_and_torch_agree_on_logits_and_on_the_declared_layer(manifest, network, fresh, count):
    (layer,) = manifest.explain.layers
    model = onnx.load(PACKAGE / "model.onnx")
    model.graph.output.append(helper.make_empty_tensor_value_info(layer.onnx))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    images = fresh.images[:count]
    logits, features = session.run(["logits", layer.onnx], {"image": images})
    with torch.no_grad():
        expected = network.peaks(network.blocks(network.stem(torch.from_numpy(images))))
    assert layer.name == LAYER == "peaks"
    np.testing.assert_allclose(logits, logits_of(network, images), atol=1e-5)
    # Squares reach into the hundreds: one part in 100,000 of the largest.
    np.testing.assert_allclose(features, expected.numpy(), atol=1e-5 * float(expected.max()))


def test_every_finding_is_told_apart_on_fresh_phantoms(network, fresh):
    for name, figures in detection(network, fresh).items():
        assert figures["auc"] >= 0.95, name


def test_grad_cam_points_at_every_finding_on_fresh_phantoms(network, fresh):
    for name, figures in pointing(network, fresh, grad_cam, limit=40).items():
        assert figures["true_positives"] >= 30, name
        assert figures["hit_rate"] >= 0.7, name


def test_twins_in_monochrome1_and_monochrome2_get_the_same_logits(tmp_path, network):
    case = Case(8, frozenset({"consolidation"}))
    radiograph = draw(case, full_size(case))
    logits = []
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        write_object(tmp_path / photometric, dataset(case, radiograph, photometric))
        image = read((tmp_path / photometric).read_bytes())
        logits.append(logits_of(network, image[None, None]))
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-2)


def test_the_card_tells_the_measured_figures_and_the_bars_hold():
    figures, card = json.loads((PACKAGE / "figures.json").read_text()), (PACKAGE / "CARD.md")
    text = card.read_text()
    assert "not for clinical use" in text.lower()
    for name in FINDINGS:
        found, pointed = figures["detection"][name], figures["pointing"]["grad_cam"][name]
        assert found["auc"] >= 0.95
        assert pointed["hit_rate"] >= 0.7
        assert f"| {name} | {found['positives']} | {found['auc']:.4f}" in text
