"""Bags: what the score loses without each instance, held against the network itself."""

import copy
import io
import math
import warnings
from typing import Any

import pytest
import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from torch import Tensor, nn

from service.domain.grid import Grid
from service.domain.inputs import Bag
from service.domain.network import Layer, Remote
from service.errors.models import ModelError
from tests.support.engine import logits, run_alone
from tests.support.inference_server import InferenceServer, serving
from workers.architectures.attention_mil import AttentionMil
from workers.bags import Weighed, slices_of, weighed
from workers.methods.integrated_gradients import IntegratedGradients
from workers.passes import Plan
from workers.runtimes.base import Runtime
from workers.runtimes.members import Members, mean
from workers.runtimes.open_inference import Server
from workers.runtimes.remote import RemoteRuntime
from workers.runtimes.torch import TorchRuntime
from workers.tabular import Companions, Tabular, accompanied
from workers.targets.scalars import ClassProbability

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


class Adding(nn.Module):
    """A logit that is the sum of the instances' means, beside one that is always zero."""

    def forward(self, rows: Tensor) -> Tensor:
        logit = rows.mean((1, 3, 4)).sum(1)
        return torch.stack([logit, torch.zeros_like(logit)], 1)


@pytest.mark.parametrize("exclusive", [False, True])
def test_of_a_certain_answer_each_instance_takes_its_own_little_off(*, exclusive: bool) -> None:
    """In float32 each of these probabilities is 1, with and without any instance."""
    parts = torch.tensor([9.0, 8.0, 7.0, 4.0, 2.0])
    rows = parts[None, :, None, None].expand(1, -1, 6, 6).contiguous()
    plan = weighed(Bag(), rows, (ClassProbability(0, exclusive),))
    found = run_alone(plan, TorchRuntime(Adding(), rows.shape, ()))
    whole = parts.sum().item()
    expected = [1 / (1 + math.exp(whole - each)) - 1 / (1 + math.exp(whole)) for each in parts]
    assert found.falls[0].tolist() == pytest.approx(expected, rel=1e-3, abs=0)


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


# ------------------------------------------------------------------ beside numbers


BESIDE = Tabular(
    torch.tensor([0.75, -1.5], dtype=torch.float64), torch.tensor([0.25, 0.5], dtype=torch.float64)
)


@pytest.fixture(scope="module")
def beside() -> nn.Module:
    """A network of a bag and two numbers, which say much together."""
    torch.manual_seed(4)
    made = AttentionMil(classes=3, widths=(4, 6), hidden=5, variables=2).build()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(2.0)
    return made.double().eval()


def explained(network: nn.Module, plan: Plan[Any]) -> Any:
    made = copy.deepcopy(network)
    Companions(BESIDE.baseline, (2,)).join(made)
    runtime = TorchRuntime(made, (1, INSTANCES, 12, 10), ("peaks", "attention"), variables=2)
    return run_alone(accompanied(plan, BESIDE), runtime)


def test_instances_are_left_out_beside_the_patients_numbers(beside: nn.Module, bag: Tensor) -> None:
    rules = Bag(attention=Layer(name="attention"))
    found = explained(beside, weighed(rules, bag, logits(*TARGETS)))
    values = BESIDE.values[None]
    with torch.no_grad():
        whole = beside(bag[None], values)[0, list(TARGETS)]
        for left in range(INSTANCES):
            kept = [each for each in range(INSTANCES) if each != left]
            without = beside(bag[None, :, kept], values)[0, list(TARGETS)]
            torch.testing.assert_close(found.falls[:, left], whole - without)
    assert sum(found.attention) == pytest.approx(1)


def test_bag_and_numbers_share_the_score_out_as_captum_shares_it(
    beside: nn.Module, bag: Tensor
) -> None:
    method = IntegratedGradients(steps=10, baseline=0.0)
    maps = explained(beside, method.joint(bag, logits(1), BESIDE))
    image, numbers = CaptumIntegratedGradients(beside).attribute(
        (bag[None], BESIDE.values[None]),
        baselines=(torch.zeros_like(bag)[None], BESIDE.baseline[None]),
        target=1,
        n_steps=10,
        method="riemann_middle",
    )
    torch.testing.assert_close(maps.values[0], image[0].detach())
    torch.testing.assert_close(maps.shares[0], numbers[0].detach())


# ------------------------------------------------------------- folds, and a server


def fold(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    made = AttentionMil(classes=3, widths=(4, 6), hidden=5).build()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(2.0)
    return made.eval()


def falls_of(runtime: Runtime, bag: Tensor) -> Tensor:
    found = run_alone(weighed(Bag(), bag, logits(*TARGETS)), runtime)
    assert isinstance(found, Weighed)
    return found.falls


def test_folds_lose_without_an_instance_the_mean_of_what_each_loses(bag: Tensor) -> None:
    folds = [TorchRuntime(fold(seed).double(), bag.shape, ("peaks",)) for seed in (5, 6)]
    expected = torch.stack([falls_of(each, bag) for each in folds]).mean(0)
    torch.testing.assert_close(falls_of(Members(folds, mean), bag), expected)


def test_a_bag_on_a_server_loses_what_the_same_network_here_does(bag: Tensor) -> None:
    image, network, file = bag.float(), fold(7), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (image[None],),
            file,
            dynamo=False,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "rows", 2: "instances"}, "logits": {0: "rows"}},
        )
    remote = Remote(endpoint="lab", model="chest", input="image", output="logits")
    with serving(InferenceServer(file.getvalue())) as server:
        there = RemoteRuntime(Server(server.url, remote, 10.0), remote, "lab", tuple(bag.shape))
        found = falls_of(there, image)
    here = falls_of(TorchRuntime(network, bag.shape), image)
    torch.testing.assert_close(found, here, rtol=1e-3, atol=1e-4)
