"""Maps of other numbers than the logit equal captum's of a network that ends in that number."""

from collections.abc import Callable

import pytest
import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from captum.attr import LayerGradCam
from captum.attr import Occlusion as CaptumOcclusion
from captum.attr import Saliency as CaptumSaliency
from torch import Tensor, nn

from tests.oracles.test_captum import BASELINE, STRIDE, WINDOW, spread_to
from tests.support.engine import LAYER, TOP, attribute, image_for, small_net, small_runtime
from workers.methods.base import Method
from workers.methods.class_activation_map import ClassActivationMap
from workers.methods.deep_lift import DeepLift
from workers.methods.grad_cam import GradCam
from workers.methods.integrated_gradients import IntegratedGradients
from workers.methods.occlusion import Occlusion
from workers.methods.saliency import Saliency
from workers.passes import Scalar
from workers.targets.scalars import ClassProbability, Linear

TARGET, RIVAL, ALONE = 2, 3, 0
"""Classes: one of 95 % among the others, the next best, and one of 60 % by itself."""


class Ending(nn.Module):
    """A network with one output, by an end that is written here anew."""

    def __init__(self, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net = small_net()
        self.end = end

    def forward(self, rows: Tensor) -> Tensor:
        return self.end(self.net(rows))


def faint() -> Tensor:
    """An image on which probabilities are none of 0 and 1."""
    return 0.1 * image_for()


SCALARS: dict[str, tuple[Scalar, Callable[[Tensor], Tensor]]] = {
    "sigmoid": (
        ClassProbability(ALONE, exclusive=False),
        lambda logits: 1 / (1 + torch.exp(-logits[:, ALONE])),
    ),
    "softmax": (
        ClassProbability(TARGET, exclusive=True),
        lambda logits: torch.exp(logits[:, TARGET]) / torch.exp(logits).sum(1),
    ),
    "margin": (
        Linear(((TARGET, 1.0), (RIVAL, -1.0))),
        lambda logits: logits[:, TARGET] - logits[:, RIVAL],
    ),
}


def saliency(model: Ending, image: Tensor) -> Tensor:
    return CaptumSaliency(model).attribute(image[None].requires_grad_(), abs=False)[0]


def integrated(model: Ending, image: Tensor) -> Tensor:
    return CaptumIntegratedGradients(model).attribute(
        image[None], BASELINE, n_steps=20, method="riemann_middle"
    )[0]


def grad_cam(model: Ending, image: Tensor) -> Tensor:
    layer = model.net.get_submodule(LAYER)
    return LayerGradCam(model, layer).attribute(image[None])[0].detach()


def occlusion(model: Ending, image: Tensor) -> Tensor:
    window, strides = (1, WINDOW, WINDOW), (1, STRIDE, STRIDE)
    return CaptumOcclusion(model).attribute(image[None], window, strides, baselines=BASELINE)[0]


METHODS: list[tuple[Method, Callable[[Ending, Tensor], Tensor]]] = [
    (Saliency(), saliency),
    (IntegratedGradients(steps=20, baseline=BASELINE), integrated),
    (GradCam(layer=LAYER), grad_cam),
    (Occlusion(window=WINDOW, stride=STRIDE, baseline=BASELINE), occlusion),
]


@pytest.mark.parametrize("score", SCALARS)
@pytest.mark.parametrize(("method", "oracle"), METHODS, ids=lambda case: getattr(case, "name", ""))
def test_a_map_of_a_score_equals_captums(
    method: Method, oracle: Callable[[Ending, Tensor], Tensor], score: str
) -> None:
    scalar, end = SCALARS[score]
    image = faint()
    expected = oracle(Ending(end), image)
    found = attribute(method, small_runtime(), image, (scalar,)).values[0]
    span = (expected.max() - expected.min()).item()
    assert span > 0
    assert (spread_to(found, expected) - expected).abs().max().item() <= 1e-6 * span


def test_methods_of_weighted_sums_add_up_for_a_margin_and_would_not_for_a_probability() -> None:
    """Why some methods are refused beside a probability: with it their own promise breaks."""
    image, net = faint(), small_net()
    margin, _ = SCALARS["margin"]
    probability, _ = SCALARS["softmax"]
    with torch.no_grad():
        bias = net.head.bias[TARGET] - net.head.bias[RIVAL]
        logits = net(image[None])
        chance = logits.softmax(1)[0, TARGET]
    cam = attribute(
        ClassActivationMap(layer=TOP), small_runtime(), image, (margin, probability)
    ).values
    sums = cam.flatten(1).mean(1)
    assert sums[0].item() == pytest.approx((margin(logits)[0] - bias).item())
    assert abs(sums[1].item() - chance.item()) > 0.05
    lifted = attribute(DeepLift(baseline=0.0), small_runtime(), image, (margin, probability))
    assert abs(lifted.extras[0]["residual"]) < 1e-6 * abs(lifted.extras[0]["score_change"])
    assert abs(lifted.extras[1]["residual"]) > 0.01 * abs(lifted.extras[1]["score_change"])
    assert ClassActivationMap.linear
    assert DeepLift.linear
