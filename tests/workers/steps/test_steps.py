from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from pydantic import ValidationError

from service.domain.grid import Grid
from service.domain.inputs import StepChoice
from service.errors.models import InvalidPackage
from service.errors.studies import NotAcceptedByModel
from workers.parcels import ImageFacts
from workers.percentiles import percentiles
from workers.stages.prepare import parse_steps, prepare_files
from workers.steps.base import STEPS, StepImage


def facts(**changes) -> ImageFacts:
    known = {
        "rows": 64,
        "columns": 48,
        "channels": 1,
        "modality": "CR",
        "photometric_interpretation": "MONOCHROME2",
        "bits_stored": 12,
        "stored_minimum": 0,
        "stored_maximum": 4095,
        "value_minimum": 0.0,
        "value_maximum": 4095.0,
        "lossy": False,
        "window": None,
    }
    return ImageFacts(**known | changes)


def image(values, padding=None) -> StepImage:
    values = np.asarray(values, np.float32)
    values = values[None] if values.ndim == 2 else values
    return StepImage(values, padding, Grid.identity(values.shape[1:]))


def run(name, source, known=None, **parameters) -> StepImage:
    return STEPS[name].model_validate(parameters).apply(source, known or facts())


def noise(shape=(64, 48), top=4096):
    return np.random.default_rng(0).integers(0, top, shape).astype(np.float32)


def test_the_set_of_steps_is_closed():
    assert set(STEPS) == {
        "crop",
        "crop_box",
        "crop_foreground",
        "invert_monochrome1",
        "normalize",
        "orient",
        "pad",
        "resample",
        "resize",
        "stack",
        "standardize",
        "suv",
        "window",
    }
    assert not STEPS.unavailable


def test_monochrome1_is_mirrored_within_what_its_bits_can_hold():
    known = facts(
        photometric_interpretation="MONOCHROME1", value_minimum=-1024.0, value_maximum=3071.0
    )
    mirrored = run("invert_monochrome1", image([[-1024, 0], [100, 3071]]), known)
    assert_allclose(mirrored.values[0], [[3071, 2047], [1947, -1024]])


def test_other_images_are_not_mirrored():
    source = image(noise())
    assert run("invert_monochrome1", source) is source


def test_a_fixed_window_is_clipped_and_scaled():
    lung = run(
        "window", image([[-2000, -1350], [-600, 150]]), kind="fixed", center=-600, width=1500
    )
    assert_allclose(lung.values[0], [[0, 0], [0.5, 1]])


@pytest.mark.parametrize(("low", "high"), [(1, 99), (0, 100), (0.5, 99.5), (33.3, 66.6), (0, 0.01)])
@pytest.mark.parametrize(
    "values",
    [noise(), noise(top=3), noise() + 0.25, noise() * 1000, noise((1, 7)), -noise()],
    ids=["whole", "few", "fractions", "beyond 16 bits", "seven", "below the range"],
)
def test_percentiles_are_numpys_to_the_last_rank(values, low, high):
    shown = run("window", image(values), kind="percentile", low=low, high=high)
    bottom, top = np.percentile(values.astype(float), (low, high))
    expected = np.clip((values - bottom) / max(top - bottom, 1e-6), 0, 1)
    assert_allclose(shown.values[0], expected, atol=2e-4 if low == 0 and high < 1 else 1e-5)


@pytest.mark.parametrize("seen", ["sample", "all"])
def test_a_misleading_sample_does_not_move_the_percentiles(seen):
    values = np.sort(np.random.default_rng(0).normal(0, 1, 1 << 18)).astype(np.float32)
    if seen == "sample":  # every value that is sampled is of the other half
        values[::17] = values.max()
    ends = percentiles(values, (1.0, 60.0))
    assert_allclose(ends, np.percentile(values.astype(float), (1, 60)), rtol=1e-6)


def test_padding_does_not_move_the_percentiles_and_ends_black():
    values = noise()
    padding = np.zeros(values.shape, bool)
    padding[:20] = True
    spoiled = values.copy()
    spoiled[padding] = 4095
    shown = run("window", image(spoiled, padding), kind="percentile")
    bottom, top = np.percentile(values[~padding], (1, 99))
    expected = np.clip((values - bottom) / (top - bottom), 0, 1)
    assert_allclose(shown.values[0][~padding], expected[~padding], atol=1e-5)
    assert not shown.values[0][padding].any()


def test_a_constant_image_survives_the_window():
    assert np.isfinite(run("window", image(np.full((8, 8), 7)), kind="percentile").values).all()


@pytest.mark.parametrize("size", [(16, 16), (32, 24), (8, 48)])
def test_shrinking_by_a_whole_factor_is_torchs_area(size):
    values = noise()
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None], size=size, mode="area"
    )
    assert_allclose(run("resize", image(values), size=size).values[0], expected[0, 0], rtol=1e-5)


def areas(values, size):
    """Average by exact area, one cell and one pixel after the other."""
    result = np.zeros(size)
    scale = np.array(values.shape) / size
    for cell in np.ndindex(size):
        total = 0.0
        for pixel in np.ndindex(values.shape):
            share = 1.0
            for c, p, s in zip(cell, pixel, scale, strict=True):
                share *= max(0.0, min((c + 1) * s, p + 1) - max(c * s, p))
            total += share * values[pixel]
        result[cell] = total / scale.prod()
    return result


@pytest.mark.parametrize("shape", [(17, 23), (9, 31), (13, 8)])
def test_shrinking_by_any_factor_is_by_area(shape):
    values = noise(shape)
    shrunk = run("resize", image(values), size=(8, 8)).values[0]
    assert_allclose(shrunk, areas(values, (8, 8)), rtol=1e-4)


@pytest.mark.parametrize("size", [(96, 100), (64, 100)])
def test_growing_is_torchs_linear(size):
    values = noise()
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None], size=size, mode="bilinear", align_corners=False
    )
    grown = run("resize", image(values), size=size).values[0]
    assert_allclose(grown, expected[0, 0], rtol=1e-4, atol=1e-2)


def test_a_letterbox_keeps_the_shape_of_things_and_fills_the_rest():
    boxed = run("resize", image(np.ones((64, 32))), size=(16, 16), aspect="letterbox", fill=-1)
    assert_allclose(boxed.values[0][:, 4:12], 1)
    assert_allclose(boxed.values[0][:, :4], -1)
    assert_allclose(boxed.values[0][:, 12:], -1)


def test_normalize_centers_and_scales_each_channel():
    out = run("normalize", image(np.ones((8, 8))), mean=[0.5, 0.25], std=[0.5, 0.25])
    assert out.values.shape == (2, 8, 8)
    assert_allclose(out.values[:, 0, 0], [1, 3])


def test_color_does_not_pass_a_model_of_another_number_of_channels():
    with pytest.raises(NotAcceptedByModel):
        run("normalize", image(np.ones((3, 8, 8))), mean=[0, 0], std=[1, 1])


def test_a_crop_keeps_the_center():
    values = noise()
    cropped = run("crop", image(values), size=(32, 16))
    assert_allclose(cropped.values[0], values[16:48, 16:32])
    assert_allclose(cropped.grid.to_source((0, 0)), (16, 16))


def test_a_crop_of_more_than_there_is_is_refused():
    with pytest.raises(NotAcceptedByModel):
        run("crop", image(noise()), size=(65, 16))


GEOMETRY = st.one_of(
    st.builds(
        lambda rows, columns, aspect: ("resize", {"size": (rows, columns), "aspect": aspect}),
        st.integers(8, 90),
        st.integers(8, 90),
        st.sampled_from(["stretch", "letterbox"]),
    ),
    st.builds(
        lambda rows, columns: ("crop", {"size": (rows, columns)}),
        st.integers(8, 16),
        st.integers(8, 16),
    ),
)


FAR = -1e6
"""Fill of letterboxes in the chain: what it has touched is known by it."""


@settings(max_examples=80, deadline=None)
@given(
    shape=st.tuples(st.integers(16, 120), st.integers(16, 120)),
    chain=st.lists(GEOMETRY, max_size=4),
)
def test_a_point_goes_there_and_back_within_half_a_pixel_of_the_coarsest_grid(shape, chain):
    """The image holds its own coordinates, which averages and interpolation keep."""
    out = image(np.stack([*np.indices(shape), np.ones(shape)]))
    coarsest = np.ones(2)
    for name, parameters in chain:
        if name == "crop" and min(out.values.shape[1:]) < 16:
            continue
        fill = {"fill": FAR} if name == "resize" else {}
        out = run(name, out, **parameters, **fill)
        coarsest = np.maximum(coarsest, out.grid.cell)
    cells = np.argwhere(np.abs(out.values[2] - 1) < 1e-3)
    claimed = out.grid.to_source(cells)
    held = out.values[:2, cells[:, 0], cells[:, 1]].T
    assert (np.abs(claimed - held) <= coarsest / 2 + 0.05).all()
    assert_allclose(out.grid.from_source(claimed), cells, atol=1e-6)


@pytest.mark.parametrize("size", [(16, 16), (128, 96), (33, 77)])
def test_inner_cells_lie_where_the_grid_says_to_a_fiftieth_of_a_pixel(size):
    out = run("resize", image(np.indices((64, 48))), size=size)
    inner = np.argwhere(np.ones(size))
    inner = inner[((inner >= 2) & (inner < np.array(size) - 2)).all(1)]
    held = out.values[:, inner[:, 0], inner[:, 1]].T
    assert_allclose(held, out.grid.to_source(inner), atol=0.02)


@pytest.mark.parametrize("sizes", [[(32, 24)], [(32, 12), (8, 12)], [(64, 48), (16, 24), (8, 8)]])
def test_whole_factors_of_nearest_lie_exactly_where_the_grid_says(sizes):
    out = image(np.indices((64, 48)))
    for size in sizes:
        out = run("resize", out, size=size, antialias=False, interpolation="nearest")
    said = out.grid.to_source(np.moveaxis(np.indices(sizes[-1]), 0, -1))
    assert_allclose(np.moveaxis(out.values, 0, -1), said, atol=1e-5)


def test_steps_run_in_the_order_of_the_manifest(tmp_path: Path):
    np.save(tmp_path / "pixels.npy", noise()[None])
    steps = (
        StepChoice(name="window", parameters={"kind": "fixed", "center": 2048, "width": 4096}),
        StepChoice(name="crop", parameters={"size": [32, 32]}),
        StepChoice(name="resize", parameters={"size": [16, 16]}),
        StepChoice(name="normalize", parameters={"mean": [0.5], "std": [0.25]}),
    )
    tensor, grid = prepare_files(tmp_path / "pixels.npy", None, facts(), steps)
    cropped = noise()[16:48, 8:40] / 4096
    assert_allclose(tensor[0], (cropped.reshape(16, 2, 16, 2).mean((1, 3)) - 0.5) / 0.25, atol=1e-5)
    assert_allclose(grid.to_source((0, 0)), (16.5, 8.5))
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("stored", [np.uint8, np.int8, np.uint16, np.int16])
@pytest.mark.parametrize(
    "choice",
    [
        StepChoice(name="window", parameters={"kind": "percentile", "low": 2.0, "high": 98.0}),
        StepChoice(name="window", parameters={"kind": "fixed", "center": 40.0, "width": 90.0}),
        StepChoice(name="resize", parameters={"size": [16, 16]}),
        StepChoice(name="resize", parameters={"size": [80, 90], "antialias": False}),
        StepChoice(name="crop_foreground", parameters={"threshold": 12.5}),
        StepChoice(name="pad", parameters={"size": [70, 70], "fill": -0.5}),
        StepChoice(name="normalize", parameters={"mean": [0.5], "std": [0.25]}),
        StepChoice(name="standardize"),
        StepChoice(name="stack", parameters={"windows": [[40.0, 90.0], [0.0, 9.0]]}),
    ],
    ids=lambda choice: choice.name,
)
def test_values_as_they_were_stored_are_prepared_as_their_real_numbers_are(
    tmp_path, choice, stored, inverted
):
    ends = np.iinfo(stored)
    values = np.random.default_rng(0).integers(ends.min, ends.max, (1, 64, 48), stored)
    known = facts(photometric_interpretation=f"MONOCHROME{1 if inverted else 2}")
    steps = (StepChoice(name="invert_monochrome1"), choice)
    np.save(tmp_path / "stored.npy", values)
    np.save(tmp_path / "real.npy", values.astype(np.float32))
    found, _ = prepare_files(tmp_path / "stored.npy", None, known, steps)
    expected, _ = prepare_files(tmp_path / "real.npy", None, known, steps)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    "choice",
    [
        StepChoice(name="sharpen"),
        StepChoice(name="resize", parameters={"size": [16, 16], "smooth": True}),
        StepChoice(name="resize", parameters={"size": [0, 16]}),
        StepChoice(name="window", parameters={"kind": "fixed"}),
        StepChoice(name="window", parameters={"kind": "fixed", "center": 1, "width": 2, "low": 3}),
        StepChoice(name="window", parameters={"kind": "percentile", "low": 60, "high": 40}),
        StepChoice(name="normalize", parameters={"mean": [0.5], "std": [0]}),
        StepChoice(name="normalize", parameters={"mean": [0.5, 0.5], "std": [1]}),
    ],
    ids=str,
)
def test_a_misspelt_or_impossible_step_is_refused(choice):
    with pytest.raises(InvalidPackage):
        parse_steps([choice])


@pytest.mark.parametrize(
    ("wrong", "place", "words"),
    [
        (StepChoice(name="rezise"), "/name", "The nearest names are: resize."),
        (
            StepChoice(name="window", parameters={"kind": "fixed", "centre": 1, "width": 2}),
            "/parameters/centre",
            "The nearest names are: center.",
        ),
        (
            StepChoice(name="window", parameters={"kind": "round"}),
            "/parameters/kind",
            "Expected 'fixed'",
        ),
        (
            StepChoice(name="normalize", parameters={"mean": [0.5], "std": [0]}),
            "/parameters",
            "std must be positive",
        ),
        (StepChoice(name="resize", parameters={"size": [0, 16]}), "/parameters/size", "at least 8"),
    ],
    ids=str,
)
def test_a_wrong_step_is_told_by_its_place_and_by_what_is_expected(wrong, place, words):
    with pytest.raises(InvalidPackage) as refused:
        parse_steps([StepChoice(name="crop", parameters={"size": [8, 8]}), wrong])
    told = {each["pointer"]: each["message"] for each in refused.value.facts["errors"]}
    assert words in told[f"/inputs/0/steps/1{place}"]
    assert refused.value.pointer == f"/inputs/0/steps/1{place}"
    assert words in refused.value.detail


def test_a_step_forbids_what_it_does_not_know():
    with pytest.raises(ValidationError):
        STEPS["crop"].model_validate({"size": [8, 8], "center": True})


def test_suv_scales_and_refuses_where_the_image_does_not_say_all():
    image = StepImage(np.full((1, 4, 4), 5000, np.float32), None, Grid.identity((4, 4)))
    (step,) = parse_steps((StepChoice(name="suv"),))
    scaled = step.apply(image, facts(modality="PT", uptake_scale=3e-4))
    assert_allclose(scaled.values, 1.5, rtol=1e-6)
    with pytest.raises(NotAcceptedByModel, match="half-life"):
        step.apply(image, facts(modality="PT"))
