"""Steps on volumes, and the way back from the model's input through any chain of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from pydantic import ValidationError

from service.domain.grid import Grid
from service.errors.models import InvalidPackage
from service.errors.studies import NotAcceptedByModel
from tests.support.volumes import AXIAL, CORONAL, SAGITTAL, Series, facts
from workers.steps import sampling
from workers.steps.base import STEPS, StepImage

FACTS = facts(Series())


def volume(series=None, values=None, padding=None):
    series = series or Series()
    values = series.values if values is None else values
    return StepImage(
        np.asarray(values, np.float32)[None], padding, Grid.identity(values.shape), series.affine
    )


def run(image, *steps):
    for name, parameters in steps:
        image = STEPS[name].model_validate(parameters).apply(image, FACTS)
    return image


def patient_axes(image):
    """The letter of the direction in which each axis leads, read off the affine."""
    pairs = [("R", "L"), ("A", "P"), ("I", "S")]
    said = ""
    for way in image.axes.T:
        main = int(np.abs(way).argmax())
        said += pairs[main][int(way[main] > 0)]
    return said


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SPL", "ILA", "PSR"])
@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL, (-1, 0, 0, 0, -1, 0)])
def test_axes_lead_where_their_letters_say_and_nothing_is_interpolated(orientation, axes):
    before = volume(Series(orientation=orientation))
    after = run(before, ("orient", {"axes": axes}))
    assert patient_axes(after) == axes
    assert sorted(after.values.ravel()) == sorted(before.values.ravel())
    for index in ((0, 0, 0), tuple(np.array(after.values.shape[1:]) - 1), (2, 3, 1)):
        source = tuple(np.rint(after.grid.to_source(index)).astype(int))
        assert after.values[0][index] == before.values[0][source]


def test_a_sheared_volume_is_oriented_as_it_lies():
    after = run(volume(Series(tilt=20)), ("orient", {"axes": "RAS"}))
    assert patient_axes(after) == "RAS"


@pytest.mark.parametrize("axes", ["RAA", "RA", "XYZ", "RLS", "ras"])
def test_axes_must_name_three_directions(axes):
    with pytest.raises(ValidationError):
        STEPS["orient"].model_validate({"axes": axes})


def test_spacing_is_reached_along_the_volumes_own_axes():
    after = run(volume(), ("resample", {"spacing": (1.5, 1.6, 2.8)}))
    assert after.values.shape == (1, 24, 12, 5)
    assert_allclose(np.linalg.norm(after.axes, axis=0), (1.5, 1.6, 2.8))
    assert_allclose(after.grid.to_source((-0.5, -0.5, -0.5)), (-0.5, -0.5, -0.5))
    assert_allclose(after.grid.to_source((23.5, 11.5, 4.5)), (11.5, 23.5, 19.5))


def test_shrinking_a_volume_by_whole_factors_is_torchs_area():
    values = np.random.default_rng(0).normal(size=(12, 24, 20)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None], size=(12, 12, 10), mode="area"
    )
    after = run(volume(values=values), ("resize", {"size": (12, 12, 10)}))
    assert_allclose(after.values, expected[0].numpy(), atol=1e-6)


@pytest.mark.parametrize("size", [(24, 24, 20), (16, 48, 40), (8, 16, 9)])
def test_resizing_without_antialias_is_torchs_trilinear(size):
    values = np.random.default_rng(0).normal(size=(12, 24, 20)).astype(np.float32)
    after = run(volume(values=values), ("resize", {"size": size, "antialias": False}))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None], size=size, mode="trilinear", align_corners=False
    )
    assert_allclose(after.values, expected[0].numpy(), atol=1e-5)


@pytest.mark.parametrize("size", [(24, 24, 20), (17, 31, 13), (8, 16, 9)])
def test_nearest_samples_are_those_of_torchs_exact_nearest(size):
    values = np.random.default_rng(0).normal(size=(12, 24, 20)).astype(np.float32)
    step = {"size": size, "antialias": False, "interpolation": "nearest"}
    after = run(volume(values=values), ("resize", step))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None], size=size, mode="nearest-exact"
    )
    assert np.array_equal(after.values, expected[0].numpy())


@pytest.mark.parametrize("size", [(8, 12, 10), (24, 30, 40)])
def test_a_large_volume_is_resampled_piece_by_piece_to_the_same_values(monkeypatch, size):
    at_once = run(volume(), ("resize", {"size": size}))
    monkeypatch.setattr(sampling, "PIECE", 24 * 20 * 5)
    assert np.array_equal(run(volume(), ("resize", {"size": size})).values, at_once.values)


def test_a_box_and_the_center_are_cut_out():
    whole = volume()
    box = run(whole, ("crop_box", {"start": (2, 0, 5), "stop": (6, 24, 9)}))
    assert np.array_equal(box.values[0], whole.values[0][2:6, :, 5:9])
    center = run(whole, ("crop", {"size": (8, 10, 8)}))
    assert np.array_equal(center.values[0], whole.values[0][2:10, 7:17, 6:14])
    for step in (
        ("crop", {"size": (13, 8, 8)}),
        ("crop_box", {"start": (0,) * 3, "stop": (13, 2, 2)}),
    ):
        with pytest.raises(NotAcceptedByModel):
            run(whole, step)


def test_what_lies_around_the_body_is_cut_away():
    values = np.full((12, 24, 20), -1000.0)
    values[3:7, 5:9, 10:12] = 40
    padding = np.zeros(values.shape, bool)
    values[11, 0, 0], padding[11, 0, 0] = 3000, True
    source = volume(values=values, padding=padding)
    body = run(source, ("crop_foreground", {"threshold": -500, "margin": 1}))
    assert np.array_equal(body.values[0], values[2:8, 4:10, 9:13])
    assert_allclose(body.grid.to_source((0, 0, 0)), (2, 4, 9))
    nothing = run(source, ("crop_foreground", {"threshold": 5000}))
    assert nothing.values.shape == source.values.shape


def test_added_cells_are_padding_and_have_no_evidence_behind_them():
    source = volume()
    padded = run(source, ("pad", {"size": (15, 8, 24), "fill": -1024}))
    assert padded.values.shape == (1, 15, 24, 24)
    assert np.array_equal(padded.values[0][1:13, :, 2:22], source.values[0])
    assert (padded.values[0][padded.padding] == -1024).all()
    assert padded.padding.sum() == 15 * 24 * 24 - 12 * 24 * 20
    assert_allclose(padded.grid.to_source((1, 0, 2)), (0, 0, 0))
    windowed = run(padded, ("window", {"kind": "fixed", "center": -1100, "width": 10}))
    assert not windowed.values[0][padded.padding].any()


def test_several_windows_become_channels():
    shown = run(volume(), ("stack", {"windows": [(-600, 1500), (40, 400)]}))
    source = Series().values
    assert shown.values.shape == (2, *source.shape)
    assert_allclose(shown.values[1], np.clip((source + 160) / 400, 0, 1), atol=1e-6)


@pytest.mark.parametrize(
    "step", [("orient", {"axes": "RAS"}), ("resample", {"spacing": (1, 1, 1)})]
)
def test_an_image_without_a_place_in_the_patient_cannot_be_turned(step):
    flat = StepImage(np.zeros((1, 16, 16), np.float32), None, Grid.identity((16, 16)))
    with pytest.raises(NotAcceptedByModel):
        run(flat, step)


@pytest.mark.parametrize(
    "step", [("resize", {"size": (16, 16)}), ("crop", {"size": (8, 8)}), ("pad", {"size": (8, 8)})]
)
def test_a_step_of_two_axes_is_not_for_volumes(step):
    with pytest.raises(InvalidPackage):
        run(volume(), step)


# ------------------------------------------------------------- there and back

side = st.integers(8, 40)
interpolation = st.sampled_from(["linear", "nearest"])


def chains(axes):
    """Any chain of the steps that move cells, of images with as many axes."""
    sizes = st.tuples(*[side] * axes)
    step = st.one_of(
        st.tuples(
            st.just("resize"),
            st.fixed_dictionaries(
                {
                    "size": sizes,
                    "aspect": st.sampled_from(["stretch", "letterbox"]),
                    "antialias": st.booleans(),
                    "interpolation": interpolation,
                }
            ),
        ),
        st.tuples(st.just("pad"), st.fixed_dictionaries({"size": sizes})),
        st.tuples(
            st.just("crop"), st.fixed_dictionaries({"size": st.tuples(*[st.just(8)] * axes)})
        ),
        st.tuples(st.just("crop_foreground"), st.just({"threshold": 6.0})),
        st.tuples(
            st.just("crop_box"),
            st.fixed_dictionaries(
                {
                    "start": st.tuples(*[st.integers(0, 2)] * axes),
                    "stop": st.tuples(*[st.integers(6, 8)] * axes),
                }
            ),
        ),
    )
    if axes == 3:
        letters = st.sampled_from(["RAS", "LPS", "SPL", "ILA", "PSR", "AIR"])
        mm = st.floats(0.5, 4)
        step |= st.tuples(st.just("orient"), st.fixed_dictionaries({"axes": letters}))
        step |= st.tuples(
            st.just("resample"),
            st.fixed_dictionaries(
                {"spacing": st.tuples(mm, mm, mm), "interpolation": interpolation}
            ),
        )
    return st.lists(step, min_size=1, max_size=5)


def walked(image, chain):
    """Run a chain, leaving out the crops that the image is too small for.

    Beyond its outermost cells an image is unknown, and what is made of them may
    be repeated: each step begins with 0 there in the last channel.

    Returned with it is how far off a cell may be along each axis of the source, in its
    voxels. Of the cells that a step samples, the nearest lies half a cell away at most;
    the weighted center of an area that begins and ends within cells, an eighth. All that
    areas do to a chain is half a voxel at most.
    """
    sampled, averaged = np.zeros((2, image.values.ndim - 1))
    for name, parameters in chain:
        if name in {"crop", "crop_box"} and min(image.values.shape[1:]) < 8:
            continue
        edges = np.abs(image.grid.affine[:-1, :-1]).sum(1)
        sampled += edges / 2 * (parameters.get("interpolation") == "nearest")
        averaged += edges / 8 * ("interpolation" in parameters)
        known = np.zeros_like(image.values[-1])
        inner = (slice(1, -1),) * known.ndim
        known[inner] = image.values[-1][inner]
        image = replace(image, values=np.stack([*image.values[:-1], known]))
        image = run(image, (name, parameters))
    return image, sampled + np.minimum(averaged, 0.5)


def ramps(shape):
    """An image whose channels are each voxel's own index along each axis, and at last 1."""
    return np.stack([*np.indices(shape), np.ones(shape)]).astype(np.float32)


@settings(max_examples=50, deadline=None)
@given(chain=chains(2), shape=st.tuples(st.integers(9, 50), st.integers(9, 50)))
def test_a_pixel_of_any_chain_shows_what_lies_where_its_grid_says(chain, shape):
    assert_back(*walked(StepImage(ramps(shape), None, Grid.identity(shape)), chain))


@settings(max_examples=50, deadline=None)
@given(
    chain=chains(3),
    orientation=st.sampled_from([AXIAL, CORONAL, SAGITTAL]),
    tilt=st.sampled_from([0.0, 15.0]),
)
def test_a_voxel_of_any_chain_shows_what_lies_where_its_grid_says(chain, orientation, tilt):
    series = Series(shape=(14, 11, 17), orientation=orientation, tilt=tilt)
    image = StepImage(ramps(series.shape), None, Grid.identity(series.shape), series.affine)
    assert_back(*walked(image, chain))


def assert_back(after, off):
    """Hold what every cell shows, its source's index, against what its grid says.

    The index is a plane, which linear interpolation keeps. Left out are cells that show
    anything but the image's inside: there the last channel is not 1.
    """
    cells = np.stack(np.meshgrid(*map(np.arange, after.values.shape[1:]), indexing="ij"), -1)
    said = after.grid.to_source(cells)
    assert_allclose(after.grid.from_source(said), cells, atol=1e-6)
    shown = np.moveaxis(after.values[:-1], 0, -1)
    inside = after.values[-1] > 0.9999
    assert (np.abs(shown - said)[inside] <= off + 0.01).all()


@pytest.mark.parametrize("aspect", ["stretch", "letterbox"])
def test_a_volume_is_resized_in_its_planes_alone(aspect):
    before = volume()
    slices = before.values.shape[1]
    after = run(before, ("resize", {"size": [None, 16, 24], "aspect": aspect}))
    assert after.values.shape[1:] == (slices, 16, 24)
    whole = run(before, ("resize", {"size": [max(slices, 8), 16, 24], "aspect": "stretch"}))
    for number in range(slices):
        assert after.grid.to_source((number, 0, 0))[0] == number
    if aspect == "stretch" and slices >= 8:
        assert_allclose(after.values, whole.values)
