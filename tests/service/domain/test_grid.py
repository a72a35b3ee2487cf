"""Grids: there and back, and where cells lie."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.grid import Grid, scaling

sizes = st.integers(1, 500)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    dimension = draw(st.integers(1, 3))
    shape = tuple(draw(sizes) for _ in range(dimension))
    factors = [draw(st.floats(0.01, 100)) * draw(st.sampled_from([-1, 1])) for _ in shape]
    offsets = [draw(st.floats(-1000, 1000)) for _ in shape]
    shear = np.eye(dimension + 1)
    if dimension > 1:
        shear[0, 1] = draw(st.floats(-2, 2))
    return Grid(shape, shear @ scaling(factors, offsets))


@given(grid=grids(), seed=st.integers(0, 2**32 - 1))
def test_there_and_back_is_the_same_place(grid: Grid, seed: int) -> None:
    points = np.random.default_rng(seed).uniform(-10, 500, (5, len(grid.shape)))
    back = grid.from_source(grid.to_source(points))
    assert np.allclose(back, points, rtol=1e-9, atol=1e-6)


@given(grid=grids(), seed=st.integers(0, 2**32 - 1))
def test_places_along_an_axis_are_those_of_each_cell(grid: Grid, seed: int) -> None:
    cell = np.random.default_rng(seed).integers(0, grid.shape)
    for axis, place in enumerate(grid.to_source(cell)):
        found = grid.places(axis)
        assert found.ndim == len(grid.shape)
        at = tuple(k if length > 1 else 0 for k, length in zip(cell, found.shape, strict=True))
        assert found[at] == pytest.approx(place, rel=1e-9, abs=1e-6)


@given(grid=grids(), parent=grids())
def test_a_grid_within_another_leads_to_the_same_source(grid: Grid, parent: Grid) -> None:
    if len(grid.shape) != len(parent.shape):
        return
    points = np.ones((1, len(grid.shape)))
    led = grid.within(parent).to_source(points)
    stepwise = parent.to_source(grid.to_source(points))
    assert np.allclose(led, stepwise, rtol=1e-9, atol=1e-6)
    assert grid.within(parent).shape == grid.shape


@given(extent=st.tuples(sizes, sizes), cells=st.tuples(sizes, sizes))
def test_a_partition_covers_the_image_edge_to_edge(
    extent: tuple[int, int], cells: tuple[int, int]
) -> None:
    grid = Grid.partition(cells, extent)
    first_edge = grid.to_source([-0.5, -0.5])
    last_edge = grid.to_source([cells[0] - 0.5, cells[1] - 0.5])
    assert np.allclose(first_edge, -0.5)
    assert np.allclose(last_edge, np.array(extent) - 0.5)
    assert np.allclose(grid.cell, np.array(extent) / np.array(cells))


def test_a_cam_of_14_cells_on_224_pixels_by_hand() -> None:
    grid = Grid.partition((14, 14), (224, 224))
    assert grid.cell == (16.0, 16.0)
    assert grid.to_source([0, 13]).tolist() == [7.5, 215.5]
    assert grid.from_source([7.5, 7.5]).tolist() == [0, 0]


def test_the_sources_own_grid_moves_nothing() -> None:
    grid = Grid.identity((5, 7))
    assert grid.to_source([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    assert grid.cell == (1.0, 1.0)


def test_cells_keep_their_size_under_rotation() -> None:
    turned = Grid((4, 4), np.array([[0, -3, 9], [2, 0, 0], [0, 0, 1.0]]))
    assert turned.cell == pytest.approx((2, 3))
