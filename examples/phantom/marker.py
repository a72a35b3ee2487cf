"""A second lead marker, in a corner of the plate: the object that a model may take for a disease.

Technicians lay such letters on the detector. This one is an R in the corner on
the patient's right, far from the lungs; it says nothing of the patient.
"""

import numpy as np

from examples.phantom.canvas import Array, Canvas, Plate, Pose, soft

CENTER = (2.7, 2.7)
"""Middle of the letter, down and right from the plate's corner, in cm."""

JITTER = 0.35
"""How far the letter may lie from its place, along each axis, in cm."""

HALF_SIZE = (1.2, 0.9)
"""Half the letter's height and width in cm."""

LEAD = 1.6
"""Density: whiter than any bone."""

_STROKE = 0.28
"""Half the width of a bar in cm."""


def corner_marker(plate: Plate, size: tuple[int, int], seed: int) -> Array:
    """Return the density of a letter R, 0 beside it.

    Parameters
    ----------
    plate
        Where it is laid; its place does not depend on how the patient stands.
    size
        Rows and columns.
    seed
        The case's: decides the jitter.
    """
    down, right = np.random.default_rng([seed, 3]).uniform(-JITTER, JITTER, 2)
    canvas = Canvas.of(plate, Pose((0.0, 0.0), 0.0, 1.0), size)
    y = canvas.y + np.float32(plate.height / 2 - CENTER[0] - down)
    x = canvas.x + np.float32(plate.width / 2 - CENTER[1] - right)
    letter: Array = LEAD * np.maximum.reduce([_bar(y, x, each) for each in _strokes()])
    return letter


Bar = tuple[float, float, float, float]
"""Top, left, bottom and right, in cm from the letter's middle."""


def _strokes() -> tuple[Bar, ...]:
    high, wide = HALF_SIZE
    return (
        (-high, -wide, high, -wide + 2 * _STROKE),
        (-high, -wide, -high + 2 * _STROKE, wide),
        (-_STROKE, -wide, _STROKE, wide),
        (-high, wide - 2 * _STROKE, 0.0, wide),
        (0.0, 0.0, high, 2 * _STROKE),
    )


def _bar(y: Array, x: Array, bar: Bar) -> Array:
    top, left, bottom, right = bar
    within_rows = soft(np.minimum(y - top, bottom - y), 0.1)
    within: Array = within_rows * soft(np.minimum(x - left, right - x), 0.1)
    return within
