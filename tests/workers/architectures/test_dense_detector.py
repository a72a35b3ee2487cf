import pytest
import torch
from pydantic import ValidationError

from workers.architectures.base import ARCHITECTURES

SHAPE = {"classes": 3, "widths": [4, 8], "strides": [2, 2], "dilations": [1, 2]}


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ARCHITECTURES["dense_detector"].model_validate(SHAPE).build().eval()


def test_it_gives_logits_and_sides_at_every_cell(network):
    assert network(torch.zeros(2, 1, 32, 48)).shape == (2, 3 + 4, 8, 12)


def test_classes_and_sides_have_towers_of_their_own(network):
    image = torch.randn(1, 1, 32, 32)
    before = network(image)
    with torch.no_grad():
        network.seen[0].weight.zero_()
    after = network(image)
    torch.testing.assert_close(after[:, 3:], before[:, 3:])
    assert not torch.allclose(after[:, :3], before[:, :3])


def test_it_begins_with_nothing_seen(network):
    assert network(torch.randn(4, 1, 32, 32))[:, :3].sigmoid().mean() < 0.05


def test_steps_that_are_not_one_each_are_refused():
    with pytest.raises(ValidationError, match="one entry"):
        ARCHITECTURES["dense_detector"].model_validate(SHAPE | {"strides": [2]})
