"""The detectors of planted shapes and spheres, explained by every method that they can serve."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from examples.boxes import Detecting, Planted
from examples.planted.inputs import inputs
from examples.planted.pictures import shapes
from examples.spheres import detector as spheres
from examples.spheres.phantom import draw
from service.domain.grid import Grid, apply
from service.domain.manifest import Manifest
from service.domain.target import DetectionTarget
from tests.support.detector import OF_SHAPES, OF_SPHERES, Shipped
from tests.support.engine import attribute, settled
from workers.catalog import ALIKE, refusal
from workers.methods.base import METHODS
from workers.runtimes.torch import TorchRuntime
from workers.targets.base import Answer
from workers.targets.resolve import predict, resolve

COSTLY = {
    "rise": {"samples": 256, "cells": 10},
    "occlusion": {"window": 8, "stride": 4},
    "shapley_sampling": {"orders": 4},
    "gradient_shap": {"samples": 8},
    "expected_gradients": {"samples": 16},
    "var_grad": {"samples": 8},
    "smooth_grad": {"samples": 8},
}


@dataclass(frozen=True)
class World:
    """A bundled detector, and a drawing of two things of its first class and one of the other."""

    shipped: Shipped
    inputs: Callable[[Sequence[Any]], torch.Tensor]
    new: Callable[[int], Planted]
    """Draws what the detector never saw."""

    drawing: Planted
    """Each thing apart from the others by more than the network's neighborhood."""

    near: tuple[float, ...]
    """Source pixels about a box that count as its own: what tells an edge lies on both sides."""

    parameters: dict[str, Any]

    @property
    def manifest(self) -> Manifest:
        return self.shipped.manifest

    @property
    def detecting(self) -> Detecting:
        return self.shipped.detecting


WORLDS = {
    "image": World(
        OF_SHAPES,
        inputs,
        shapes,
        shapes(4_774, {"cyst": 2, "stone": 1}),
        (6, 6),
        COSTLY,
    ),
    "volume": World(
        OF_SPHERES,
        spheres.inputs,
        spheres.several,
        draw(5_362, ["dense", "dense", "hollow"]),
        (2, 4, 4),
        COSTLY | {"rise": {"samples": 512, "cells": 8}},
    ),
}


@pytest.fixture(scope="module", params=WORLDS)
def world(request):
    return WORLDS[request.param]


@pytest.fixture(scope="module")
def image(world):
    return world.inputs([world.drawing])


@pytest.fixture(scope="module")
def runtime(world):
    layers = [each.name for each in world.manifest.explain.layers]
    return TorchRuntime(world.shipped.network(), (1, *world.detecting.small), layers)


@pytest.fixture(scope="module")
def chosen(world, runtime, image):
    """Each planted thing's own box as a target."""
    with torch.no_grad():
        outputs = runtime.model(image)[0].double()
    grid = Grid.partition(world.detecting.small, world.detecting.drawn)
    answer = Answer(world.manifest, outputs, grid)
    asked = [DetectionTarget(kind="detection", of=of, box=box) for of, box in world.drawing.boxes]
    return grid, resolve(asked, answer, predict(answer)).chosen


def test_each_thing_is_found_where_it_was_planted(world, runtime, image):
    (boxes,) = world.detecting.found(runtime.model, image)
    assert sorted(of for of, _ in boxes) == sorted(of for of, _ in world.drawing.boxes)
    scale = np.tile(np.divide(world.detecting.drawn, world.detecting.small), 2)
    for of, box in boxes:
        same = [np.array(each) for name, each in world.drawing.boxes if name == of]
        assert min(np.abs(each / scale - box.numpy()).max() for each in same) <= 1.5


def test_it_is_right_on_what_it_never_saw(world, runtime):
    others = [world.new(seed) for seed in range(40)]
    found, right = world.detecting.right(runtime.model, world.inputs(others), others)
    assert found > 0.95
    assert right > 0.95


SERVED = [
    name
    for name in METHODS
    if not METHODS[name].marks_alike and name not in ("class_activation_map", "gradient_attention")
]


def test_methods_that_cannot_tell_one_box_from_another_are_refused(world, runtime):
    refused = {name: refusal(name, runtime.probed, world.manifest) for name in METHODS}
    assert [name for name in METHODS if refused[name] is None] == SERVED
    for name in ("grad_cam", "grad_cam_plus_plus", "xgrad_cam", "score_cam", "eigen_cam"):
        assert refused[name] == ALIKE


@pytest.mark.parametrize("name", SERVED)
def test_the_map_of_a_box_lies_in_that_box_and_not_in_another(world, runtime, image, chosen, name):
    grid, targets = chosen
    asked = METHODS[name](**world.parameters.get(name, {}))
    method = settled(asked, runtime, world.manifest.explain.baseline)
    scalars = tuple(each.seen_by(method).scalar for each in targets)
    maps = attribute(method, runtime, image[0], scalars, chunk=64)
    boxes = [np.split(np.array(box), 2) for _, box in world.drawing.boxes]
    for k in range(len(boxes)):
        values = maps.values[k].sum(0).double().clamp(min=0).numpy()
        cells = np.stack(np.meshgrid(*map(np.arange, values.shape), indexing="ij"), -1)
        places = apply(grid.affine @ maps.affine, cells) + 0.5
        own, *others = (
            mass(values, places, low - world.near, high + world.near)
            for low, high in (boxes[k], *boxes[:k], *boxes[k + 1 :])
        )
        assert own > 0.15
        assert own > 3 * max(others)


def mass(values, places, low, high):
    """Return the share of a map that lies in a box."""
    inside = ((places >= low) & (places < high)).all(-1)
    return values[inside].sum() / values.sum()


def test_without_its_refusal_grad_cam_would_mark_the_other_one(runtime, image, chosen):
    """Why it is refused: its largest value for the first thing lies in the second, or so does that
    of the second in the first."""
    _, targets = chosen
    method = settled(METHODS["grad_cam"](), runtime)
    maps = attribute(method, runtime, image[0], tuple(e.scalar for e in targets))
    peaks = {int(each.sum(0).argmax()) for each in maps.values[:2]}
    assert len(peaks) == 1
