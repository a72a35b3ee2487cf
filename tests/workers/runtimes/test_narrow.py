"""A copy of a model that multiplies in bfloat16, beside the same model in float64."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from service.errors.models import UnservablePass
from tests.support.engine import LAYER, attribute, image_for, logits, settled, small_runtime
from tests.support.exported import exported
from workers.architectures.base import ARCHITECTURES
from workers.methods.attention_rollout import AttentionRollout
from workers.methods.deep_lift import DeepLift
from workers.methods.grad_cam import GradCam
from workers.methods.guided_backprop import GuidedBackprop
from workers.methods.occlusion import Occlusion
from workers.methods.saliency import Saliency
from workers.methods.score_cam import ScoreCam
from workers.methods.smooth_grad import SmoothGrad
from workers.running import Planned
from workers.runtimes.graph.read import read_model
from workers.runtimes.onnx import OnnxRuntime
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler

METHODS = {
    "grad_cam": GradCam(layer=LAYER),
    "score_cam": ScoreCam(layer=LAYER),
    "occlusion": Occlusion(window=4, stride=4),
    "saliency": Saliency(),
    "smooth_grad": SmoothGrad(samples=4),
    "guided_backprop": GuidedBackprop(),
    "deep_lift": DeepLift(),
}
PIXELS = {"saliency", "smooth_grad", "guided_backprop", "deep_lift"}


def correlation(one: Tensor, other: Tensor) -> float:
    pair = np.stack([one.double().flatten().numpy(), other.double().flatten().numpy()])
    return float(np.corrcoef(pair)[0, 1])


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("name", METHODS)
def test_its_maps_are_near_those_of_float64(name: str, axes: int) -> None:
    """Not equal to those of float32: else nothing was rounded, and nothing is tested."""
    if name == "deep_lift":
        pytest.importorskip("captum")
    exact = small_runtime(axes)
    single = exact.recast(torch.float32)
    narrow = exact.recast(torch.bfloat16)
    image, method = image_for(axes), METHODS[name]
    expected = attribute(method, exact, image, logits(0, 2)).values
    plain = attribute(method, single, image.float(), logits(0, 2)).values
    values = attribute(method, narrow, image.float(), logits(0, 2)).values
    assert values.dtype == torch.float32
    assert not torch.equal(values, plain)
    assert correlation(values, expected) > (0.99 if name in PIXELS else 0.999)


def test_a_transformers_attention_is_seen_in_it() -> None:
    torch.manual_seed(0)
    shape = {"classes": 3, "image": [12, 8], "patch": 4, "width": 8, "depth": 2, "heads": 2}
    architecture = ARCHITECTURES["vit"].model_validate(shape)
    exact = TorchRuntime(
        architecture.build().double(), (1, 12, 8), ("blocks.1",), tokens=architecture.tokens()
    )
    image = torch.randn(1, 12, 8, dtype=torch.float64)
    method = settled(AttentionRollout(), exact)
    expected = attribute(method, exact, image, logits(0)).values
    values = attribute(method, exact.recast(torch.bfloat16), image.float(), logits(0)).values
    assert values.dtype == torch.float32
    assert correlation(values, expected) > 0.999


def test_only_products_are_narrow_and_not_the_last() -> None:
    """bfloat16 has no 257: what a layer puts out is rounded, what a sum gives is not."""
    net = nn.Sequential(
        nn.Conv2d(1, 1, 1, bias=False),
        nn.AvgPool2d((1, 257), divisor_override=1),
        nn.Flatten(),
        nn.Linear(1, 1, bias=False),
    )
    nn.init.ones_(net[0].weight)
    nn.init.ones_(net[3].weight)
    narrow = TorchRuntime(net, (1, 1, 257)).recast(torch.bfloat16)
    batch = torch.stack([torch.ones(1, 1, 257), torch.full((1, 1, 257), 257.0)])
    outputs, _ = narrow.forward(batch, set(), set())
    assert outputs.flatten().tolist() == [257, 256 * 257]


class Unusual(nn.Module):
    """Uses a layer's weight without the layer, and another layer not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.first, self.unused, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(2))
        return self.head(self.attention(x, x, x)[0].mean(1))


def test_weights_that_are_used_without_their_layer_stay() -> None:
    torch.manual_seed(0)
    runtime = TorchRuntime(Unusual(), (5, 8))
    narrow = runtime.recast(torch.bfloat16)
    types = {name: each.dtype for name, each in narrow.model.named_parameters()}
    assert {name for name, each in types.items() if each is torch.bfloat16} == {
        "first.weight",
        "first.bias",
    }
    image = torch.randn(5, 8)
    expected = attribute(Saliency(), runtime, image, logits(0)).values
    assert correlation(attribute(Saliency(), narrow, image, logits(0)).values, expected) > 0.99


def test_the_model_it_was_made_of_stays_as_it_was() -> None:
    runtime = small_runtime(dtype=torch.float32)
    image, method = image_for(dtype=torch.float32), GradCam(layer=LAYER)
    before = attribute(method, runtime, image, logits(0)).values
    narrow = runtime.recast(torch.bfloat16)
    attribute(method, narrow, image, logits(0))
    runtime.check()
    narrow.check()
    assert torch.equal(attribute(method, runtime, image, logits(0)).values, before)


def test_jobs_of_both_never_mix() -> None:
    """Interleaved, each job's map is the one that it has alone: the two differ by far more."""
    runtime = small_runtime(dtype=torch.float32)
    narrow = runtime.recast(torch.bfloat16)
    images = [image_for(dtype=torch.float32, seed=seed) for seed in range(4)]
    method = Occlusion(window=4, stride=2)
    pairs = [(each, image) for image in images for each in (runtime, narrow)]
    alone = [attribute(method, each, image, logits(1)).values for each, image in pairs]
    scheduler = Scheduler()
    jobs = [
        scheduler.submit(f"{k}", each, [Planned(method.plan(image, logits(1)), 1)])
        for k, (each, image) in enumerate(pairs)
    ]
    scheduler.run_until_idle()
    found = [job.result(0).outcomes[0].values for job in jobs]
    same = [(one - other).abs().max().item() for one, other in zip(found, alone, strict=True)]
    apart = [(a - b).abs().max().item() for a, b in zip(alone[::2], alone[1::2], strict=True)]
    assert max(same) < min(apart) / 20


def test_a_session_has_no_model_to_copy() -> None:
    runtime = OnnxRuntime(read_model(exported()), (1, 20, 16))
    with pytest.raises(UnservablePass):
        runtime.recast(torch.bfloat16)
