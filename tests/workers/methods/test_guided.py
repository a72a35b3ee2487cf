"""Guided backpropagation and deconvolution: one answer, however a ReLU is written."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import Deconvolution as CaptumDeconvolution
from captum.attr import GuidedBackprop as CaptumGuidedBackprop
from captum.attr import GuidedGradCam as CaptumGuidedGradCam
from torch import Tensor, nn
from torch.nn import functional

from service.errors.models import UnservablePass
from tests.support.engine import (
    CLASSES,
    CONV,
    FLAT,
    LAYER,
    SIZES,
    Polynomial,
    SmallNet,
    attribute,
    image_for,
    logits,
    small_net,
    small_runtime,
    through,
)
from workers.methods.base import METHODS
from workers.methods.deconvolution import Deconvolution
from workers.methods.grad_cam import GradCam
from workers.methods.guided import GuidedMethod
from workers.methods.guided_backprop import GuidedBackprop
from workers.methods.guided_grad_cam import GuidedGradCam
from workers.methods.saliency import Saliency
from workers.passes import Ability, Gradient, Rule
from workers.rows import Clean
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler
from workers.union import work_of

AXES = [1, 2, 3]
CASES = [(GuidedBackprop(), CaptumGuidedBackprop), (Deconvolution(), CaptumDeconvolution)]
METHODS_HERE = [method for method, _ in CASES]


class Residual(nn.Module):
    """A block whose rectified input goes on beside it; `rectify` says how ReLU is written."""

    def __init__(self, axes: int = 2) -> None:
        super().__init__()
        self.first = CONV[axes](1, 4, 3, padding=1)
        self.second = CONV[axes](4, 4, 3, padding=1)
        self.third = CONV[axes](4, 4, 3, padding=1)
        self.pool = FLAT[axes](2)
        self.head = nn.LazyLinear(CLASSES)
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.rectify(self.first(x), 0)
        x = x + self.rectify(self.second(x), 1)
        return self.head(self.pool(self.rectify(self.third(x), 2)).flatten(1))

    def rectify(self, x: Tensor, which: int) -> Tensor:
        return self.relus[which](x)


class Functional(Residual):
    def rectify(self, x: Tensor, which: int) -> Tensor:
        return (functional.relu, torch.relu, Tensor.relu)[which](x)


class InPlace(Residual):
    """What is read again after the call is the rectified tensor."""

    def rectify(self, x: Tensor, which: int) -> Tensor:
        if which == 0:
            functional.relu(x, inplace=True)
            return x
        return (torch.relu_ if which == 1 else Tensor.relu_)(x)


class Reused(Residual):
    def rectify(self, x: Tensor, which: int) -> Tensor:  # noqa: ARG002 - one module for all
        return self.relus[0](x)


class Clamped(Residual):
    """Functions that are ReLU by what they are given; the other ones stay modules."""

    def rectify(self, x: Tensor, which: int) -> Tensor:
        if which == 2:
            return self.relus[which](x)
        return (lambda x: x.clamp(min=0), lambda x: torch.clamp_min(x, 0.0))[which](x)


class Compared(Residual):
    def rectify(self, x: Tensor, which: int) -> Tensor:
        zero = torch.zeros((), dtype=x.dtype)
        ways: tuple[Callable[[Tensor], Tensor], ...] = (
            lambda x: torch.maximum(x, zero),
            lambda x: functional.threshold(x, 0.0, 0.0),
            lambda x: torch.clamp(x, min=zero),
        )
        return ways[which](x)


class Sloped(Residual):
    def rectify(self, x: Tensor, which: int) -> Tensor:
        slope = torch.zeros(1, dtype=x.dtype)
        ways: tuple[Callable[[Tensor], Tensor], ...] = (
            lambda x: functional.elu(functional.leaky_relu(x, 0.0), 0.0),
            lambda x: functional.prelu(x, slope),
            lambda x: functional.hardtanh(x, 0.0, 1e9),
        )
        return ways[which](x)


VARIANTS = [Residual, Functional, InPlace, Reused, Clamped, Compared, Sloped]


def variant(kind: type[Residual], axes: int = 2) -> Residual:
    torch.manual_seed(2)
    model = kind(axes).double()
    model(torch.zeros(1, 1, *SIZES[axes], dtype=torch.float64))
    return model


def near(ours: Tensor, expected: Tensor) -> None:
    span = (expected.max() - expected.min()).item()
    assert span > 0
    assert (ours - expected).abs().max().item() <= 1e-6 * span


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("kind", VARIANTS)
@pytest.mark.parametrize(("method", "captum"), CASES, ids=["guided", "deconvolution"])
def test_every_way_to_write_a_relu_gives_captums_answer_for_modules(
    method: GuidedMethod, captum: type, kind: type[Residual], axes: int
) -> None:
    image = image_for(axes)
    runtime = TorchRuntime(variant(kind, axes), image.shape)
    maps = attribute(method, runtime, image, logits(0, 3))
    plain = attribute(Saliency(), runtime, image, logits(0, 3))
    oracle = captum(variant(Residual, axes))
    for k, target in enumerate((0, 3)):
        near(maps.values[k], oracle.attribute(image[None].requires_grad_(), target=target)[0])
        assert not torch.allclose(maps.values[k], plain.values[k], rtol=0.1)


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
@pytest.mark.parametrize(("method", "captum"), CASES, ids=["guided", "deconvolution"])
def test_batch_norm_and_max_pooling_are_led_through_as_by_captum(
    method: GuidedMethod, captum: type
) -> None:
    image = image_for(3, 2)
    maps = attribute(method, small_runtime(3, 2), image, logits(4))
    oracle = captum(without_in_place(3, 2))
    near(maps.values[0], oracle.attribute(image[None].requires_grad_(), target=4)[0])


def without_in_place(axes: int, channels: int) -> SmallNet:
    """Return the small network as captum's hooks can take it."""
    net = small_net(axes, channels)
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return net


@pytest.mark.filterwarnings("ignore:Setting (forward, )?backward hooks")
@pytest.mark.parametrize(("axes", "mode"), [(1, "linear"), (2, "bilinear"), (3, "trilinear")])
def test_guided_grad_cam_equals_captum(axes: int, mode: str) -> None:
    image = image_for(axes, 2)
    maps = attribute(GuidedGradCam(layer=LAYER), small_runtime(axes, 2), image, logits(0, 4))
    net = without_in_place(axes, 2)
    oracle = CaptumGuidedGradCam(net, net.get_submodule(LAYER))
    for values, target in zip(maps.values, (0, 4), strict=True):
        expected = oracle.attribute(image[None].requires_grad_(), target, interpolate_mode=mode)
        near(values, expected[0].detach())


def test_guided_grad_cam_is_silent_where_grad_cam_speaks_against() -> None:
    image, runtime = image_for(), small_runtime()
    maps = attribute(GuidedGradCam(layer=LAYER), runtime, image, logits(0))
    coarse = attribute(GradCam(layer=LAYER), runtime, image, logits(0)).values[0, 0]
    against = functional.max_pool2d(coarse[None, None], 3, 1, 1)[0, 0] <= 0
    inside = against.repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert inside.any()
    assert not maps.values[0, 0][inside].any()


def test_by_hand() -> None:
    """One ReLU, f = sum(v relu(w x)): guided keeps v > 0 where active, deconvolution all v > 0."""
    w = torch.tensor([2.0, 2.0, -3.0, 5.0])
    v = torch.tensor([1.0, -1.0, 4.0, 7.0])

    class Hand(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (v * (w * x).relu()).flatten(1).sum(1, keepdim=True)

    image = torch.ones(1, 4)
    runtime = TorchRuntime(Hand(), image.shape)
    by_rule = {
        rule: attribute(method, runtime, image, logits(0)).values[0, 0].tolist()
        for method, rule in [(GuidedBackprop(), "guided"), (Deconvolution(), "deconvolution")]
    }
    assert by_rule == {"guided": [2, 0, 0, 35], "deconvolution": [2, 0, -12, 35]}


class Smooth(Residual):
    def rectify(self, x: Tensor, which: int) -> Tensor:  # noqa: ARG002 - GELU everywhere
        return functional.gelu(x)


class Hidden(Residual):
    """Rectifies half of the channels through a view, of which autograd does not tell."""

    def rectify(self, x: Tensor, which: int) -> Tensor:
        if which == 1:
            functional.relu(x[:, :2], inplace=True)
            return x
        return functional.relu(x)


class Ambiguous(Residual):
    """One ReLU of three is written so that nobody can tell it from something else."""

    def __init__(self, way: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.way = way

    def rectify(self, x: Tensor, which: int) -> Tensor:
        return self.way(x) if which == 1 else functional.relu(x)


class Own(torch.autograd.Function):
    """A ReLU with a derivative of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (x,) = ctx.saved_tensors
        return gradients[0] * (x > 0)


def written(into: Tensor) -> Tensor:
    into = into.clone()
    into[into < 0] = 0
    return into


AMBIGUOUS: dict[str, Callable[[Tensor], Tensor]] = {
    "where": lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
    "bool factor": lambda x: x * (x > 0),
    "factor": lambda x: x * (x > 0).double(),
    "filled": lambda x: x.masked_fill(x < 0, 0),
    "written": written,
    "magnitude": lambda x: (x + x.abs()) / 2,
    "its own": Own.apply,
    "least": lambda x: -torch.minimum(-x, torch.zeros_like(x)),
    "turned about": lambda x: -(-x).clamp(max=0),
    "what is below": lambda x: x - x.clamp(max=0),
    "shifted": lambda x: x.clamp(min=-0.2) + 0.2,
    "largest of two": lambda x: torch.stack([x, torch.zeros_like(x)]).amax(0),
    "larger of two": lambda x: torch.cat([x[:, None], torch.zeros_like(x)[:, None]], 1).max(1)[0],
    "larger of opposites": lambda x: (x + torch.stack([x, -x]).amax(0)) / 2,
    "padded and pooled": lambda x: functional.pad(x[..., None], (0, 1)).amax(-1),
    "sorted": lambda x: torch.stack([x, torch.zeros_like(x)]).sort(0)[0][1],
    "random slope": lambda x: functional.rrelu(x, 0, 0),
    "next to no slope": lambda x: functional.leaky_relu(x, 1e-9),
    "one slope of zero": lambda x: functional.prelu(x, torch.tensor([0.1, 0, 0.1, 0.1]).to(x)),
    "next to no bend": lambda x: functional.celu(x, alpha=1e-9),
    "root of a square": lambda x: (x + (x * x).sqrt()) / 2,
    "power of a square": lambda x: (x + (x * x) ** 0.5) / 2,
    "norm of one": lambda x: (x + torch.linalg.vector_norm(x[None], dim=0)) / 2,
    "signs": lambda x: x * (x.sign() + 1) / 2,
    "by infinity": lambda x: x / torch.where(x > 0, 1.0, torch.inf).to(x),
    "mixed in": lambda x: torch.lerp(torch.zeros_like(x), x, (x > 0).to(x)),
    "added in": lambda x: torch.addcmul(torch.zeros_like(x), x, (x > 0).to(x)),
    "scattered": lambda x: torch.zeros_like(x).masked_scatter(x > 0, x[x > 0]),
}

HARMLESS: dict[str, Callable[[Tensor], Tensor]] = {
    "gated": lambda x: x * functional.adaptive_avg_pool2d(x, 1).sigmoid(),
    "written-out norm": lambda x: x / (x.pow(2).mean(1, keepdim=True) + 1e-5).sqrt(),
    "local response": lambda x: functional.local_response_norm(x, 2),
    "unit length": functional.normalize,
    "normed": lambda x: functional.group_norm(functional.layer_norm(x, x.shape[1:]), 2),
    "other activations": lambda x: functional.elu(functional.softplus(x)).tanh() + x.sigmoid(),
    "slope": lambda x: functional.leaky_relu(x, 0.01),
    "both bounds": functional.hardtanh,
    "generalized mean": lambda x: functional.avg_pool2d(x.relu().clamp(min=1e-6) ** 3, 3, 1, 1).pow(
        1 / 3
    ),
    "padded, rectified and pooled": lambda x: functional.max_pool2d(
        functional.pad(x.relu(), (0, 2, 0, 2)), 3, 1
    ),
    "larger of two signals": lambda x: torch.stack([x, x.flip(3)]).amax(0),
    "resized": lambda x: functional.interpolate(
        functional.interpolate(x, scale_factor=2, mode="bilinear"), size=x.shape[2:], mode="area"
    ),
    "half precision on the way": lambda x: x.float().double(),
    "copied over": lambda x: torch.empty_like(x).copy_(x),
}


def ambiguous(way: Callable[[Tensor], Tensor]) -> Residual:
    model = Ambiguous(way).double()
    model(torch.zeros(1, 1, *SIZES[2], dtype=torch.float64))
    return model


@pytest.mark.parametrize("way", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_a_relu_that_cannot_be_told_is_never_passed_over(way: Callable[[Tensor], Tensor]) -> None:
    runtime = TorchRuntime(ambiguous(way), image_for().shape)
    assert "ReLU" in runtime.probed.unable[Ability.RECTIFIER_RULES]
    assert Ability.INPUT_GRADIENT in runtime.probed.abilities


@pytest.mark.parametrize("way", HARMLESS.values(), ids=HARMLESS)
def test_what_is_no_relu_does_not_keep_the_others_from_being_replaced(
    way: Callable[[Tensor], Tensor],
) -> None:
    runtime = TorchRuntime(ambiguous(way), image_for().shape)
    assert runtime.probed.unable.get(Ability.RECTIFIER_RULES) is None


def test_a_factor_that_is_no_mask_is_none_either() -> None:
    runtime = TorchRuntime(ambiguous(lambda x: x.relu() * 1.0 * x.sigmoid()), image_for().shape)
    assert Ability.RECTIFIER_RULES in runtime.probed.abilities


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (variant(Smooth), "no ReLU"),
        (variant(Hidden), "may hide a ReLU"),
        (Polynomial((1, *SIZES[2])), "no ReLU"),
    ],
    ids=["gelu", "view", "polynomial"],
)
def test_a_model_on_which_the_rule_says_nothing_is_refused(model: nn.Module, reason: str) -> None:
    image = image_for()
    runtime = TorchRuntime(model, image.shape)
    assert Ability.RECTIFIER_RULES not in runtime.probed.abilities
    assert reason in runtime.probed.unable[Ability.RECTIFIER_RULES]
    assert Ability.INPUT_GRADIENT in runtime.probed.abilities
    with pytest.raises(UnservablePass, match=reason):
        runtime.group(work_of([Gradient(Clean(image), logits(0), rule=Rule.GUIDED)]))


class Fickle(nn.Module):
    """Rectifies bright images only: the probe's noise is one, the test's image is not."""

    def forward(self, x: Tensor) -> Tensor:
        bright = bool(x.max() > 0)
        return (x.relu() if bright else x).flatten(1)[:, :CLASSES]


def test_an_image_on_which_no_relu_runs_is_refused_and_not_answered_by_a_plain_gradient() -> None:
    image = -image_for().abs()
    runtime = TorchRuntime(Fickle().double(), image.shape)
    assert Ability.RECTIFIER_RULES in runtime.probed.abilities
    (outcome,) = through(Scheduler(), runtime, GuidedBackprop().plan(image, logits(0)))
    assert isinstance(outcome, UnservablePass)


def test_passes_of_different_rules_never_share_a_batch() -> None:
    runtime, image = small_runtime(), image_for()
    asks = [Gradient(Clean(image), logits(0), rule=rule) for rule in Rule]
    assert len({runtime.group(work_of([ask])) for ask in asks}) == len(Rule)


def test_in_one_job_every_rule_gives_its_own_map_and_leaves_the_others_alone() -> None:
    runtime, image = small_runtime(), image_for()
    methods = [Saliency(), *METHODS_HERE]
    alone = [attribute(method, small_runtime(), image, logits(1)).values for method in methods]
    merged = through(Scheduler(), runtime, *(method.plan(image, logits(1)) for method in methods))
    for ours, expected in zip(merged, alone, strict=True):
        assert torch.equal(ours.values, expected)
    runtime.check()
    assert torch.equal(attribute(Saliency(), runtime, image, logits(1)).values, alone[0])


def test_another_thread_with_the_same_model_keeps_its_plain_gradients() -> None:
    model, image = variant(Functional), image_for()
    guided, plain = (TorchRuntime(model, image.shape) for _ in range(2))
    expected = attribute(Saliency(), plain, image, logits(2)).values
    _ = guided.probed
    beside: list[Tensor] = []

    def ask() -> None:
        beside.extend(attribute(Saliency(), plain, image, logits(2)).values for _ in range(40))

    thread = threading.Thread(target=ask)
    thread.start()
    maps = [attribute(GuidedBackprop(), guided, image, logits(2)).values for _ in range(40)]
    thread.join()
    assert len(beside) == 40
    assert all(torch.equal(each, expected) for each in beside)
    assert all(torch.equal(each, maps[0]) for each in maps)
    assert not torch.equal(maps[0], expected)


@pytest.mark.parametrize("name", ["guided_backprop", "deconvolution", "guided_grad_cam"])
def test_they_are_said_to_be_weak(name: str) -> None:
    assert METHODS[name].weak
    assert "eak evidence on any model, and graded so" in METHODS[name].weaknesses
