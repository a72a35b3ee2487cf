"""The small models, explained by every method that they can serve, and held against what was
planted: evidence lies there more densely than elsewhere."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from torch import Tensor

from examples.planted.inputs import inputs
from examples.planted.pictures import hand, lit, plain, shapes, tumor
from examples.radiographs import SMALL
from examples.spheres import bag, train
from examples.spheres.phantom import draw
from service.domain.grid import Grid, apply
from service.domain.target import (
    ClassTarget,
    EmbeddingTarget,
    RegressionTarget,
    SegmentationTarget,
    Target,
    TimeToEventTarget,
)
from service.manifests import read_manifest
from tests.support.engine import attribute, settled
from workers.bags import bagged
from workers.catalog import refusal
from workers.methods.base import METHODS
from workers.runtimes.torch import TorchRuntime
from workers.runtimes.torch_opener import TorchOpener
from workers.targets.base import Answer
from workers.targets.resolve import predict, resolve

MODELS = Path(__file__).parents[2] / "models"
COSTLY: Mapping[str, Any] = {
    "rise": {"samples": 256, "cells": 8},
    "occlusion": {"window": 8, "stride": 4},
    "kernel_shap": {"samples": 400},
    "lime": {"samples": 400},
    "shapley_sampling": {"orders": 2},
    "gradient_shap": {"samples": 8},
    "expected_gradients": {"samples": 16},
    "var_grad": {"samples": 8},
    "smooth_grad": {"samples": 8},
}
FACTOR = 1.5
"""How many times as dense as anywhere a map must be where the truth lies."""

NO_TARGET = "it knows no target, and shows whatever is seen"
HIDDEN = "it hides most of the image, and with it the tissue that a cyst is darker than"
SQUARE = "an error is nearly a square of the image: its gradient varies alike everywhere"
UNKNOWN = "so it was found on this model; why has not been looked into"
NEAR = 2
"""Input pixels about what was planted that count as its own: an edge is seen on both sides."""


@dataclass(frozen=True)
class World:
    """A small model, an image, and where on the model's input its truth lies."""

    target: Target
    image: Callable[[], Tensor]
    truth: Callable[[], NDArray[np.bool_]]
    weak: Mapping[str, str] = field(default_factory=dict)
    """Methods that do not find it, with the reason."""


def halved(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a mask of a plate on the model's input, of half its edges."""
    step = len(mask) // SMALL
    return mask[::step, ::step]


HAND = hand(4_711, 180.0)
SHAPES = shapes(4_712, {"cyst": 1, "stone": 1})
LIT = lit(7_001, {"cyst": 1, "stone": 1})
TUMOR = tumor(4_711, 12.0)
STRANGE = plain(4_002, 8.0)
SPHERE = draw(4_713, ["dense", "hollow"])


def in_volume() -> NDArray[np.bool_]:
    """Return the dense sphere on the network's grid."""
    values = np.where(SPHERE.mask("dense"), 440, -360).astype(np.float32)
    return np.asarray(train.prepared(replace(SPHERE, values=values))[0] > 0)


WORLDS = {
    "bone-age-phantom": World(
        RegressionTarget(kind="regression", of="bone_age"),
        lambda: inputs([HAND]),
        lambda: halved(HAND.masks["growth_center"]),
        {"score_cam": UNKNOWN},
    ),
    "shape-phantom": World(
        SegmentationTarget(kind="segmentation", of="cyst"),
        lambda: inputs([SHAPES]),
        lambda: halved(SHAPES.masks["cyst"]),
        {
            "eigen_cam": NO_TARGET,
            **dict.fromkeys(("lime", "rise", "score_cam", "shapley_sampling"), HIDDEN),
        },
    ),
    "vit-phantom": World(
        ClassTarget(of="cyst"),
        lambda: inputs([LIT]),
        lambda: halved(LIT.masks["cyst"]),
        {
            **dict.fromkeys(("attention_rollout", "eigen_cam"), NO_TARGET),
            **dict.fromkeys(("ablation_cam", "score_cam", "smooth_grad"), UNKNOWN),
        },
    ),
    "survival-phantom": World(
        TimeToEventTarget(kind="time_to_event", horizon=365),
        lambda: inputs([TUMOR]),
        lambda: halved(TUMOR.masks["tumor"]),
    ),
    "autoencoder-phantom": World(
        EmbeddingTarget(kind="embedding", of="reconstruction_error"),
        lambda: inputs([STRANGE]),
        lambda: halved(STRANGE.masks["anomaly"]),
        {"var_grad": SQUARE},
    ),
    "sphere-phantom": World(
        ClassTarget(of="dense"), lambda: torch.from_numpy(train.prepared(SPHERE)[None]), in_volume
    ),
    "sphere-bag-phantom": World(
        ClassTarget(of=bag.FINDING),
        lambda: torch.from_numpy(bag.prepared(SPHERE)[None]),
        lambda: SPHERE.mask(bag.FINDING),
    ),
}


@pytest.mark.parametrize("model", WORLDS)
def test_maps_are_densest_where_the_truth_was_planted(model: str) -> None:
    world, image = WORLDS[model], WORLDS[model].image()
    folder = MODELS / model
    manifest = read_manifest((folder / "model.yaml").read_bytes())
    runtime = TorchOpener().open(manifest, folder, tuple(image.shape[1:]), torch.device("cpu"))()
    assert isinstance(runtime, TorchRuntime)
    with torch.no_grad():
        outputs = runtime.model(image)[0].double()
    answer = Answer(manifest, outputs, Grid.identity(tuple(image.shape[2:])))
    (chosen,) = resolve([world.target], answer, predict(answer)).chosen
    truth = binary_dilation(world.truth(), iterations=NEAR)
    probe = bagged(manifest, runtime.probed)
    served = {name for name in METHODS if refusal(name, probe, manifest) is None}
    assert world.weak.keys() < served
    found = {}
    for name in sorted(served - world.weak.keys()):
        method = settled(METHODS[name](**COSTLY.get(name, {})), runtime, manifest.explain.baseline)
        maps = attribute(method, runtime, image[0], (chosen.seen_by(method).scalar,), chunk=64)
        found[name] = density(maps.values[0].sum(0), maps.affine, truth)
    assert len(found) >= 14
    assert {name: each for name, each in found.items() if not each > FACTOR} == {}


def density(values: Tensor, affine: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Return the share of a map's evidence that lies in the truth, over the truth's own share.

    Each pixel of the input has the value of the map's cell that it lies in.
    """
    evidence = values.double().clamp(min=0).numpy()
    pixels = np.argwhere(np.ones_like(truth))
    back = np.asarray(np.linalg.inv(affine), np.float64)
    cells = np.rint(apply(back, pixels)).astype(int)
    inside = ((cells >= 0) & (cells < evidence.shape)).all(1)
    spread = np.zeros(len(pixels))
    spread[inside] = evidence[tuple(cells[inside].T)]
    return float(spread[truth.ravel()].sum() / spread.sum() / truth.mean())
