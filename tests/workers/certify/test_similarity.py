"""Ranks against a slow definition, intervals against what is known of them."""

import math

import numpy as np
import pytest

from workers.certify.similarity import ranked, summarized


def slow_spearman(a, b):
    """Average ranks by counting, then Pearson's formula, with plain loops."""

    def ranks(values):
        return [
            sum(other < value for other in values)
            + (1 + sum(other == value for other in values)) / 2
            for value in values
        ]

    x, y = ranks(a), ranks(b)
    mx, my = sum(x) / len(x), sum(y) / len(y)
    shared = sum((p - mx) * (q - my) for p, q in zip(x, y, strict=True))
    return shared / math.sqrt(sum((p - mx) ** 2 for p in x) * sum((q - my) ** 2 for q in y))


@pytest.mark.parametrize("levels", [3, 1000])
def test_the_product_of_ranks_is_spearmans_correlation_with_and_without_ties(levels):
    random = np.random.default_rng(levels)
    a, b = random.integers(-levels, levels, (2, 6, 5)).astype(float)
    expected = slow_spearman(a.ravel().tolist(), b.ravel().tolist())
    assert ranked(a) @ ranked(b) == pytest.approx(expected, abs=1e-12)


def test_ranks_ignore_any_rising_transform_and_mirror_with_the_sign():
    a = np.random.default_rng(1).normal(size=(8, 8))
    assert ranked(a) @ ranked(np.arctan(a)) == pytest.approx(1)
    assert ranked(a) @ ranked(-a) == pytest.approx(-1)


def test_rounding_does_not_rank():
    flat = np.repeat([1.0, 2.0], 32)
    noisy = flat * (1 + 1e-8 * np.random.default_rng(2).normal(size=64))
    np.testing.assert_array_equal(ranked(noisy), ranked(flat))


@pytest.mark.parametrize("value", [0.0, 3.5, -2.0])
def test_a_constant_map_is_like_no_other(value):
    assert not ranked(np.full((4, 4), value)).any()


def test_the_interval_of_equal_pairs_is_a_point():
    found = summarized(np.full((24, 4), 0.25))
    assert (found.value, found.low, found.high, found.pairs) == (0.25, 0.25, 0.25, 96)


@pytest.mark.parametrize("axis", [0, 1])
def test_the_interval_is_as_wide_as_independent_cases_or_seeds_make_it(axis):
    # only cases differ, or only seeds: the mean of n values has spread s / sqrt(n)
    values = np.random.default_rng(5).normal(0.1, 0.2, 40)
    pairs = np.repeat(np.expand_dims(values, 1 - axis), 6, axis=1 - axis)
    found = summarized(pairs)
    half = 1.96 * values.std() / math.sqrt(40)
    assert found.value == pytest.approx(values.mean(), abs=1e-4)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.08)


def test_missing_pairs_are_left_out():
    pairs = np.full((24, 4), 0.5)
    pairs[3:9] = np.nan
    found = summarized(pairs)
    assert (found.value, found.pairs) == (0.5, 72)
    assert summarized(np.full((24, 4), np.nan)) is None


def test_the_same_pairs_give_the_same_interval():
    pairs = np.random.default_rng(9).uniform(-1, 1, (24, 4))
    assert summarized(pairs) == summarized(pairs.copy())
