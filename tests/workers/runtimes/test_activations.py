"""However a network calls its rectifiers, its plain gradients and Grad-CAMs are the same."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.engine import LAYER, SIZES, SmallNet, attribute, image_for, logits, small_net
from workers.methods.grad_cam import GradCam
from workers.methods.saliency import Saliency
from workers.runtimes.torch import TorchRuntime

TARGETS = (2, 4)


class ByFunction(SmallNet):
    """The small network, rectified by a function where its modules stood."""

    def __init__(self, axes: int, rectify: Callable[[Tensor], Tensor]) -> None:
        super().__init__(axes)
        self.rectify = rectify

    def forward(self, x: Tensor) -> Tensor:
        conv, norm, _, pool, last, _ = self.features
        x = last(pool(self.rectify(norm(conv(x)))))
        return self.head(self.pool(self.rectify(x)).flatten(1))


def with_modules(axes: int, first: nn.Module, second: nn.Module) -> SmallNet:
    net = SmallNet(axes)
    net.features[2], net.features[5] = first, second
    return net


def reused(axes: int, *, inplace: bool) -> SmallNet:
    one = nn.ReLU(inplace=inplace)
    return with_modules(axes, one, one)


VARIANTS: dict[str, Callable[[int], SmallNet]] = {
    "modules": lambda axes: with_modules(axes, nn.ReLU(), nn.ReLU()),
    "modules in place": SmallNet,
    "functional": lambda axes: ByFunction(axes, functional.relu),
    "functional in place": lambda axes: ByFunction(axes, functional.relu_),
    "tensor's own in place": lambda axes: ByFunction(axes, Tensor.relu_),
    "one module, reused": lambda axes: reused(axes, inplace=False),
    "one module, reused in place": lambda axes: reused(axes, inplace=True),
}


def by_hand(axes: int, image: Tensor) -> tuple[Tensor, Tensor]:
    """Return gradients to the input, and Grad-CAMs, of both targets from torch alone."""
    net = small_net(axes)
    conv, norm, _, pool, last, _ = net.features
    row = image[None].clone().requires_grad_()
    features = last(pool(torch.relu(norm(conv(row)))))
    scores = net.head(net.pool(torch.relu(features)).flatten(1))[0]
    slopes, cams = [], []
    for target in TARGETS:
        to_input, to_layer = torch.autograd.grad(scores[target], (row, features), retain_graph=True)
        slopes.append(to_input[0])
        weights = to_layer.flatten(2).mean(2).view(1, -1, *[1] * axes)
        cams.append((weights * features.detach()).sum(1))
    return torch.stack(slopes), torch.stack(cams)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=[*VARIANTS])
def test_every_way_to_rectify_gives_the_maps_of_torch_alone(
    variant: Callable[[int], SmallNet], axes: int
) -> None:
    image = image_for(axes)
    net = variant(axes)
    net.load_state_dict(small_net(axes).state_dict())
    runtime = TorchRuntime(net.double(), (1, *SIZES[axes]), (LAYER,))
    slopes, cams = by_hand(axes, image)
    saliency = attribute(Saliency(), runtime, image, logits(*TARGETS)).values
    torch.testing.assert_close(saliency, slopes)
    cam = attribute(GradCam(layer=LAYER), runtime, image, logits(*TARGETS)).values
    torch.testing.assert_close(cam, cams)
