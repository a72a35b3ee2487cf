"""The statistic, against a slow second implementation and bad input."""

import time
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from service.domain.grid import Grid
from tests.support.cells import weights
from workers.measures.bearing import agreements, all_bearings, bearings, brought
from workers.measures.frame import SHIFTS, SIDE, masses

SHAPE = (64, 96)
WHOLE = Grid.identity(SHAPE)
PROBES = {2: 25, 3: 27}


def blob(row: float = 0.3, column: float = 0.7, shape: tuple[int, int] = SHAPE) -> NDArray:
    """Return a bump at shares of the edges, shape ``(1, rows, columns)``."""
    y = (np.arange(shape[0]) + 0.5) / shape[0] - row
    x = (np.arange(shape[1]) + 0.5) / shape[1] - column
    return np.exp(-(y[:, None] ** 2 + x[None] ** 2) / 0.02).astype(np.float32)[None]


def falls(values: NDArray) -> NDArray[np.float64]:
    """Return what hiding each cell does to a model that sums its image under `values`."""
    shape = values.shape[1:]
    return np.array([(weight * values[0]).sum() for weight in weights(shape)])


def slow_p(values: NDArray, drops: NDArray) -> float:
    """Compute p again with loops: on a map of 24 x 24 points, cells by definition."""
    falls = [max(drop, 0.0) for drop in drops]

    def profile(count: int, k: int) -> NDArray:
        """Return one cell's weight at 24 points: a box, its inner walls a quarter cell wide."""
        u = [(i + 0.5) / 24 * count - k for i in range(24)]
        rise = [1.0 if k == 0 else min(max(each / 0.25 + 0.5, 0), 1) for each in u]
        fall = [1.0 if k == count - 1 else min(max((1 - each) / 0.25 + 0.5, 0), 1) for each in u]
        return np.array(rise) * np.array(fall)

    def statistic(square: NDArray) -> float:
        total, at = 0.0, 0
        for count in (3, 4):
            cells = [profile(count, k) for k in range(count)]
            masses = [float(rows @ square @ columns) for rows, columns in product(cells, cells)]
            r = np.corrcoef(masses, falls[at : at + len(masses)])[0, 1]
            total += np.sqrt(len(masses) - 3) * np.arctanh(np.clip(r, -1 + 1e-6, 1 - 1e-6))
            at += len(masses)
        return total

    square = values[0].astype(float).reshape(24, 2, 24, 2).sum((1, 3))
    own, at_least = statistic(square), 0
    turned = [np.rot90(each, turns) for each in (square, square[:, ::-1]) for turns in range(4)]
    for each, down, across in product(turned, range(0, 24, 6), range(0, 24, 6)):
        at_least += statistic(np.roll(np.roll(each, down, 0), across, 1)) >= own - 1e-6
    return at_least / 128


@pytest.mark.parametrize("seed", range(4))
def test_p_equals_that_of_a_slow_second_implementation(seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(size=(1, 48, 48)).astype(np.float32)
    drops = falls(values) * random.uniform(0, 1, 25) + random.normal(size=25)
    said = bearings(values, Grid.identity((48, 48)), (48, 48), drops, 1.0)
    assert said.outcome == "measured"
    assert said.p == slow_p(values, drops)
    assert said.transforms == 127


def test_a_map_of_what_the_model_reads_is_supported_on_any_grid() -> None:
    fine = blob()
    drops = falls(fine)
    coarse = fine.reshape(1, 8, 8, 8, 12).sum((2, 4))
    for values, grid in ((fine, WHOLE), (coarse, Grid.partition((8, 8), SHAPE))):
        said = bearings(values, grid, SHAPE, drops, 1.0)
        assert said.p is not None
        assert said.p <= 0.05
        assert said.r is not None
        assert said.r > 0.9


WRONG: dict[str, Callable[[NDArray], NDArray]] = {
    "negated": lambda values: -values,
    "mirrored": lambda values: values[:, :, ::-1],
    "elsewhere": lambda _: blob(0.8, 0.2),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_wrong_map_is_not_supported(wrong: Callable[[NDArray], NDArray]) -> None:
    said = bearings(np.ascontiguousarray(wrong(blob())), WHOLE, SHAPE, falls(blob()), 1.0)
    assert said.p is not None
    assert said.p > 0.2


@pytest.mark.parametrize("levels", [2, 1000])
@pytest.mark.parametrize("grid", [(4, 4), (8, 8), (7, 5), (24, 24), (8, 8, 8)])
def test_a_map_of_noise_is_supported_as_often_as_its_level_says(
    grid: tuple[int, ...], levels: int
) -> None:
    random = np.random.default_rng(0)
    shape = (48,) * len(grid)
    drops = falls(ball(shape))
    drops = np.round(levels * (drops / drops.max() + 0.2 * random.random(PROBES[len(grid)])))
    maps = random.normal(size=(600, 1, *grid)).astype(np.float32)
    said = [bearings(each, Grid.partition(grid, shape), shape, drops, 1.0) for each in maps]
    share = np.mean([each.p is not None and each.p <= 0.05 for each in said])
    assert 0.02 < share < 0.08  # 0.05 with three standard errors


def ball(shape: tuple[int, ...]) -> NDArray:
    """Return a bump off the center of an image of any number of axes, shape ``(1, *shape)``."""
    distance = sum(((np.indices(shape)[axis] + 0.5) / n - 0.3) ** 2 for axis, n in enumerate(shape))
    return np.exp(-distance / 0.03).astype(np.float32)[None]


def test_a_map_of_what_the_model_reads_is_supported_in_a_volume() -> None:
    values = ball((36, 40, 48))
    said = bearings(values, Grid.identity((36, 40, 48)), (36, 40, 48), falls(values), 1.0)
    assert (said.outcome, said.transforms) == ("measured", 215)
    assert said.p is not None
    assert said.p <= 0.05


def test_only_falls_count() -> None:
    drops = falls(blob()) - 1.0
    same = bearings(blob(), WHOLE, SHAPE, np.where(drops < 0, -100.0, drops), 1.0)
    assert same.r == bearings(blob(), WHOLE, SHAPE, drops, 1.0).r


def spoiled(values: NDArray, place: float) -> NDArray:
    values = values.copy()
    values[0, 5, 5] = place
    return values


BAD = {
    "blank": (np.zeros((1, *SHAPE), np.float32), falls(blob()), SHAPE, "constant_map"),
    "constant": (np.full((1, *SHAPE), 2.5, np.float32), falls(blob()), SHAPE, "constant_map"),
    "nan": (spoiled(blob(), np.nan), falls(blob()), SHAPE, "non_finite"),
    "infinite": (spoiled(blob(), np.inf), falls(blob()), SHAPE, "non_finite"),
    "nan score": (blob(), np.full(25, np.nan), SHAPE, "no_bank"),
    "constant score": (blob(), np.zeros(25), SHAPE, "uninformative"),
    "rounding": (blob(), 1e-7 * falls(blob()) / falls(blob()).max(), SHAPE, "uninformative"),
    "rises alone": (blob(), -falls(blob()) - 1.0, SHAPE, "uninformative"),
    "all alike": (blob(), np.full(25, 3.0), SHAPE, "uninformative"),
    "small": (blob(shape=(31, 40)), falls(blob()), (31, 40), "too_small"),
}


@pytest.mark.parametrize(("values", "drops", "shape", "outcome"), BAD.values(), ids=BAD)
def test_bad_input_has_an_outcome_and_no_p(values, drops, shape, outcome) -> None:
    said = bearings(values, Grid.identity(shape), shape, drops, 1.0)
    assert (said.outcome, said.p) == (outcome, None)


def test_a_score_that_moves_in_steps_is_told() -> None:
    drops = falls(blob())
    stepped = np.round(3 * drops / drops.max())
    assert bearings(blob(), WHOLE, SHAPE, stepped, 1.0).few_levels
    assert not bearings(blob(), WHOLE, SHAPE, drops, 1.0).few_levels


def test_a_map_that_marks_padding_where_nothing_moves_the_score_is_not_supported() -> None:
    image = blob(0.5, 0.5)
    image[:, :, :32] = 0
    padding = np.zeros_like(image)
    padding[:, :, :24] = 1
    said = bearings(padding, WHOLE, SHAPE, falls(image), 1.0)
    assert said.p is not None
    assert said.p > 0.2


def test_bringing_a_map_to_the_square_keeps_its_mass() -> None:
    values = np.random.default_rng(1).normal(size=(7, 9))
    square = brought(values[None], Grid.partition((7, 9), SHAPE), SHAPE, 24)
    assert square.shape == (24, 24)
    np.testing.assert_allclose(square.sum(), values.sum())


@pytest.mark.parametrize(("axes", "count"), [(2, 128), (3, 216)])
def test_transforms_are_the_flips_turns_and_shifts_of_the_map(axes: int, count: int) -> None:
    side, shifts = SIDE, SHIFTS[axes]
    square = np.random.default_rng(0).normal(size=(side,) * axes)
    bases = [square, square.T] if axes == 2 else [square]
    expected = []
    for base, flips in product(bases, product((False, True), repeat=axes)):
        flipped = np.flip(base, [axis for axis, flip in enumerate(flips) if flip])
        for steps in product(range(shifts), repeat=axes):
            by = tuple(step * side // shifts for step in steps)
            expected.append(np.roll(flipped, by, tuple(range(axes))))
    cells = weights((side,) * axes).reshape(PROBES[axes], -1)
    plain = np.stack([cells @ each.ravel() for each in expected])
    beside = np.stack([np.zeros_like(square), square], axis=-1)
    made = masses(beside)[1].T
    assert made.shape == (count, PROBES[axes])
    np.testing.assert_allclose(made[0], plain[0])
    together = {tuple(np.round(row, 6)) for row in made}
    assert together == {tuple(np.round(row, 6)) for row in plain}


def test_maps_that_are_judged_together_are_judged_as_alone() -> None:
    shape = (48, 48)
    random = np.random.default_rng(0)
    maps = {
        "right": blob(shape=shape),
        "noise": random.normal(size=(1, *shape)),
        "blank": np.zeros((1, *shape)),
        "infinite": spoiled(blob(shape=shape), np.inf),
        "no number": spoiled(blob(shape=shape), np.nan),
        "half": np.where(np.arange(48) < 24, 1.0, 0.0) * np.ones((1, *shape)),
    }
    drops = falls(blob(shape=shape))
    scores = {"moved": drops, "unmoved": 0 * drops, "unknown": np.full(25, np.nan)}
    pairs = list(product(maps.values(), scores.values()))
    whole = Grid.identity(shape)
    together = all_bearings(
        [brought(values, whole, shape, SIDE) for values, _ in pairs],
        np.stack([fall for _, fall in pairs], axis=1),
        np.full(len(pairs), 2.5),
    )
    alone = [bearings(values, whole, shape, fall, 2.5) for values, fall in pairs]
    assert [each.outcome for each in together] == [each.outcome for each in alone]
    assert [each.p for each in together] == [each.p for each in alone]
    assert {each.outcome for each in together} == {
        "measured",
        "uninformative",
        "no_bank",
        "constant_map",
        "non_finite",
    }


def test_a_map_agrees_with_each_score_as_the_probe_bank_says_of_it() -> None:
    shape, whole = (48, 48), Grid.identity((48, 48))
    random = np.random.default_rng(0)
    maps = [blob(shape=shape), random.normal(size=(1, *shape)), np.zeros((1, *shape))]
    drops = np.stack([falls(blob(0.3, place, shape)) for place in (0.3, 0.7)] + [np.zeros(25)], 1)
    found = agreements([brought(each, whole, shape, SIDE) for each in maps], drops, np.ones(3))
    alone = [[bearings(each, whole, shape, fall, 1.0).r for fall in drops.T] for each in maps]
    np.testing.assert_allclose(found, np.array(alone, dtype=float))
    assert np.isnan(found[:, 2]).all()


def test_one_map_takes_less_than_ten_milliseconds() -> None:
    values, drops = blob(shape=(512, 512)), falls(blob())
    grid = Grid.identity((512, 512))
    spent = []
    for _ in range(30):
        began = time.thread_time()
        bearings(values, grid, (512, 512), drops, 1.0)
        spent.append(time.thread_time() - began)
    assert min(spent) < 0.010
