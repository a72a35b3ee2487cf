"""nnU-Net's crop and normalizations, against what its preprocessor does, written down in numpy."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name

from service.domain.grid import Grid
from tests.support.volumes import Series, facts
from workers.steps.base import STEPS, StepImage
from workers.steps.standardize import filled

FACTS = facts(Series())
CT = {"percentile_00_5": -900.0, "percentile_99_5": 310.0, "mean": 42.0, "std": 97.0}


def run(values, *choices, padding=None):
    image = StepImage(values, padding, Grid.identity(values.shape[1:]), Series().affine)
    for name, parameters in choices:
        image = STEPS[name].model_validate(parameters).apply(image, FACTS)
    return image


def head(seed=3, channels=2):
    """A body in a void of zeros, with a hole of zeros in it and a tunnel that leads out."""
    random = np.random.default_rng(seed)
    values = random.normal(300, 60, (channels, 14, 18, 16)).astype(np.float32)
    inside = np.zeros(values.shape[1:], np.bool_)
    inside[3:12, 4:15, 2:13] = True
    inside[6:9, 8:11, 5:8] = False
    inside[4, 6, 9:13] = False
    return values * inside, inside


def fill_holes(mask):
    """ITK's answer, with neighbors by faces."""
    return sitk.GetArrayFromImage(
        sitk.BinaryFillhole(sitk.GetImageFromArray(mask.astype(np.uint8)), False, 1)
    ).astype(bool)


def cropped(values):
    """As nnU-Net crops: the box of the mask of all channels, its holes filled."""
    mask = fill_holes((values != 0).any(0))
    held = [np.unique(each) for each in np.nonzero(mask)]
    box = tuple(slice(each[0], each[-1] + 1) for each in held)
    return values[:, *box], mask[box], box


def test_the_crop_is_the_box_of_all_that_is_not_zero():
    values, _ = head()
    expected, _, box = cropped(values)
    made = run(values, ("crop_foreground", {}))
    assert np.array_equal(made.values, expected)
    assert made.grid.to_source((0, 0, 0)).tolist() == [each.start for each in box]


def test_negative_values_are_foreground_too():
    values = np.zeros((1, 8, 8, 8), np.float32)
    values[0, 2:5, 3, 3] = -7
    assert run(values, ("crop_foreground", {})).values.shape == (1, 3, 1, 1)


def test_other_images_than_ct_are_standardized_within_the_body():
    """Crop, then each channel by mean and deviation within the mask; the rest stays zero."""
    values, _ = head()
    expected, mask, _ = cropped(values)
    for channel in expected:
        mean, std = channel[mask].mean(), channel[mask].std()
        channel[mask] = (channel[mask] - mean) / max(std, 1e-8)
    made = run(values.copy(), ("crop_foreground", {}), ("standardize", {"over": "nonzero"}))
    np.testing.assert_allclose(made.values, expected, atol=2e-5)
    assert mask.sum() < mask.size  # else nothing is told by zeros outside
    assert (made.values[:, ~mask] == 0).all()


def test_without_a_mask_all_of_the_image_is_standardized():
    values, _ = head()
    made = run(values.copy(), ("standardize", {})).values
    for channel, before in zip(made, values, strict=True):
        np.testing.assert_allclose(channel, (before - before.mean()) / before.std(), atol=2e-5)


def test_padding_is_not_measured():
    values, inside = head(channels=1)
    made = run(values.copy(), ("standardize", {}), padding=~inside).values
    assert made[0][inside].mean() == pytest.approx(0, abs=1e-5)
    assert made[0][inside].std() == pytest.approx(1, abs=1e-5)


def test_an_image_of_one_value_stays_finite():
    made = run(np.full((1, 4, 4, 4), 7, np.float32), ("standardize", {})).values
    assert np.array_equal(made, np.zeros_like(made))


def test_ct_is_clipped_to_percentiles_and_brought_to_the_training_mean():
    """The steps that the importer writes for CT give what nnU-Net's normalization does."""
    from service.drafts.nnunet import _ct  # noqa: PLC0415

    values = np.random.default_rng(1).uniform(-1024, 900, (1, 9, 10, 11)).astype(np.float32)
    low, high = CT["percentile_00_5"], CT["percentile_99_5"]
    expected = (np.clip(values, low, high) - CT["mean"]) / max(CT["std"], 1e-8)
    made = run(values, *((each["name"], each["parameters"]) for each in _ct(CT))).values
    np.testing.assert_allclose(made, expected, atol=2e-5)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shape", [(9, 11), (7, 8, 9)])
def test_holes_are_filled_as_itk_fills_them(seed, shape):
    mask = np.random.default_rng(seed).random(shape) < 0.55
    assert np.array_equal(filled(mask), fill_holes(mask))


def test_a_map_of_the_cropped_image_has_its_place_in_the_source():
    values, inside = head(channels=1)
    made = run(values, ("crop_foreground", {}), ("standardize", {"over": "nonzero"}))
    index = np.unravel_index(int(made.values[0].argmax()), made.values.shape[1:])
    source = tuple(np.rint(made.grid.to_source(index)).astype(int))
    assert values[0][source] == values[0][inside].max()
