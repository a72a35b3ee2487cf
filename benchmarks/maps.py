"""Right maps of the demo model, and wrong ones of twelve kinds.

A right map explains a finding that is there and that the model reports. Four
wrong kinds are made of nothing or of the image, three by other weights or for
another class, five of the right map itself or of another patient's.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.measure import DEVICE
from examples.phantom.samples import radiographs
from service.domain.grid import Grid
from service.manifests import read_manifest
from workers.architectures.base import ARCHITECTURES
from workers.measures.bank import Bank, bank
from workers.methods.base import Method
from workers.methods.grad_cam import GradCam
from workers.methods.integrated_gradients import IntegratedGradients
from workers.methods.occlusion import Occlusion
from workers.passes import Plan
from workers.running import Planned
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler
from workers.targets.scalars import ClassLogit

MODEL: Final = Path(__file__).parents[1] / "models" / "chest-phantom"
LAYER: Final = "peaks"
HEAD: Final = "head"
CLASSES: Final = 5
SHAPE: Final = (1, 128, 128)
AIR: Final = -1.666667
"""The model's reference value of a pixel."""

METHODS: Final[Mapping[str, Method]] = {
    "grad_cam": GradCam(layer=LAYER),
    "integrated_gradients": IntegratedGradients(steps=16, baseline=AIR),
    "occlusion": Occlusion(window=16, stride=8, baseline=AIR),
}
WRONG: Final = (
    "blank",
    "noise",
    "centered",
    "edge",
    "random_weights",
    "random_head",
    "wrong_class",
    "mirrored",
    "negated",
    "shifted_16",
    "shifted_8",
    "other_patient",
)

R = TypeVar("R")
Values = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """Raw values, shape ``(C, *grid)``, and where their cells lie in the model's input."""

    values: Values
    grid: Grid


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """A finding that is there and that the model reports, and all maps of it."""

    image: Tensor
    """Shape `SHAPE`."""

    bank: Bank
    """Of the image; its first `CLASSES` columns are the model's own."""

    target: int
    maps: Mapping[str, Mapping[str, Map]]
    """By method, then by kind: ``right`` and those of `WRONG`."""


class Subjects:
    """The demo model with a second, shuffled head beside its own, and one all shuffled.

    Outputs ``CLASSES + k`` of `model` are those of class `k` under the shuffled
    head: one pass serves both.
    """

    def __init__(self) -> None:
        self.scheduler = Scheduler()
        generator = torch.Generator().manual_seed(5)
        own, other = trained(), trained()
        first, second = own.get_submodule(HEAD), other.get_submodule(HEAD)
        assert isinstance(first, nn.Linear)
        assert isinstance(second, nn.Linear)
        shuffle(second, generator)
        own.set_submodule(HEAD, _beside(first, second))
        self.model = TorchRuntime(own, SHAPE, (LAYER,))
        everything = trained()
        shuffle(everything, generator)
        self.random = TorchRuntime(everything, SHAPE, (LAYER,))

    def ask(self, plan: Plan[R], runtime: TorchRuntime | None = None) -> R:
        """Have one plan served, by `model` if no other is named."""
        future = self.scheduler.submit("bench", runtime or self.model, [Planned(plan, 1)])
        self.scheduler.run_until_idle()
        (outcome,) = future.result(0).outcomes
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def maps(
        self, method: Method, image: Tensor, classes: Sequence[int], runtime: TorchRuntime
    ) -> dict[int, Map]:
        """Return the maps of several outputs."""
        made = self.ask(method.plan(image, tuple(map(ClassLogit, classes))), runtime)
        values = made.values.detach().cpu().numpy().astype(np.float32)
        grid = Grid(values.shape[2:], made.affine)
        return {each: Map(values[row], grid) for row, each in enumerate(classes)}


def trained() -> nn.Module:
    """Return the demo model's network with its weights."""
    manifest = read_manifest((MODEL / "model.yaml").read_bytes())
    wanted = manifest.architecture
    assert wanted is not None
    network = ARCHITECTURES[wanted.name].model_validate(wanted.parameters).build()
    network.load_state_dict(load_file(MODEL / manifest.file("weights", "safetensors").path))
    return network.eval().to(DEVICE)


def shuffle(module: nn.Module, generator: torch.Generator) -> None:
    """Permute the entries within each parameter, which keeps their distribution."""
    with torch.no_grad():
        for parameter in module.parameters():
            order = torch.randperm(parameter.numel(), generator=generator)
            parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))


def _beside(first: nn.Linear, second: nn.Linear) -> nn.Linear:
    """Return one layer that gives both layers' outputs."""
    both = nn.Linear(first.in_features, first.out_features + second.out_features)
    with torch.no_grad():
        both.weight.copy_(torch.cat([first.weight, second.weight]))
        both.bias.copy_(torch.cat([first.bias, second.bias]))
    return both


def findings(
    subjects: Subjects, seed: int, count: int, methods: Collection[str] = METHODS
) -> Iterator[Finding]:
    """Iterate over the findings of `count` radiographs, with the maps of some methods.

    The first of each class is passed over, for want of another patient's map.
    """
    samples = radiographs(seed, count)
    stale: dict[tuple[str, int], Map] = {}
    for picture, labels in zip(samples.images, samples.labels, strict=True):
        image = torch.from_numpy(picture)
        known = subjects.ask(bank(image))
        targets = [int(each) for each in np.flatnonzero(labels & (known.scores[:CLASSES] > 0))]
        if not targets:
            continue
        plain = drawn(image)
        learned = {name: _learned(subjects, name, image, targets) for name in methods}
        for target in targets:
            pairs = {name: (name, target) for name in methods}
            before = {name: stale.get(pair) for name, pair in pairs.items()}
            stale.update({pair: learned[name][target]["right"] for name, pair in pairs.items()})
            maps = {
                name: {
                    **learned[name][target],
                    **plain,
                    **displaced(learned[name][target]["right"]),
                    "other_patient": other,
                }
                for name, other in before.items()
                if other is not None
            }
            if maps:
                yield Finding(image, known, target, maps)


def _learned(
    subjects: Subjects, name: str, image: Tensor, targets: Sequence[int]
) -> dict[int, dict[str, Map]]:
    """Return the maps that a network had a part in, by target and kind."""
    others = [(each + 2) % CLASSES for each in targets]
    heads = [CLASSES + each for each in targets]
    wanted = sorted({*targets, *others, *heads})
    own = subjects.maps(METHODS[name], image, wanted, subjects.model)
    random = subjects.maps(METHODS[name], image, targets, subjects.random)
    return {
        target: {
            "right": own[target],
            "random_weights": random[target],
            "random_head": own[head],
            "wrong_class": own[other],
        }
        for target, other, head in zip(targets, others, heads, strict=True)
    }


def drawn(image: Tensor) -> dict[str, Map]:
    """Return maps that no model had a part in."""
    return {
        "blank": _whole(np.zeros(SHAPE, np.float32)),
        "noise": _whole(_noise(int(1e6 * float(image.abs().sum())) % 2**32)),
        "centered": _whole(_center()),
        "edge": _whole(_edges(image)),
    }


def displaced(right: Map) -> dict[str, Map]:
    """Return the right map, turned against itself."""
    values = right.values
    return {
        "mirrored": Map(np.flip(values, -1).copy(), right.grid),
        "negated": Map(-values, right.grid),
        "shifted_16": _shifted(right, 16),
        "shifted_8": _shifted(right, 8),
    }


def _whole(values: Values) -> Map:
    return Map(values, Grid.identity(values.shape[1:]))


def _noise(seed: int) -> Values:
    """Return noise that is smooth over 16 pixels."""
    coarse = np.random.default_rng(seed).normal(size=(1, 1, 8, 8)).astype(np.float32)
    fine: Values = functional.interpolate(torch.from_numpy(coarse), SHAPE[1:], mode="bicubic")[
        0
    ].numpy()
    return fine


def _center() -> Values:
    u = (np.arange(SHAPE[1]) - (SHAPE[1] - 1) / 2) / 24
    bump: Values = np.exp(-(u[:, None] ** 2 + u[None] ** 2) / 2).astype(np.float32)[None]
    return bump


def _edges(image: Tensor) -> Values:
    down, across = np.gradient(image[0].numpy())
    strength: Values = np.hypot(down, across).astype(np.float32)[None]
    return strength


def _shifted(each: Map, pixels: int) -> Map:
    """Move a map right and down, in model-input pixels, around the border."""
    values = each.values
    for axis in (0, 1):
        values = values.repeat(round(each.grid.affine[axis, axis]), axis + 1)
    return _whole(np.roll(values, (pixels, pixels), (1, 2)))


def auc(right: Sequence[float], wrong: Sequence[float]) -> float:
    """Return how often a right map's figure is larger than a wrong one's."""
    difference = np.subtract.outer(right, wrong)
    return round(float((difference > 0).mean() + 0.5 * (difference == 0).mean()), 3)
