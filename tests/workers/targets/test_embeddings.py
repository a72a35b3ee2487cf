"""The error of a reconstruction: resolved, and held against numpy and finite differences."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from service.domain.manifest import Manifest
from service.errors.models import ModelUnavailable, NonFiniteScore
from service.errors.requests import InvalidTarget
from tests.workers.targets.test_classes import manifest
from tests.workers.targets.test_resolve import answer, one
from tests.workers.targets.test_survival import ZEROS
from workers.deviation import Deviation
from workers.targets.base import Answer
from workers.targets.resolve import predict

ERROR = {"kind": "embedding", "of": "reconstruction_error"}


def reconstruction(**changes: Any) -> Manifest:
    value = {"key": "error", "label": "Reconstruction error"} | changes
    outputs = [{"decoding": "squared_error", "values": [value]}]
    return manifest("reconstruction", outputs=outputs, selftests=ZEROS)


def joined(seed: int = 1) -> tuple[nn.Module, nn.Module]:
    """Return a network that gives images of its input's shape, and the same joined."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 2, 1)).double()
    other = nn.Sequential(*network)
    Deviation().join(other)
    return network, other


def test_each_row_is_held_against_itself():
    network, other = joined()
    images = torch.randn(3, 2, 5, 4, dtype=torch.float64)
    with torch.no_grad():
        given_back, found = network(images).numpy(), other(images)
    expected = np.mean((given_back - images.numpy()) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(found.numpy(), expected[:, None])


def test_the_gradient_is_that_of_finite_differences():
    """It leads through the network and through what its answer is held against."""
    _, other = joined()
    image = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    leaf = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(other(leaf).sum(), leaf)
    steps = 1e-6 * torch.eye(image.numel(), dtype=torch.float64).reshape(-1, 2, 4, 4)
    with torch.no_grad():
        slopes = (other(image + steps) - other(image - steps))[:, 0] / 2e-6
    torch.testing.assert_close(gradient.flatten(), slopes, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("other", [(1, 1, 4, 4), (1, 2, 4, 3)])
def test_what_has_another_shape_than_the_input_is_no_reconstruction(other):
    with pytest.raises(ModelUnavailable) as refusal:
        Deviation().said(torch.zeros(1, 2, 4, 4), torch.zeros(*other))
    assert refusal.value.facts["expected"] == [2, 4, 4]


def test_the_error_is_explained_as_it_is_or_above_what_is_usual():
    given = answer(reconstruction(), [0.02])
    found = one(given, **ERROR)
    assert (found.target.kind, found.target.key) == ("embedding", "error")
    assert found.target.score == pytest.approx(0.02)
    assert found.target.quantity == "mean squared error of the reconstruction"
    assert found.target.again.of == "reconstruction_error"
    usual = one(answer(reconstruction(reference=0.005), [0.02]), **ERROR)
    assert usual.target.score == pytest.approx(0.015)
    assert usual.target.quantity.endswith("above the reference")
    (said,) = predict(given)
    assert said.value == pytest.approx(0.02)
    assert [each.kind for each in reconstruction().default_targets] == ["embedding"]


def test_other_kinds_are_refused():
    with pytest.raises(InvalidTarget) as refusal:
        one(answer(reconstruction(), [0.02]), kind="regression", of=0)
    assert refusal.value.facts["kinds"] == ["embedding"]


# ---------------------------------------------------------------------- similarities

ENCODER = {"outputs": [{"decoding": "embedding"}]}
VOLUME = {
    "kind": "volume",
    "layout": "NCDHW",
    "accept": {"modalities": ["CT"], "volume": {}},
    "steps": [{"name": "resize"}],
}
TESTS = [{"title": "ordinary", "input": "t.dcm", "logits": [0, 0, 0], "tolerance": 0.1}]


def against(*reference: float, outputs: tuple[float, ...] = (3.0, 0.0, 4.0)) -> Answer:
    model = manifest("embedding", selftests=TESTS, **ENCODER)
    other = torch.tensor(reference, dtype=torch.float64)
    return replace(answer(model, outputs), references={"in_0002": (other, "a" * 64)})


def alike(given: Answer):
    return one(given, kind="embedding", similarity_to="in_0002")


def test_a_similarity_is_a_cosine_whatever_the_lengths():
    found = alike(against(0.0, 5.0, 2.0))
    assert found.target.score == pytest.approx(8 / 5 / np.sqrt(29))
    assert found.scalar(torch.tensor([[0.0, 0.0, 9.0]])).item() == pytest.approx(2 / np.sqrt(29))
    longer = alike(against(0.0, 50.0, 20.0))
    assert longer.target.score == pytest.approx(found.target.score)
    assert alike(against(0.0, 5.0, 2.0)).scalar == found.scalar
    assert alike(against(1.0, 0.0, 0.0)).scalar != found.scalar


@pytest.mark.parametrize("zero", ["reference", "image"])
def test_what_has_no_direction_is_like_nothing(zero):
    given = (
        against(0.0, 0.0, 0.0) if zero == "reference" else against(1.0, 0.0, 0.0, outputs=(0,) * 3)
    )
    with pytest.raises(NonFiniteScore):
        alike(given)


def test_a_vector_of_another_length_than_self_tests_give_is_refused():
    with pytest.raises(InvalidTarget):
        predict(against(1.0, 0.0, outputs=(1.0, 0.0)))


@pytest.mark.parametrize(
    "changes",
    [
        {"outputs": [{"decoding": "embedding", "values": [{"key": "a", "label": "A"}]}]},
        {"outputs": [{"decoding": "logits"}]},
        {"activation": "probabilities"},
        {"inputs": [VOLUME]},
    ],
)
def test_an_encoder_names_nothing_and_takes_one_image(changes):
    assert manifest("embedding", selftests=TESTS, **ENCODER).default_targets == ()
    with pytest.raises(ValidationError, match=r"embedding|probabilities"):
        manifest("embedding", **{"selftests": TESTS, **ENCODER, **changes})
