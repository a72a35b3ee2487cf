"""Grad-CAM of one 224x224 image on a ResNet-50, against pytorch-grad-cam and captum.

One process, one thread, same weights, same image; ours goes through the
scheduler, as every job does. Equality comes first: a map that differs from a
float64 oracle by more than 1e-5 of its range makes the timing worthless::

    python -m benchmarks.grad_cam [rounds]

In bfloat16 ours is held to a Pearson correlation of 0.999 with the oracle instead, as
it is in the service; its floor is the forward pass of the same narrow network.

captum is timed as its documentation uses it, and as fast as it can be made: its
parameters frozen but for the target layer's, so that its graph begins there. The
floor is one forward pass of the bare model, without a graph.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import numpy as np
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn

from benchmarks.measure import (
    CLOCK,
    CONTROL,
    DEVICE,
    Ratio,
    conditions,
    publish,
    ratio,
    rounds,
    within,
)
from benchmarks.networks import noise
from benchmarks.peers import pytorch_grad_cam
from benchmarks.resnet50 import TARGET_LAYER, ResNet50, resnet50
from workers.methods.base import Maps
from workers.methods.grad_cam import GradCam
from workers.running import Planned
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler
from workers.targets.classes import ClassLogit

ROUNDS: Final = 15
TARGET: Final = 9
"""A class whose map is positive: pytorch-grad-cam shows nothing of a negative one."""

EQUAL: Final = 1e-5 if DEVICE.type == "cpu" else 1e-4
NEAR: Final = 0.999
OURS, CAPTUM, PEER = "whylight", "captum (default)", "pytorch-grad-cam"
NARROW: Final = "whylight, bfloat16"
TUNED: Final = "captum (best-tuned)"
FLOOR, NARROW_FLOOR = "floor", "floor, bfloat16"
FLOORS: Final = {OURS: FLOOR, NARROW: NARROW_FLOOR}
BARS: Final[Mapping[str, Mapping[str, float]]] = {
    OURS: {PEER: 2.8, TUNED: 0.95, FLOOR: 0.9},
    NARROW: {PEER: 4.0},
}
"""Least ratio of a competitor's time to each of ours."""

Spent = Mapping[str, Mapping[str, list[float]]]
PASSES: Final = {"forward": 1, "gradient to the target layer": 1}
PACKAGES: Final = ("torch", "captum", "grad-cam", "numpy", "opencv-python-headless")


def image() -> Tensor:
    """Return the one image, shape ``(3, 224, 224)``."""
    return noise((3, 224, 224))


def oracle() -> Tensor:
    """Return the signed map by the definition, in float64, shape ``(7, 7)``."""
    net = resnet50().double()
    kept: list[Tensor] = []
    net.get_submodule(TARGET_LAYER).register_forward_hook(lambda _m, _i, out: kept.append(out))
    score = net(image().double()[None])[0, TARGET]
    (gradient,) = torch.autograd.grad(score, kept)
    return (kept[0] * gradient.mean((2, 3), keepdim=True)).sum(1)[0].detach()


def ours(runtime: TorchRuntime) -> Callable[[], Tensor]:
    """Return our way, on a replica of one precision or the other."""
    scheduler, method, x = Scheduler(), GradCam(layer=TARGET_LAYER), image()
    assert runtime.probed.layers

    def run() -> Tensor:
        plan = method.plan(x, (ClassLogit(TARGET),))
        job = scheduler.submit("job", runtime, [Planned(plan, 1)])
        scheduler.run_until_idle()
        (maps,) = job.result(0).outcomes
        assert isinstance(maps, Maps)
        values: Tensor = maps.values[0, 0]
        return values

    return run


def captum(*, tuned: bool) -> Callable[[], Tensor]:
    net, x = resnet50(), image()[None]
    layer = net.get_submodule(TARGET_LAYER)
    if tuned:
        net.requires_grad_(requires_grad=False)
        layer.requires_grad_()
    method = LayerGradCam(net, layer)

    def run() -> Tensor:
        values: Tensor = method.attribute(x, TARGET)[0, 0].detach()
        return values

    return run


def floor(net: nn.Module) -> Callable[[], Tensor]:
    """Return what no way can do without: the forward pass alone."""
    x = image()[None]

    def run() -> Tensor:
        with torch.no_grad():
            scores: Tensor = net(x)
        return scores

    return run


def peer() -> Callable[[], Any]:
    package = pytorch_grad_cam()
    net, x = resnet50(), image()[None]
    method = package.GradCAM(net, [net.get_submodule(TARGET_LAYER)])
    targets = [package.utils.model_targets.ClassifierOutputTarget(TARGET)]
    return lambda: method(x, targets)


def error(values: Tensor, expected: Tensor) -> float:
    """Return the largest difference, as a share of the expected map's range."""
    span = expected.max() - expected.min()
    return ((values.double() - expected).abs().max() / span).item()


def correlation(values: Tensor, expected: Tensor) -> float:
    """Return Pearson's correlation of two maps."""
    pair = torch.stack([values.double().flatten(), expected.flatten()])
    return float(torch.corrcoef(pair)[0, 1])


def displayed(values: Tensor, package: Any) -> np.ndarray[Any, Any]:
    """Do to a signed map what pytorch-grad-cam does to its own before returning it."""
    positive = values.clamp(min=0)[None].cpu().numpy()
    scale = package.utils.image.scale_cam_image
    scaled: np.ndarray[Any, Any] = scale(scale(positive, (224, 224)))
    return scaled


def equality(runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Return each competitor's error against the oracle."""
    expected = oracle()
    shown = displayed(expected, pytorch_grad_cam())
    assert shown.max() > shown.min(), "a blank map would equal anything"
    return {
        OURS: error(runs[OURS](), expected),
        CAPTUM: error(runs[CAPTUM](), expected),
        TUNED: error(runs[TUNED](), expected),
        PEER: float(np.abs(runs[PEER]() - shown).max()),
    }


def main() -> int:
    torch.set_num_threads(1)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    runtime = TorchRuntime(resnet50(), (3, 224, 224), (TARGET_LAYER,), device=DEVICE)
    narrow = runtime.recast(torch.bfloat16)
    subject = ours(runtime)
    runs = {
        OURS: subject,
        NARROW: ours(narrow),
        CAPTUM: captum(tuned=False),
        TUNED: captum(tuned=True),
        PEER: peer(),
        FLOOR: floor(resnet50()),
        NARROW_FLOOR: floor(narrow.model),
        CONTROL: subject,
    }
    errors = equality(runs)
    print("error against float64:", {name: f"{value:.1e}" for name, value in errors.items()})
    if max(errors.values()) > EQUAL:
        print("a map differs from the oracle: timings would mean nothing")
        return 1
    near = correlation(runs[NARROW](), oracle())
    print(f"correlation with float64 in bfloat16: {near:.5f}")
    if near < NEAR:
        print("the map in bfloat16 is too far from the oracle: its timings would mean nothing")
        return 1
    spent = rounds(runs, count)
    for name, clocks in spent.items():
        print(f"{name:19} cpu {median(clocks['cpu']):.4f} s  wall {median(clocks['wall']):.4f} s")
    found = {subject: against(spent, subject) for subject in BARS}
    valid = within(found[OURS].ratios[CLOCK][CONTROL])
    path = publish(
        "grad_cam",
        {
            "conditions": conditions(PACKAGES),
            "parameters": sum(p.numel() for p in ResNet50().parameters()),
            "error_against_float64": errors,
            "correlation_with_float64": {NARROW: near},
            "passes": PASSES,
            "subjects": {subject: each.plain() for subject, each in found.items()},
            "valid": valid,
            "seconds": spent,
        },
    )
    held = {subject: each.held for subject, each in found.items()}
    print(f"bars held: {held}; control valid: {valid}; written to {path}")
    return 0 if valid and all(all(each.values()) for each in held.values()) else 1


@dataclass(frozen=True, slots=True)
class Standing:
    """How one of ours stands beside all others."""

    ratios: Mapping[str, Mapping[str, Ratio]]
    """By clock and competitor: how many times as long that one takes."""

    bars: Mapping[str, float]
    floor_efficiency: float

    @property
    def held(self) -> dict[str, bool]:
        """Whether each bar is reached."""
        return {name: self.ratios[CLOCK][name].median >= bar for name, bar in self.bars.items()}

    def plain(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "ratios": {
                clock: {name: [r.median, r.low, r.high] for name, r in each.items()}
                for clock, each in self.ratios.items()
            },
            "bars": dict(self.bars),
            "held": self.held,
            "floor_efficiency": self.floor_efficiency,
        }


def against(spent: Spent, subject: str) -> Standing:
    """Compare all times with those of one of ours, and print its lines."""
    ratios = {
        clock: {
            name: ratio(clocks[clock], spent[subject][clock])
            for name, clocks in spent.items()
            if name != subject
        }
        for clock in ("cpu", "wall")
    }
    bars = BARS[subject]
    for name, each in ratios[CLOCK].items():
        bar = f"  bar {bars[name]}" if name in bars else ""
        print(f"{name:19} / {subject}: {each.median:.3f} [{each.low:.3f}, {each.high:.3f}]{bar}")
    least = {name: min(clocks[CLOCK]) for name, clocks in spent.items()}
    efficiency = round(least[FLOORS[subject]] / least[subject], 3)
    print(f"floor efficiency {efficiency} (least times), passes {PASSES}")
    return Standing(ratios, bars, efficiency)


if __name__ == "__main__":
    raise SystemExit(main())
