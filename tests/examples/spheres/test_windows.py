"""The U-Net of spheres, given a volume in windows: every method points at what was planted."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from examples.spheres.phantom import draw
from examples.spheres.unet import NETWORK, logits, seen
from service.manifests import read_manifest
from tests.support.engine import run_alone, settled
from workers.methods.base import METHODS
from workers.passes import Ability
from workers.runtimes.torch import TorchRuntime
from workers.sliding.passes import Sliding, windowed
from workers.targets.scalars import RegionLogits

FOLDER = Path(__file__).parents[3] / "models" / "spheres-unet"
MANIFEST = read_manifest((FOLDER / "model.yaml").read_bytes())
SHAPE = (16, 16, 20)
"""Of the part of the volume about the sphere: two windows."""

QUICK = {
    "expected_gradients": {"samples": 4},
    "gradient_shap": {"samples": 4},
    "integrated_gradients": {"steps": 4},
    "kernel_shap": {"samples": 64},
    "lime": {"samples": 64},
    "occlusion": {"window": 6},
    "rise": {"samples": 64},
    "shapley_sampling": {"orders": 2},
    "smooth_grad": {"samples": 4},
    "var_grad": {"samples": 4},
}
ALONE = {Ability.FORWARD, Ability.INPUT_GRADIENT, Ability.LAYER_GRADIENT, Ability.PATH_GRADIENT}
"""What this network can be asked for under windows; its rectifiers are leaky."""

SERVED = [name for name in METHODS if METHODS[name].needs <= ALONE]


@pytest.fixture(scope="module")
def network():
    built = NETWORK.build().eval()
    built.load_state_dict(load_file(FOLDER / "weights.safetensors"))
    return built


@pytest.fixture(scope="module")
def room(network):
    """Runtime and windows, a volume with one sphere, where it is, and the target."""
    runtime = TorchRuntime(
        network,
        (1, *MANIFEST.sliding_window.size),
        [each.name for each in MANIFEST.explain.layers],
    )
    volume, truth = seen(draw(4_343, ["dense"]))
    center = np.argwhere(truth == 1).mean(0).round().astype(int)
    box = tuple(
        slice(at, at + edge) for at, edge in zip(center - np.array(SHAPE) // 2, SHAPE, strict=True)
    )
    image = np.ascontiguousarray(volume[:, *box])
    mask = (logits(network, image).argmax(0) == 1).numpy()
    sliding = Sliding(MANIFEST.sliding_window, torch.zeros(0))
    target = RegionLogits(1, mask, "0" * 64)
    return runtime, sliding, torch.from_numpy(image), truth[box] == 1, target


def test_it_outlines_what_was_planted(network):
    for seed in (4_350, 4_351):
        volume, truth = seen(draw(seed, ["dense", "hollow"]))
        found = logits(network, volume).argmax(0).numpy()
        for finding in (1, 2):
            both = ((found == finding) & (truth == finding)).sum()
            assert 2 * both / ((found == finding).sum() + (truth == finding).sum()) > 0.7


def test_methods_that_need_more_than_a_window_gives_are_refused(room):
    runtime, *_ = room
    assert windowed(runtime.probed, MANIFEST.sliding_window).abilities == ALONE
    assert {"score_cam", "ablation_cam", "eigen_cam", "attention_rollout"}.isdisjoint(SERVED)
    assert len(SERVED) >= 15


@pytest.mark.parametrize("name", SERVED)
def test_every_method_points_at_the_sphere(room, name):
    """The mean of the map within the sphere is far above that of all; its peak lies there."""
    runtime, sliding, image, inside, target = room
    assert sliding.tiling(image.shape).count == 2
    method = settled(METHODS[name](**QUICK.get(name, {})), runtime)
    maps = run_alone(sliding.maps(method, image, (target,), None), runtime, 8)
    values = maps.values.sum(1, keepdim=True).float()
    values = functional.interpolate(values, image.shape[1:], mode="trilinear")[0, 0]
    # of a CAM what is negative speaks for other classes; a gradient's sign is the contrast's
    values = values.clamp(min=0) if Ability.LAYER_GRADIENT in method.needs else values.abs()
    assert float(values[torch.from_numpy(inside)].mean() / values.mean()) > 3
    peak = np.unravel_index(int(values.argmax()), values.shape)
    away = np.linalg.norm(np.argwhere(inside) - np.array(peak), axis=1).min()
    assert away <= (8 if name in COARSE else 2)


COARSE = {"kernel_shap", "lime", "rise", "shapley_sampling", "feature_ablation"}
"""Maps of so few samples tell a part of the volume, not a cell."""
