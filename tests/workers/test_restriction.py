"""Maps kept to regions, by hand and against a second, slow telling of what a cell covers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from service.domain.grid import Grid, scaling
from workers.drawing.resample import to_source
from workers.restriction import nearest, padding_share, parts, peak, restrict, seen_share

RANDOM = np.random.default_rng(5)


def test_cells_that_reach_into_no_region_are_zero_and_counted():
    values = np.arange(1, 17, dtype=np.float32).reshape(1, 4, 4)
    grid = Grid.partition((4, 4), (40, 40))
    kept, told = restrict(values, grid, ((10, 10, 20, 25),))  # the cells 1,1 and half of 1,2
    expected = np.zeros((1, 4, 4), np.float32)
    expected[0, 1, 1:3] = values[0, 1, 1:3]
    assert_array_equal(kept, expected)
    assert told is not None
    assert told.outside_sum == values.sum() - 13
    assert told.outside_share == pytest.approx((136 - 13) / 136)
    assert told.regions == ((10, 10, 20, 25),)


def test_without_regions_the_map_is_the_same_object():
    values = RANDOM.normal(size=(1, 3, 3)).astype(np.float32)
    assert restrict(values, Grid.identity((3, 3)), ()) == (values, None)


def test_a_broken_map_stays_broken():
    values = np.full((1, 4, 4), np.nan, np.float32)
    kept, told = restrict(values, Grid.partition((4, 4), (40, 40)), ((0, 0, 10, 10),))
    assert np.isnan(kept).all()
    assert told is not None
    assert told.outside_share == 0


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    scale=st.tuples(st.floats(0.3, 7), st.floats(0.3, 7)),
    offset=st.tuples(st.floats(-5, 5), st.floats(-5, 5)),
    corner=st.tuples(st.integers(0, 20), st.integers(0, 20)),
    edges=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_a_cell_is_kept_if_it_covers_a_piece_of_a_region(shape, scale, offset, corner, edges):
    box = (*corner, *np.add(corner, edges))
    box = tuple(int(each) for each in box)
    values = RANDOM.uniform(1, 2, (1, *shape)).astype(np.float32)
    kept, _ = restrict(values, Grid(shape, scaling(scale, offset)), (box,))
    for cell in np.ndindex(shape):
        ends = [
            (
                max(scale[a] * (cell[a] - 0.5) + offset[a], box[a] - 0.5),
                min(scale[a] * (cell[a] + 0.5) + offset[a], box[a + 2] - 0.5),
            )
            for a in range(2)
        ]
        reach = min(end - start for start, end in ends)
        if abs(reach) > 1e-4:  # else it is a matter of rounding
            assert (kept[0][cell] > 0) == (reach > 0)


def test_a_region_that_is_the_whole_image_changes_nothing():
    grid = Grid.partition((6, 7), (90, 100))
    values = RANDOM.normal(size=(1, 6, 7)).astype(np.float32)
    (part,) = parts(grid, ((0, 0, 90, 100),))
    whole = to_source(values, grid, (90, 100))
    assert_allclose(to_source(values[:, *part.cells], part.grid, (90, 100)), whole, atol=1e-6)


def test_inside_a_region_a_map_is_what_it_was_until_half_a_cell_from_the_edge():
    grid = Grid.partition((9, 10), (90, 100))
    values = RANDOM.normal(size=(1, 9, 10)).astype(np.float32)
    whole = to_source(values, grid, (90, 100))[0]
    box = (20, 30, 70, 80)  # edges of cells
    (part,) = parts(grid, (box,))
    found = to_source(values[:, *part.cells], part.grid, (50, 50))[0]
    assert_allclose(found[5:-5, 5:-5], whole[25:65, 35:75], atol=1e-6)
    assert_allclose(found[0, 5:-5], found[4, 5:-5], atol=1e-6)  # as at an image's edge
    assert np.abs(found).max() <= np.abs(values[0, 2:7, 3:8]).max() + 1e-6


def test_a_region_out_of_the_maps_reach_has_no_part():
    grid = Grid((4, 4), scaling((5, 5), (52, 52)))  # a crop of the lower right
    assert list(parts(grid, ((0, 0, 20, 20),))) == []


def test_the_nearest_place_lies_in_a_region():
    boxes = ((0, 0, 10, 10), (50, 50, 60, 60))
    assert nearest((4, 5), boxes) == (4, 5)
    assert nearest((12, 5), boxes) == (9, 5)
    assert nearest((49, 70), boxes) == (50, 59)


ORDERS = st.permutations(range(3)).flatmap(
    lambda order: st.tuples(st.just(tuple(order)), st.tuples(*[st.sampled_from((-1, 1))] * 3))
)


def turned(shape, order, signs, scale, offset):
    """A grid whose axes run along its source's in another order, and the other way."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, along in enumerate(order):
        affine[axis, along] = signs[axis] * scale[axis]
        affine[axis, 3] = offset[axis] + (shape[along] - 1) * scale[axis] * (signs[axis] < 0)
    return Grid(shape, affine)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    order=ORDERS,
    scale=st.tuples(*[st.floats(0.5, 6)] * 3),
    offset=st.tuples(*[st.floats(-9, 5)] * 3),
)
def test_what_is_told_in_the_images_pixels_is_of_cells_that_reach_into_it(
    shape, order, scale, offset
):
    extent = (7, 9, 11)
    grid = turned(shape, *order, scale, offset)
    values = RANDOM.normal(size=(2, *shape)).astype(np.float32)
    reaching, inside = [], 0.0
    for cell in np.ndindex(shape):
        share = 1.0
        for axis, center in enumerate(grid.to_source(cell)):
            low, high = center - scale[axis] / 2, center + scale[axis] / 2
            both = min(high, extent[axis] - 0.5) - max(low, -0.5)
            if abs(both) < 1e-4:
                return  # a matter of rounding
            share *= max(0, both) / scale[axis]
        if share > 0:
            reaching.append((values.sum(axis=0)[cell], cell))
        inside += share * float(np.abs(values[(slice(None), *cell)]).sum())
    found = peak(values.sum(axis=0), grid, extent)
    if len(reaching) < 2:  # nothing that stands out
        assert found is None
    else:
        value, cell = max(reaching)
        assert found[1] == value
        assert_allclose(found[0], np.clip(grid.to_source(cell), 0, np.array(extent) - 1))
    expected = 1 - inside / float(np.abs(values).sum())
    assert padding_share(values, grid, extent) == pytest.approx(expected, abs=1e-6)


def test_a_map_that_is_empty_in_its_image_has_no_peak():
    values = np.zeros((1, 6, 4), np.float32)
    grid = Grid((6, 4), scaling((10, 10), (4.5 - 20, 4.5)))  # two rows of padding above and below
    values[0, 0, 2], values[0, 5, 1] = 3, -1
    assert peak(values[0], grid, (20, 40)) is None
    assert padding_share(values, grid, (20, 40)) == 1
    values[0, 2, 3] = 1
    assert peak(values[0], grid, (20, 40)) == ((4.5, 34.5), 1)
    assert padding_share(values, grid, (20, 40)) == pytest.approx(0.8)


def test_a_crop_tells_how_much_of_the_image_was_seen():
    assert seen_share(Grid.partition((7, 9), (90, 100)), (90, 100)) == 1
    beside = Grid((6, 4), scaling((10, 10), (4.5 - 20, 4.5)))
    assert seen_share(beside, (20, 40)) == 1
    cropped = Grid((4, 5), scaling((5, -4), (12, 30)))  # rows 9.5 to 29.5, columns 12 to 32
    assert seen_share(cropped, (40, 50)) == pytest.approx(20 / 40 * 20 / 50)


def test_the_peak_of_a_plateau_is_its_middle():
    values = np.zeros((9, 9))
    values[2:7, 1:6] = 4
    assert peak(values, Grid.identity((9, 9)), (9, 9)) == ((4, 3), 4)
    values[4, 3] = 3  # as the plateau's middle may be lower, the peak is a cell of it
    (row, column), value = peak(values, Grid.identity((9, 9)), (9, 9))
    assert (values[int(row), int(column)], value) == (4, 4)


def test_a_peak_lies_in_the_regions_where_all_evidence_in_them_is_against():
    values = -np.arange(1, 17, dtype=np.float32).reshape(1, 4, 4)
    grid = Grid.partition((4, 4), (40, 40))
    boxes = ((10, 10, 20, 25),)
    kept, _ = restrict(values, grid, boxes)
    assert peak(kept[0], grid, (40, 40), boxes) == ((14.5, 14.5), -6)
