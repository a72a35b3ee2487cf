"""The detector of planted shapes, explained by every method that it can serve."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from examples.planted.boxes import found
from examples.planted.inputs import inputs
from examples.planted.pictures import SIDE, shapes
from examples.planted.recipes import SHAPE_DETECTION, right
from examples.radiographs import SMALL
from service.domain.grid import Grid, apply
from service.domain.target import DetectionTarget
from service.manifests import read_manifest
from tests.support.engine import attribute, settled
from workers.catalog import ALIKE, refusal
from workers.methods.base import METHODS
from workers.runtimes.torch import TorchRuntime
from workers.targets.base import Answer
from workers.targets.resolve import predict, resolve

PACKAGE = Path(__file__).parents[3] / "models" / "detector-phantom"
MANIFEST = read_manifest((PACKAGE / "model.yaml").read_bytes())
PICTURE = shapes(4_774, {"cyst": 2, "stone": 1})
"""Two cysts and a stone, each apart from the others by more than the network's neighborhood."""

COSTLY = {
    "rise": {"samples": 256, "cells": 10},
    "occlusion": {"window": 8, "stride": 4},
    "shapley_sampling": {"orders": 4},
    "gradient_shap": {"samples": 8},
    "expected_gradients": {"samples": 16},
    "var_grad": {"samples": 8},
    "smooth_grad": {"samples": 8},
}
NEAR = 6
"""Source pixels about a box that count as its own: what tells an edge lies on both sides of it."""


@pytest.fixture(scope="module")
def runtime():
    network = SHAPE_DETECTION.network.build()
    network.load_state_dict(load_file(PACKAGE / "weights.safetensors"))
    layers = [each.name for each in MANIFEST.explain.layers]
    return TorchRuntime(network.eval(), (1, SMALL, SMALL), layers)


@pytest.fixture(scope="module")
def chosen(runtime):
    """Each planted shape's own box as a target."""
    with torch.no_grad():
        outputs = runtime.model(inputs([PICTURE]))[0].double()
    grid = Grid.partition((SMALL, SMALL), (SIDE, SIDE))
    answer = Answer(MANIFEST, outputs, grid)
    asked = [DetectionTarget(kind="detection", of=shape, box=box) for shape, box in PICTURE.boxes]
    return grid, resolve(asked, answer, predict(answer)).chosen


def test_each_shape_is_found_where_it_was_planted(runtime):
    (boxes,) = found(runtime.model, inputs([PICTURE]))
    assert sorted(shape for shape, _ in boxes) == ["cyst", "cyst", "stone"]
    for shape, box in boxes:
        planted = [np.array(each) for name, each in PICTURE.boxes if name == shape]
        assert min(np.abs(each - 2 * box.numpy()).max() for each in planted) <= 3


def test_it_is_right_on_pictures_it_never_saw(runtime):
    others = [shapes(seed) for seed in range(40)]
    shapes_found, boxes_right = right(runtime.model, others)
    assert shapes_found > 0.95
    assert boxes_right > 0.95


SERVED = [
    name
    for name in METHODS
    if not METHODS[name].marks_alike and name not in ("class_activation_map", "gradient_attention")
]


def test_methods_that_cannot_tell_one_box_from_another_are_refused(runtime):
    refused = {name: refusal(name, runtime.probed, MANIFEST) for name in METHODS}
    assert [name for name in METHODS if refused[name] is None] == SERVED
    for name in ("grad_cam", "grad_cam_plus_plus", "xgrad_cam", "score_cam", "eigen_cam"):
        assert refused[name] == ALIKE


@pytest.mark.parametrize("name", SERVED)
def test_the_map_of_a_box_lies_in_that_box_and_not_in_another(runtime, chosen, name):
    grid, targets = chosen
    baseline = MANIFEST.explain.baseline
    method = settled(METHODS[name](**COSTLY.get(name, {})), runtime, baseline)
    scalars = tuple(each.seen_by(method).scalar for each in targets)
    image = inputs([PICTURE])[0]
    maps = attribute(method, runtime, image, scalars, chunk=64)
    for k, (_, box) in enumerate(PICTURE.boxes):
        values = maps.values[k].sum(0).double().clamp(min=0).numpy()
        cells = np.stack(np.meshgrid(*map(np.arange, values.shape), indexing="ij"), -1)
        places = apply(grid.affine @ maps.affine, cells) + 0.5
        own = mass(values, places, box)
        others = [mass(values, places, each) for j, (_, each) in enumerate(PICTURE.boxes) if j != k]
        assert own > 0.15
        assert own > 3 * max(others)


def mass(values, places, box):
    """Return the share of a map that lies in a box or near it."""
    low, high = np.array(box[:2]) - NEAR, np.array(box[2:]) + NEAR
    inside = ((places >= low) & (places < high)).all(-1)
    return values[inside].sum() / values.sum()


def test_without_its_refusal_grad_cam_would_mark_the_other_cyst(runtime, chosen):
    """Why it is refused: its largest value for one cyst lies in the other."""
    _, targets = chosen
    method = settled(METHODS["grad_cam"](), runtime)
    maps = attribute(method, runtime, inputs([PICTURE])[0], tuple(e.scalar for e in targets))
    peaks = {int(each.sum(0).argmax()) for each in maps.values[:2]}
    assert len(peaks) == 1
