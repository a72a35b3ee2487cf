"""All heads of a model at once: what they put out, and models on which that cannot be done."""

import pytest
import torch
from torch import Tensor, nn

from tests.support.engine import LAYER, attribute, image_for, logits, small_net, small_runtime
from workers.certify.heads import headed
from workers.certify.weights import SEEDS, head_of, shuffled
from workers.methods.grad_cam import GradCam
from workers.runtimes.torch import TorchRuntime


def together(net: nn.Module, layers: tuple[str, ...] = (LAYER,)) -> nn.Module | None:
    return headed(net, head_of(net, image_for()), image_for(), layers)


def test_the_first_answers_are_the_models_and_the_others_those_of_its_shuffles():
    net, image = small_net(), image_for()
    head = head_of(net, image)
    many = together(net)
    apart = [net, *(shuffled(net, seed, head) for seed in SEEDS)]
    assert torch.equal(many(image[None]), torch.cat([each(image[None]) for each in apart], 1))


def test_a_map_of_one_head_is_that_of_the_model_which_has_it_alone():
    net, image = small_net(), image_for()
    classes = len(net(image[None])[0])
    alone = TorchRuntime(shuffled(net, SEEDS[1], head_of(net, image)), image.shape, (LAYER,))
    many = TorchRuntime(together(net), image.shape, (LAYER,))
    method = GradCam(layer=LAYER)
    of_one = attribute(method, alone, image, logits(1)).values
    of_many = attribute(method, many, image, logits(0, 1 + 2 * classes)).values
    assert torch.equal(of_many[1:], of_one)
    plain = attribute(method, small_runtime(), image, logits(0)).values
    assert torch.equal(of_many[:1], plain)


class Looked(nn.Module):
    """A network that reads its head's weights, or does more behind it."""

    def __init__(self, *, into: bool) -> None:
        super().__init__()
        self.body = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4, 3)
        self.into = into

    def forward(self, rows: Tensor) -> Tensor:
        features = self.body(rows).mean((2, 3))
        if self.into:
            return nn.functional.linear(features, self.head.weight)
        return self.head(features).softmax(1)


class Branches(nn.Module):
    """One linear head for each class."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(1, 4, 3)
        self.heads = nn.ModuleList(nn.Linear(4, 1) for _ in range(3))

    def forward(self, rows: Tensor) -> Tensor:
        features = self.body(rows).mean((2, 3))
        return torch.cat([head(features) for head in self.heads], 1)


@pytest.mark.parametrize(
    ("net", "layers"),
    [
        (Looked(into=True), ()),
        (Looked(into=False), ()),
        (Branches(), ()),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), ("1",)),
    ],
)
def test_where_the_head_is_not_one_module_at_the_end_there_is_no_such_copy(net, layers):
    image = image_for(dtype=torch.float32)
    net(image[None])  # sizes the lazy layer
    assert head_of(net, image)
    assert headed(net, head_of(net, image), image, layers) is None
