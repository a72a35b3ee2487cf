"""A normal chest, seen from the front: each structure adds or removes density.

Density is what a ray meets on its way: 0 is air, about 1 the middle of the
body. The shapes are drawn by eye; only their variety matters, not their
resemblance to any person.
"""

from dataclasses import dataclass

import numpy as np

from examples.phantom.canvas import Array, Canvas, ellipse, soft, texture

RIGHT, LEFT = -1.0, 1.0
"""Sides of the patient as the sign of `Canvas.x`: the right lung is on the image's left."""


@dataclass(frozen=True, slots=True)
class Build:
    """The measures of one patient's chest, in cm where not said otherwise."""

    torso: float
    lung_half_width: float
    lung_half_height: float
    diaphragm: tuple[float, float]
    """Top of the right and the left dome, `y`."""
    dome: float
    heart: tuple[float, float]
    """Half axes of a heart of normal size."""
    heart_center: tuple[float, float]
    mediastinum: float
    rib_spacing: float
    rib_phase: float
    """Fraction of `rib_spacing`."""
    rib_contrast: float
    """Density."""
    vessels: float
    """Density of the widest vessel."""

    @classmethod
    def draw(cls, random: np.random.Generator) -> "Build":
        """Draw a patient."""
        uniform = random.uniform
        dome = uniform(7.6, 9.0)
        return cls(
            torso=uniform(15.2, 16.8),
            lung_half_width=uniform(5.0, 5.7),
            lung_half_height=uniform(13.0, 14.4),
            diaphragm=(dome, dome + uniform(0.3, 1.2)),
            dome=uniform(2.6, 3.6),
            heart=(uniform(5.2, 5.9), uniform(4.9, 5.5)),
            heart_center=(uniform(1.4, 2.0), uniform(4.6, 5.4)),
            mediastinum=uniform(2.2, 2.8),
            rib_spacing=uniform(2.5, 2.9),
            rib_phase=uniform(0.0, 1.0),
            rib_contrast=uniform(0.07, 0.11),
            vessels=uniform(0.10, 0.16),
        )


@dataclass(frozen=True, slots=True)
class Chest:
    """A normal chest on a canvas; all arrays of shape ``(rows, columns)``."""

    canvas: Canvas
    build: Build
    lungs: tuple[Array, Array]
    """Share of lung in each pixel, right and left, in [0, 1]."""
    vessels: Array
    """Density of the lung vessels, already part of `density`."""
    grain: Array
    """Smooth noise of about unit variance that findings borrow for their texture."""
    density: Array

    @classmethod
    def draw(cls, canvas: Canvas, build: Build, random: np.random.Generator) -> "Chest":
        """Draw `build` on `canvas`; `random` supplies the fine structure."""
        coarse = texture(random, 14, canvas.size)
        grain = texture(random, 52, canvas.size)
        lungs = lung(canvas, build, RIGHT), lung(canvas, build, LEFT)
        inside = lungs[0] + lungs[1]
        vessels = inside * _vessels(canvas, build, coarse)
        density = _torso(canvas, build) - 0.52 * inside + vessels
        density += _midline(canvas, build) + _bones(canvas, build)
        density += _abdomen(canvas, build) * (1 - inside)
        density += heart(canvas, build, 1.0)
        density += (0.02 * coarse + 0.018 * grain) * soft(density - 0.1, 0.2)
        density += _side_marker(canvas)
        return cls(canvas, build, lungs, vessels, grain, np.maximum(density, 0))


def lung_axis(build: Build, y: Array) -> Array:
    """Return the distance of a lung's middle from the midline: apices lean inward."""
    axis: Array = 6.9 + 0.02 * build.lung_half_height * np.clip(y / 3, -4, 4)
    return axis


def lung(
    canvas: Canvas, build: Build, side: float, *, drop: float = 0.0, recess: float = 0.0
) -> Array:
    """Return the share of one lung, or of its side of the chest, in each pixel.

    Parameters
    ----------
    side
        `RIGHT` or `LEFT`.
    drop
        How far the lung has fallen from its apex and its outer wall, in cm:
        0 is a lung that fills its side.
    recess
        How far below the dome to go, in cm: the space behind the diaphragm.
    """
    y = canvas.y - drop
    across = (side * canvas.x - lung_axis(build, y) + 0.55 * drop) / build.lung_half_width
    along = y / build.lung_half_height
    rim = (np.abs(across) ** 2.4 + np.abs(along) ** 2.4) ** (1 / 2.4)
    wall = (1 - rim) * build.lung_half_width
    floor = diaphragm(canvas, build, side) + recess - canvas.y
    return soft(np.minimum(wall, floor), 0.45)


def diaphragm(canvas: Canvas, build: Build, side: float) -> Array:
    """Return the height `y` of a side's diaphragm over each column's `x`."""
    top = build.diaphragm[0] if side == RIGHT else build.diaphragm[1]
    curve: Array = top + build.dome * np.square((side * canvas.x - 6.0) / 5.6)
    return curve


def heart(canvas: Canvas, build: Build, size: float) -> Array:
    """Return the density of a heart of `size` times the normal half axes.

    A larger heart is thicker too, so it adds density everywhere within its rim.
    """
    axes = build.heart[0] * size, build.heart[1] * size
    tilted = canvas.y - 0.25 * (canvas.x - build.heart_center[0])
    radius = ellipse(canvas.x, tilted, build.heart_center, axes)
    density: Array = 0.36 * size * np.clip(1 - radius, 0, 1) ** 0.4
    return density


def _torso(canvas: Canvas, build: Build) -> Array:
    width = _outline(canvas, build)
    within = soft(width - np.abs(canvas.x), 0.5)
    thickness: Array = 0.42 + 0.36 * np.clip(1 - np.square(canvas.x / width), 0, 1)
    return within * thickness


def _outline(canvas: Canvas, build: Build) -> Array:
    """Return the half width of the body at each height: neck, shoulders, waist."""
    shoulders = 0.42 + 0.58 * soft(canvas.y + 13.5, 7.0)
    width: Array = build.torso * shoulders - 0.8 * soft(canvas.y - 4.0, 16.0)
    return width


def _midline(canvas: Canvas, build: Build) -> Array:
    x, y = canvas.x, canvas.y
    band = soft(build.mediastinum - np.abs(x - 0.3), 1.0) * (0.8 + 0.2 * soft(y + 4, 8.0))
    spine = soft(1.7 - np.abs(x), 0.5) * (0.8 + 0.2 * np.cos(y * np.float32(2 * np.pi / 2.6)))
    knob = np.clip(1 - ellipse(x, y, (build.mediastinum + 0.3, -5.6), (1.7, 1.9)), 0, 1)
    trachea = soft(0.9 - np.abs(x + 0.2), 0.5) * soft(-3.0 - y, 3.0)
    midline: Array = 0.3 * band + 0.1 * spine + 0.22 * np.sqrt(knob) - 0.16 * trachea
    return midline * soft(y + 19, 8.0)


def _bones(canvas: Canvas, build: Build) -> Array:
    x, y = np.abs(canvas.x), canvas.y
    cage = soft(13.2 - x, 1.0) * soft(x - 1.4, 1.0) * soft(y + 14.0, 2.5) * soft(11.5 - y, 3.0)
    posterior = (y + 1.5 - 4.5 * np.square(x / 12) - 0.02 * canvas.x) / build.rib_spacing
    anterior = (y + 0.42 * (12 - x) - 2.0) / (1.15 * build.rib_spacing)
    ribs = _rib(posterior + build.rib_phase) + 0.55 * _rib(anterior) * soft(x - 6.0, 5.0)
    slope = y + 11.2 - 0.22 * x + 0.6 * np.sin(x / 3)
    collar = soft(0.62 - np.abs(slope), 0.4) * soft(14.0 - x, 1.0) * soft(x - 2.2, 0.8)
    blade = soft(1.2 - np.abs(x - 12.6 - 0.18 * (y + 5)), 1.4) * soft(-1.0 - y, 5.0)
    bones = cage * ribs + 1.4 * collar + 0.8 * blade * soft(y + 14, 4)
    density: Array = build.rib_contrast * bones * soft(_outline(canvas, build) - x - 0.6, 1.0)
    return density


def _rib(phase: Array) -> Array:
    """Return a periodic band with denser edges, as a rib's cortex shows."""
    off = np.abs(phase - np.floor(phase) - np.float32(0.5))
    band = soft(np.float32(0.21) - off, 0.09)
    cortex: Array = band * (0.65 + 0.55 * np.square(off / 0.21))
    return cortex


def _abdomen(canvas: Canvas, build: Build) -> Array:
    top = np.where(
        canvas.x < 0, diaphragm(canvas, build, RIGHT), diaphragm(canvas, build, LEFT)
    ).astype(np.float32)
    within = soft(build.torso - 0.8 - np.abs(canvas.x), 1.2)
    bubble = np.clip(1 - ellipse(canvas.x, canvas.y, (6.2, 12.6), (2.4, 1.5)), 0, 1)
    density: Array = (0.24 * soft(canvas.y - top, 0.6) - 0.22 * np.sqrt(bubble)) * within
    return density


def _side_marker(canvas: Canvas) -> Array:
    """Return a lead letter L above the left shoulder."""
    x, y = canvas.x - 12.6, canvas.y + 15.4
    stem = soft(0.2 - np.abs(x), 0.1) * soft(0.9 - np.abs(y), 0.1)
    foot = soft(0.5 - np.abs(x - 0.4), 0.1) * soft(0.2 - np.abs(y - 0.75), 0.1)
    letter: Array = 1.4 * np.maximum(stem, foot)
    return letter


_BRANCHES = ((9, 0.42, 0.0, 8.0), (17, 0.28, 2.5, 10.5), (31, 0.2, 5.0, 12.5))
"""Vessels around a hilum: how many, how wide, and from where to where (cm)."""


def _vessels(canvas: Canvas, build: Build, warp: Array) -> Array:
    """Return vessels that leave each hilum like spokes and thin out."""
    x, y = np.abs(canvas.x) - 2.6, canvas.y + 0.4
    radius = np.hypot(x, y) + np.float32(0.4)
    angle = np.arctan2(y, x) + 0.30 * warp * np.sign(canvas.x) + 0.2 * np.sign(canvas.x)
    tree = np.zeros_like(radius)
    for spokes, width, start, end in _BRANCHES:
        turn = angle * np.float32(spokes / (2 * np.pi))
        off = np.abs(turn - np.floor(turn) - np.float32(0.5)) * (2 * np.pi / spokes) * radius
        reach = soft(radius - start, 2.0) * np.clip((end - radius) / end, 0, 1)
        tree += width * np.clip(1 - np.square(off / width), 0, 1) * reach / 0.42
    hilum = np.exp(-np.square(radius / 2.2))
    total: Array = build.vessels * (1.3 * tree + 0.9 * hilum)
    return total
