"""Four views of two breasts: in which of them a mass was planted, and where, is known to the pixel.

Every study is drawn from its seed alone; lengths are in pixels and values in what a detector
stores.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

VIEWS: Final = ("l_cc", "l_mlo", "r_cc", "r_mlo")
"""In the order in which the model takes them."""

SHAPES: Final = MappingProxyType({"cc": (128, 64), "mlo": (128, 128)})
"""Rows and columns of an image, by its projection."""

SIDES: Final = ("left", "right")
"""Breasts, which are the model's classes: a mass is in one, in both or in none."""

MAXIMUM: Final = 4095
AIR, TISSUE, MASS, NOISE = 100.0, 1100.0, 1000.0, 40.0
RADII: Final = (5, 9)
"""Least and greatest radius of a mass."""

LIGHT: Final = (0.7, 1.2)
"""Factors by which images are lighter or darker than others."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """A drawn study."""

    stored: Mapping[str, NDArray[np.uint16]]
    """By view, 12 bits, denser is more."""

    masks: Mapping[str, Mask]
    """Where the mass lies, by view; empty in views without one."""

    def present(self, side: str) -> bool:
        """Tell whether a breast has a mass that some view shows."""
        return any(self.masks[view].any() for view in VIEWS if view[0] == side[0])


def draw(seed: int, bearing: Collection[str] | None = None) -> Drawing:
    """Draw a study.

    Parameters
    ----------
    bearing
        Views that show a mass; by default each breast has one in a random one of its views, in
        both or in none.
    """
    random = np.random.default_rng([seed, 4])
    odds = {side: int(random.integers(0, 5)) for side in SIDES}
    drawn = [
        view
        for view in VIEWS
        for side in SIDES
        if view[0] == side[0] and odds[side] in ((1, 3) if "cc" in view else (2, 3))
    ]
    shown = drawn if bearing is None else bearing
    images = {view: _image(view, random, mass=view in shown) for view in VIEWS}
    return Drawing(
        {view: stored for view, (stored, _) in images.items()},
        {view: mask for view, (_, mask) in images.items()},
    )


def _image(
    view: str, random: np.random.Generator, *, mass: bool
) -> tuple[NDArray[np.uint16], Mask]:
    """Draw one view: half an ellipse of tissue at the chest's side, with a mass or without."""
    side, projection = view.split("_")
    shape = SHAPES[projection]
    rows, columns = np.indices(shape)
    height, width = random.uniform(50, 58), random.uniform(0.7, 0.9) * shape[1]
    inside = ((rows - 64) / height) ** 2 + (columns / width) ** 2 <= 1
    values = np.where(inside, AIR + TISSUE, AIR) + np.where(inside & (rows > 64), 60.0, 0.0)
    radius = int(random.integers(RADII[0], RADII[1] + 1))
    row = random.integers(40, 88)
    column = random.integers(10, int(0.6 * width))
    mask = np.asarray(((rows - row) ** 2 + (columns - column) ** 2 <= radius**2) & inside & mass)
    values[mask] += MASS
    noisy = random.uniform(*LIGHT) * values + random.normal(0, NOISE, shape)
    stored = np.clip(np.rint(noisy), 0, MAXIMUM).astype(np.uint16)
    if side == "r":
        stored, mask = stored[:, ::-1], mask[:, ::-1]
    return np.ascontiguousarray(stored), np.ascontiguousarray(mask)
