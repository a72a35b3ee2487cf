"""The statistic, against a slow second implementation and bad input."""

import time
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from service.domain.grid import Grid
from workers.measures.bearing import bearings, squared, transforms
from workers.measures.cells import lattices

SHAPE = (64, 96)
WHOLE = Grid.identity(SHAPE)


def blob(row: float = 0.3, column: float = 0.7, shape: tuple[int, int] = SHAPE) -> NDArray:
    """Return a bump at shares of the edges, shape ``(1, rows, columns)``."""
    y = (np.arange(shape[0]) + 0.5) / shape[0] - row
    x = (np.arange(shape[1]) + 0.5) / shape[1] - column
    return np.exp(-(y[:, None] ** 2 + x[None] ** 2) / 0.02).astype(np.float32)[None]


def falls(values: NDArray) -> NDArray[np.float64]:
    """Return what hiding each cell does to a model that sums its image under `values`."""
    shape = values.shape[1:]
    weights = np.concatenate([each.weights(shape) for each in lattices(len(shape))])
    return np.array([(weight * values[0]).sum() for weight in weights])


def slow_p(values: NDArray, drops: NDArray) -> float:
    """Compute p again with loops: on a map of 32 x 32 points, cells by definition."""

    def weight(u: float, lower: float, upper: float) -> float:
        soft = 0.25 / 4
        rise = min(max((u - lower) / soft + 0.5, 0), 1)
        return rise * min(max((upper - u) / soft + 0.5, 0), 1)

    def spans(count: int, first: float) -> list[tuple[float, float]]:
        found = [(first + k / 4, first + (k + 1) / 4) for k in range(count)]
        return [(-9 if lower == 0 else lower, 9 if upper == 1 else upper) for lower, upper in found]

    def statistic(square: NDArray) -> float:
        total, at = 0.0, 0
        for edges in (spans(4, 0), spans(3, 1 / 8)):
            masses = []
            for top, bottom in edges:
                for left, right in edges:
                    rows = [weight((i + 0.5) / 32, top, bottom) for i in range(32)]
                    columns = [weight((i + 0.5) / 32, left, right) for i in range(32)]
                    masses.append(float(np.array(rows) @ square @ np.array(columns)))
            r = np.corrcoef(masses, drops[at : at + len(masses)])[0, 1]
            total += np.sqrt(len(masses) - 3) * np.arctanh(np.clip(r, -1 + 1e-6, 1 - 1e-6))
            at += len(masses)
        return total

    square = values[0].astype(float)
    own, at_least = statistic(square), 0
    turned = [np.rot90(each, turns) for each in (square, square[:, ::-1]) for turns in range(4)]
    for each, down, across in product(turned, range(0, 32, 8), range(0, 32, 8)):
        at_least += statistic(np.roll(np.roll(each, down, 0), across, 1)) >= own - 1e-6
    return at_least / 128


@pytest.mark.parametrize("seed", range(4))
def test_p_equals_that_of_a_slow_second_implementation(seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(size=(1, 32, 32)).astype(np.float32)
    drops = falls(values) * random.uniform(0, 1, 25) + random.normal(size=25)
    said = bearings(values, Grid.identity((32, 32)), (32, 32), drops, 1.0)
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


def test_a_map_of_noise_is_supported_about_as_often_as_its_level_says() -> None:
    random = np.random.default_rng(0)
    drops = falls(blob())
    maps = random.normal(size=(200, 1, 8, 8)).astype(np.float32)
    said = [bearings(each, Grid.partition((8, 8), SHAPE), SHAPE, drops, 1.0) for each in maps]
    share = np.mean([each.p is not None and each.p <= 0.05 for each in said])
    assert share < 0.10


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
    square = squared(values, Grid.partition((7, 9), SHAPE), SHAPE)
    assert square.shape == (32, 32)
    np.testing.assert_allclose(square.sum(), values.sum())


def test_transforms_keep_every_value_and_the_map_stands_first() -> None:
    for shape, count in (((32, 32), 128), ((24, 24, 24), 216)):
        square = np.random.default_rng(0).normal(size=shape)
        made = transforms(square)
        assert len(made) == count
        np.testing.assert_array_equal(made[0], square)
        assert len({each.tobytes() for each in made}) == count
        assert all(np.array_equal(np.sort(each, None), np.sort(square, None)) for each in made)


def test_one_map_takes_less_than_ten_milliseconds() -> None:
    values, drops = blob(shape=(512, 512)), falls(blob())
    grid = Grid.identity((512, 512))
    spent = []
    for _ in range(7):
        began = time.perf_counter()
        bearings(values, grid, (512, 512), drops, 1.0)
        spent.append(time.perf_counter() - began)
    assert min(spent) < 0.010
