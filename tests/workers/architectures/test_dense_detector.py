import pytest
import torch
from pydantic import ValidationError

from workers.architectures.base import ARCHITECTURES

SHAPE = {"classes": 3, "widths": [4, 8], "strides": [2, 2], "dilations": [1, 2]}


@pytest.fixture(params=[2, 3])
def axes(request):
    return request.param


@pytest.fixture
def network(axes):
    torch.manual_seed(0)
    shape = SHAPE | {"axes": axes}
    return ARCHITECTURES["dense_detector"].model_validate(shape).build().eval()


def test_it_gives_logits_and_sides_at_every_cell(network, axes):
    found = network(torch.zeros(2, 1, *(32, 48, 16)[:axes]))
    assert found.shape == (2, 3 + 2 * axes, *(8, 12, 4)[:axes])


def test_classes_and_sides_have_towers_of_their_own(network, axes):
    image = torch.randn(1, 1, *[16] * axes)
    before = network(image)
    with torch.no_grad():
        network.seen[0].weight.zero_()
    after = network(image)
    torch.testing.assert_close(after[:, 3:], before[:, 3:])
    assert not torch.allclose(after[:, :3], before[:, :3])


def test_it_begins_with_nothing_seen(network, axes):
    assert network(torch.randn(4, 1, *[16] * axes))[:, :3].sigmoid().mean() < 0.05


def test_steps_that_are_not_one_each_are_refused():
    with pytest.raises(ValidationError, match="one entry"):
        ARCHITECTURES["dense_detector"].model_validate(SHAPE | {"strides": [2]})
