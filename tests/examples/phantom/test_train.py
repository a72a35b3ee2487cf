"""Training, shortened: the way from drawing to a package that holds."""

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from examples.phantom import package
from examples.phantom.card import card
from examples.phantom.evaluate import METHODS, detection, logits_of, pointing
from examples.phantom.region import coverage
from examples.phantom.samples import drafts
from examples.phantom.train import SHAPE, train
from service.contents import inspect

COUNT, EPOCHS = 48, 2


@pytest.fixture(scope="module")
def samples():
    return drafts(seed=5, count=COUNT)


@pytest.fixture(scope="module")
def network(samples):
    torch.set_num_threads(1)
    return train(samples, epochs=EPOCHS)


def test_the_same_seed_gives_the_same_weights(samples, network):
    again = train(samples, epochs=EPOCHS)
    for name, weights in network.state_dict().items():
        assert torch.equal(weights, again.state_dict()[name]), name


def test_the_written_package_holds(tmp_path, samples, network):
    figures = {
        "recipe": {"training_images": COUNT, "epochs": EPOCHS, "seed": 0},
        "detection": detection(network, samples),
        "pointing": {name: pointing(network, samples, map_, 1) for name, map_ in METHODS.items()},
        "region": coverage(samples),
    }
    text = card(figures, parameters=1000, layer="peaks")
    content = package.Content(network, SHAPE, samples, figures, text)
    package.write(tmp_path, package.CLEAN, content)
    manifest, _ = inspect(tmp_path)
    again = SHAPE.build().eval()
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    images = samples.images[:2]
    np.testing.assert_allclose(logits_of(again, images), logits_of(network, images), atol=1e-6)
    (scores,) = session.run(["logits"], {"image": images})
    np.testing.assert_allclose(scores, logits_of(network, images), atol=1e-5)
    assert manifest.architecture.name == "residual_cnn"
    assert f"{COUNT} training images" in (tmp_path / "CARD.md").read_text()
