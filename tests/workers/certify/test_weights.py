"""Shuffled copies: what is moved, what is left alone, and what counts as the head."""

import pytest
import torch
from torch import Tensor, nn

from tests.support.engine import image_for, small_net
from workers.certify.weights import head_of, shuffled


def test_a_shuffle_keeps_each_parameters_values_and_moves_them():
    net = small_net()
    before = {name: each.clone() for name, each in net.state_dict().items()}
    copied = shuffled(net, seed=1)
    for name, parameter in copied.named_parameters():
        moved, kept = parameter.flatten(), before[name].flatten()
        torch.testing.assert_close(moved.sort().values, kept.sort().values, rtol=0, atol=0)
        if kept.unique().numel() > 2:
            assert not torch.equal(moved, kept), name


def test_the_model_and_its_statistics_stay_as_they_were():
    net = small_net()
    before = {name: each.clone() for name, each in net.state_dict().items()}
    copied = shuffled(net, seed=1)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    for name, value in copied.named_buffers():
        assert torch.equal(value, before[name])
    assert not any(
        each.requires_grad for each in shuffled(net.requires_grad_(False), 1).parameters()
    )


def test_one_seed_is_one_shuffle():
    first, again, other = (shuffled(small_net(), seed) for seed in (1, 1, 2))
    assert all(map(torch.equal, first.parameters(), again.parameters()))
    assert not torch.equal(first.head.weight, other.head.weight)


def test_the_head_alone_can_be_shuffled():
    net = small_net()
    copied = shuffled(net, 1, frozenset({"head.weight", "head.bias"}))
    changed = {
        name
        for (name, one), other in zip(copied.named_parameters(), net.parameters(), strict=True)
        if not torch.equal(one, other)
    }
    assert changed == {"head.weight", "head.bias"}


class Branches(nn.Module):
    """One linear head for each class, all times a temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(1, 4, 3)
        self.heads = nn.ModuleList(nn.Linear(4, 1) for _ in range(3))
        self.temperature = nn.Parameter(torch.tensor([2.0]))

    def forward(self, image: Tensor) -> Tensor:
        features = self.body(image).relu().mean((2, 3))
        return torch.cat([head(features) for head in self.heads], 1) * self.temperature


class Shared(nn.Module):
    """A head that reads features beside a learned token, as transformers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 4))
        self.body = nn.Linear(16, 4)
        self.head = nn.Linear(4, 2, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        features = self.body(image.flatten(1)) + self.token
        return self.head(features.relu())


class Shifted(nn.Module):
    """A product whose shift is added by an operation of its own, as graphs have them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(16, 4)
        self.weight = nn.Parameter(torch.randn(4, 2))
        self.bias = nn.Parameter(torch.randn(2))

    def forward(self, image: Tensor) -> Tensor:
        return self.body(image.flatten(1)).relu() @ self.weight + self.bias


HEADS = {f"heads.{k}.weight" for k in range(3)}  # of one value, a bias cannot be shuffled


@pytest.mark.parametrize(
    ("network", "image", "expected"),
    [
        (small_net(), image_for(), {"head.weight", "head.bias"}),
        (Branches(), torch.rand(1, 8, 8), HEADS),
        (Shared(), torch.rand(1, 4, 4), {"head.weight"}),
        (Shifted(), torch.rand(1, 4, 4), {"weight", "bias"}),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(16, 2)),
            torch.rand(1, 4, 4),
            {"1.weight", "1.bias"},
        ),
        (nn.Sequential(nn.Flatten(), nn.Softmax(1)), torch.rand(1, 4, 4), set()),
    ],
)
def test_the_head_is_the_last_that_has_parameters(network, image, expected):
    assert head_of(network, image) == expected


def test_outputs_without_a_graph_have_no_head():
    class Detached(nn.Linear):
        def forward(self, image: Tensor) -> Tensor:
            return super().forward(image.flatten(1)).detach()

    assert head_of(Detached(16, 2), torch.rand(1, 4, 4)) == frozenset()


def test_looking_for_the_head_leaves_the_model_alone():
    net = small_net().requires_grad_(requires_grad=False)
    head_of(net, image_for())
    assert not any(each.requires_grad for each in net.parameters())
