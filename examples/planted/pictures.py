"""The pictures: where each structure was planted is known to the pixel.

Every picture is drawn from its seed alone; lengths are in pixels and values in
what a plate stores.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

SIDE: Final = 128
MAXIMUM: Final = 4095
AIR, TISSUE, NOISE = 300.0, 900.0, 40.0
AGES: Final = (24.0, 204.0)
"""Least and greatest bone age, in months."""

GROWTH: Final = (4.0, 15.0)
"""Radius of the growth center at these ages; between them it grows evenly."""

LATER: Final = 36.0
"""Months by which a boy's bones are older than a girl's of the same growth center."""

WEIGHTS: Final = (10.0, 100.0)
"""Least and greatest weight, in kilograms; it tells nothing of the age."""

LIGHT: Final = (0.6, 1.2)
"""Factors by which plates are lighter or darker than others."""

RADII: Final = (4.0, 14.0)
"""Least and greatest radius of a tumor."""

HAZARDS: Final = (1 / 3000, 1 / 150)
"""Of its progression, per day, at these radii; between them the logarithm grows evenly."""

FOLLOWED: Final = (60.0, 1500.0)
"""Days for which patients are followed."""

DENSITIES: Final = (1100.0, 1500.0)
"""Least and greatest density of plain tissue."""

SHADING: Final = 300.0
"""Most by which plain tissue is denser at one edge than at the other."""

SHAPES: Final = ("cyst", "stone")
"""What a segmentation finds: dark disks, and bright squares."""

Mask = NDArray[np.bool_]
Box = tuple[int, int, int, int]
"""Top, left, bottom, right, the last two past the end."""


@dataclass(frozen=True, slots=True)
class Course:
    """What became of a patient after the picture."""

    hazard: float
    """Of progression, per day, the same on all days."""

    days: float
    """Until progression, or until the patient was no longer followed."""

    progressed: bool


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A drawn plate and what is in it."""

    stored: NDArray[np.uint16]
    """12 bits, denser is more, shape ``(SIDE, SIDE)``."""

    masks: Mapping[str, Mask]
    """Where each structure lies, shape ``(SIDE, SIDE)``; empty masks are left out."""

    age: float | None = None
    """Bone age in months."""

    boxes: tuple[tuple[str, Box], ...] = ()
    """Each shape by itself, and the box about it."""

    values: Mapping[str, float | str] = field(default_factory=dict)
    """What a model is given beside it."""

    course: Course | None = None


def hand(seed: int, age: float | None = None) -> Picture:
    """Draw three shafts, and above one of them the growth center: its size alone tells the age."""
    random = np.random.default_rng(seed)
    drawn = random.uniform(*AGES)
    age = float(drawn) if age is None else age
    rows, columns = _indices()
    values = _tissue(random)
    places = random.permutation([28, 64, 100]) + random.integers(-4, 5, 3)
    for place in places:
        width, top = random.integers(4, 10), random.integers(72, 84)
        values[(np.abs(columns - place) <= width) & (rows >= top)] += 900
    row = random.integers(38, 54)
    radius = np.interp(age, AGES, GROWTH)
    center = (rows - row) ** 2 + (columns - places[0]) ** 2 <= radius**2
    values[center] += 1100
    return Picture(_stored(values, random), {"growth_center": center}, age)


def hand_of(seed: int, sex: str | None = None, weight: float | None = None) -> Picture:
    """Draw a hand of a girl or a boy: growth center and sex tell the age, the weight does not."""
    random = np.random.default_rng([seed, 3])
    drawn, heavy = str(random.choice(["F", "M"])), round(float(random.uniform(*WEIGHTS)), 1)
    values: dict[str, float | str] = {
        "sex": drawn if sex is None else sex,
        "weight": heavy if weight is None else weight,
    }
    picture = hand(seed)
    assert picture.age is not None  # noqa: S101 - a hand has one
    return replace(picture, age=picture.age + LATER * (values["sex"] == "M"), values=values)


def shapes(seed: int, counts: Mapping[str, int] | None = None) -> Picture:
    """Draw tissue with up to two of each of `SHAPES` in it, apart from each other."""
    random = np.random.default_rng(seed)
    odds = {shape: int(random.integers(0, 3)) for shape in SHAPES}
    values, taken = _tissue(random), np.zeros((SIDE, SIDE), np.bool_)
    masks = {shape: np.zeros((SIDE, SIDE), np.bool_) for shape in SHAPES}
    boxes: list[tuple[str, Box]] = []
    for shape, count in (odds if counts is None else counts).items():
        for _ in range(count):
            mask = _placed(shape, random, taken)
            taken |= mask
            masks[shape] |= mask
            boxes.append((shape, _about(mask)))
    values[masks["cyst"]] -= 500
    values[masks["stone"]] += 1100
    there = {shape: mask for shape, mask in masks.items() if mask.any()}
    return Picture(_stored(values, random), there, boxes=tuple(boxes))


def tumor(seed: int, radius: float | None = None) -> Picture:
    """Draw a bright tumor among dark cysts of any size: its own size alone tells the hazard."""
    random = np.random.default_rng([seed, 5])
    drawn = float(random.uniform(*RADII))
    radius = drawn if radius is None else radius
    values, taken = _tissue(random), np.zeros((SIDE, SIDE), np.bool_)
    rows, columns = _indices()
    row, column = random.integers(36, 92, 2)
    mask = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    taken |= mask
    for _ in range(random.integers(0, 3)):
        cyst = _placed("cyst", random, taken)
        taken |= cyst
        values[cyst] -= 500
    values[mask] += 900
    return Picture(_stored(values, random), {"tumor": mask}, course=_course(radius, random))


def _course(radius: float, random: np.random.Generator) -> Course:
    """Draw what becomes of a patient: the event, or the end of the time followed, what is first."""
    hazard = float(np.exp(np.interp(radius, RADII, np.log(HAZARDS))))
    event, followed = random.exponential(1 / hazard), random.uniform(*FOLLOWED)
    return Course(hazard, float(min(event, followed)), bool(event <= followed))


def plain(seed: int, radius: float | None = None) -> Picture:
    """Draw tissue in an even light, and with a radius one anomaly in it: a darker or brighter disk.

    The tissue is that of the same seed without the anomaly.
    """
    random = np.random.default_rng([seed, 7])
    rows, columns = _indices()
    slopes = random.uniform(-SHADING, SHADING, 2) / SIDE
    values = random.uniform(*DENSITIES) + slopes[0] * (rows - 64) + slopes[1] * (columns - 64)
    row, column, sign = *random.integers(24, 104, 2), random.choice([-1, 1])
    stored = _stored(values, random)
    if radius is None:
        return Picture(stored, {})
    mask = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    strange = np.where(mask, stored + 500.0 * sign, stored)
    return Picture(strange.astype(np.uint16), {"anomaly": mask})


def _about(mask: Mask) -> Box:
    """Return the box about a mask."""
    (top, left), (bottom, right) = np.argwhere(mask).min(0), np.argwhere(mask).max(0) + 1
    return int(top), int(left), int(bottom), int(right)


def lit(seed: int, counts: Mapping[str, int] | None = None) -> Picture:
    """Draw the same in a light of its own, so that no mean of the picture tells of a shape."""
    picture = shapes(seed, counts)
    gain = np.random.default_rng(seed + 77).uniform(*LIGHT)
    stored = np.clip(np.rint(picture.stored * gain), 0, MAXIMUM).astype(np.uint16)
    return replace(picture, stored=stored)


def _placed(shape: str, random: np.random.Generator, taken: Mask) -> Mask:
    """Place a shape where nothing lies yet."""
    rows, columns = _indices()
    while True:
        size = random.integers(7, 15) if shape == "cyst" else random.integers(5, 10)
        row, column = random.integers(34, 94, 2)
        down, right = np.abs(rows - row), np.abs(columns - column)
        round_ = down**2 + right**2 <= size**2
        mask: Mask = round_ if shape == "cyst" else np.maximum(down, right) <= size
        if not (mask & taken).any():
            return mask


def _indices() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows, columns = np.indices((SIDE, SIDE))
    return rows, columns


def _tissue(random: np.random.Generator) -> NDArray[np.float64]:
    """Return an ellipse of soft tissue in air."""
    rows, columns = _indices()
    middle = (SIDE - 1) / 2 + random.uniform(-3, 3, 2)
    inside = ((rows - middle[0]) / 60) ** 2 + ((columns - middle[1]) / 58) ** 2 <= 1
    return np.where(inside, AIR + TISSUE, AIR)


def _stored(values: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.uint16]:
    noisy = values + random.normal(0, NOISE, values.shape)
    return np.clip(np.rint(noisy), 0, MAXIMUM).astype(np.uint16)
