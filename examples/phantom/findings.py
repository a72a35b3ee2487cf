"""Five findings, each with its exact mask: where it changes the image, and nowhere else."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from examples.phantom.anatomy import LEFT, RIGHT, Chest, diaphragm, heart, lung, lung_axis
from examples.phantom.canvas import Array, Mask, ellipse, soft

EDGE = 0.08
"""A finding's profile is cut off below this share of its height, so its mask is sharp."""


@dataclass(frozen=True, slots=True)
class Lesion:
    """What a finding does to the image.

    `change` is the density that it adds, 0 outside `mask`; both have the
    shape of the canvas.
    """

    change: Array
    mask: Mask


Draw = Callable[[Chest, np.random.Generator], Lesion]


def nodule(chest: Chest, random: np.random.Generator) -> Lesion:
    """Draw a round nodule of 2.2 to 3.6 cm somewhere in a lung, clear of the heart."""
    side, build = _side(random), chest.build
    radius = random.uniform(1.1, 1.8)
    y = random.uniform(-0.62, 0.4) * build.lung_half_height
    across = random.uniform(-0.35, 0.5) if side == RIGHT or y < 0 else random.uniform(0.2, 0.5)
    x = side * (_middle(chest, y) + across * build.lung_half_width)
    canvas = chest.canvas
    rim = ellipse(canvas.x, canvas.y, (x, y), (radius, radius))
    profile: Array = np.sqrt(np.clip(1 - rim, 0, 1))
    return _lesion(profile, random.uniform(0.26, 0.36) * profile)


def consolidation(chest: Chest, random: np.random.Generator) -> Lesion:
    """Draw a patch of filled air spaces with a ragged edge, bounded by the lung."""
    side, build, canvas = _side(random), chest.build, chest.canvas
    y = random.uniform(-0.5, 0.42) * build.lung_half_height
    across = random.uniform(-0.2, 0.35) * build.lung_half_width
    x = side * (_middle(chest, y) + across)
    axes = random.uniform(2.4, 3.6), random.uniform(2.6, 4.4)
    rim = ellipse(canvas.x, canvas.y, (x, y), axes) + 0.28 * chest.grain
    profile = soft(1 - rim, 0.9) * _lung(chest, side)
    return _lesion(profile, random.uniform(0.22, 0.32) * profile * (1 + 0.12 * chest.grain))


def effusion(chest: Chest, random: np.random.Generator) -> Lesion:
    """Draw fluid that hides a diaphragm, its surface rising toward the outer wall.

    It fills the costophrenic angle and the recess behind the dome.
    """
    side, canvas, build = _side(random), chest.canvas, chest.build
    outward = np.clip((side * canvas.x - 4.5) / 7.5, 0, 1)
    top = float(diaphragm(canvas, build, side).min())
    level = top - random.uniform(0.0, 3.4)
    profile = soft(canvas.y - level + random.uniform(3.0, 4.5) * outward**2, 1.6)
    profile = profile * lung(canvas, build, side, recess=2.0)
    profile = profile * soft(diaphragm(canvas, build, side) - canvas.y, 4.0)
    return _lesion(profile, random.uniform(0.38, 0.5) * profile)


def cardiomegaly(chest: Chest, random: np.random.Generator) -> Lesion:
    """Enlarge the heart by a third to a half; the mask is the whole larger heart."""
    large = heart(chest.canvas, chest.build, random.uniform(1.34, 1.52))
    change = large - heart(chest.canvas, chest.build, 1.0)
    return _lesion(large / large.max(), change)


def pneumothorax(chest: Chest, random: np.random.Generator) -> Lesion:
    """Let a lung fall from its apex: no vessels in the gap, and a pleural line along it."""
    side, canvas = _side(random), chest.canvas
    drop = random.uniform(2.6, 4.2)
    fallen = lung(canvas, chest.build, side, drop=drop)
    gap = _lung(chest, side) * (1 - fallen) * soft(-1.5 - canvas.y, 5.0)
    line = 4 * gap * fallen * (1 - fallen)
    change = 0.24 * line - gap * (random.uniform(0.13, 0.19) + chest.vessels)
    return _lesion(gap, change)


FINDINGS: Mapping[str, Draw] = MappingProxyType(
    {
        "nodule": nodule,
        "consolidation": consolidation,
        "effusion": effusion,
        "cardiomegaly": cardiomegaly,
        "pneumothorax": pneumothorax,
    }
)
"""The findings in the order of the model's outputs."""


def _middle(chest: Chest, y: float) -> float:
    """Return how far from the midline a lung's middle lies at one height."""
    return float(lung_axis(chest.build, np.full(1, y, np.float32))[0])


def _side(random: np.random.Generator) -> float:
    return LEFT if random.random() < 0.5 else RIGHT


def _lung(chest: Chest, side: float) -> Array:
    return chest.lungs[0] if side == RIGHT else chest.lungs[1]


def _lesion(profile: Array, change: Array) -> Lesion:
    mask = profile > EDGE
    return Lesion(np.where(mask, change, 0).astype(np.float32), mask)
