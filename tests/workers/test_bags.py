"""Bags: what the score loses without each instance, held against the network itself."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from service.domain.grid import Grid
from service.domain.inputs import Bag
from service.domain.network import Layer
from service.errors.models import ModelError
from tests.support.engine import logits, run_alone
from workers.architectures.attention_mil import AttentionMil
from workers.bags import Weighed, slices_of, weighed
from workers.runtimes.torch import TorchRuntime

INSTANCES = 6
TARGETS = (2, 0)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(2)
    made = AttentionMil(classes=3, widths=(4, 6), hidden=5).build()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(2.0)
    return made.double().eval()


@pytest.fixture(scope="module")
def bag() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    made = torch.randn(1, INSTANCES, 12, 10, generator=generator, dtype=torch.float64)
    return made * torch.arange(1, INSTANCES + 1).view(1, -1, 1, 1)


def asked(network: nn.Module, bag: Tensor, rules: Bag, **options: Any) -> Weighed:
    runtime = TorchRuntime(network, bag.shape, ("peaks", "attention", "weigh"))
    plan = weighed(rules, bag, logits(*TARGETS))
    found = run_alone(plan, runtime, **options)
    assert isinstance(found, Weighed)
    return found


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_an_instance_adds_what_the_score_loses_without_it(
    network: nn.Module, bag: Tensor, chunk: int
) -> None:
    found = asked(network, bag, Bag(), chunk=chunk)
    with torch.no_grad():
        whole = network(bag[None])[0, list(TARGETS)]
        for left in range(INSTANCES):
            kept = [each for each in range(INSTANCES) if each != left]
            without = network(bag[None, :, kept])[0, list(TARGETS)]
            torch.testing.assert_close(found.falls[:, left], whole - without)
    assert found.attention == (None,) * INSTANCES


def test_attention_is_shown_as_the_network_gives_it(network: nn.Module, bag: Tensor) -> None:
    found = asked(network, bag, Bag(attention=Layer(name="attention")))
    with torch.no_grad():
        features = network.features(bag[None]).square().mean((3, 4)).movedim(1, 2)
        scores = network.weigh(features)[0, :, 0]
    expected = scores.exp() / scores.exp().sum()
    assert found.attention == pytest.approx(expected.tolist())
    assert sum(filter(None, found.attention)) == pytest.approx(1)
    ranks = found.falls.argsort(dim=1).tolist()
    assert torch.tensor(found.attention).argsort().tolist() not in ranks  # it is another thing


def test_a_layer_of_other_numbers_is_no_attention(network: nn.Module, bag: Tensor) -> None:
    with pytest.raises(ModelError, match="one number for each instance"):
        asked(network, bag, Bag(attention=Layer(name="peaks")))


def test_maps_keep_the_instances_apart(network: nn.Module, bag: Tensor) -> None:
    """No slice's features depend on another slice."""
    with torch.no_grad():
        one = network.features(bag[None, :, 2:3])
        every = network.features(bag[None])
    torch.testing.assert_close(every[:, :, 2:3], one)


def test_instances_are_slices_of_the_source_in_either_order() -> None:
    assert list(slices_of(Grid.identity((4, 8, 8)))) == [0, 1, 2, 3]
    turned = Grid.identity((4, 8, 8)).affine.copy()
    turned[0, 0], turned[0, -1] = -1, 3
    assert list(slices_of(Grid((4, 8, 8), turned))) == [3, 2, 1, 0]
