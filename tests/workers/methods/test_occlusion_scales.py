"""Occlusion by windows of several sizes: the mean of the maps of each."""

import pytest
import torch
from captum.attr import Occlusion as CaptumOcclusion
from torch import Tensor

from tests.support.engine import attribute, image_for, logits, small_net, small_runtime
from workers.methods.base import ModelFacts
from workers.methods.occlusion import Occlusion
from workers.passes import Step

BASELINE = 0.25


def captum(image: Tensor, window: int, stride: int, axes: int) -> Tensor:
    """Return captum's map of the image's first channel, one value a pixel."""
    channels = len(image)
    return CaptumOcclusion(small_net(axes, channels)).attribute(
        image[None],
        (channels, *(window,) * axes),
        (channels, *(stride,) * axes),
        baselines=BASELINE,
        target=3,
    )[0][:1]


def on_pixels(values: Tensor, cell: int, like: Tensor) -> Tensor:
    """Repeat each cell's value over its pixels, up to the image's edge."""
    for axis in range(1, values.dim()):
        values = values.repeat_interleave(cell, axis).narrow(axis, 0, like.shape[axis])
    return values


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_map_is_the_mean_of_captums_maps(axes: int) -> None:
    image = image_for(axes, 2)
    method = Occlusion(window=(8, 4, 6), baseline=BASELINE)
    maps = attribute(method, small_runtime(axes, 2), image, logits(1, 3))
    expected = sum(captum(image, edge, edge // 2, axes) for edge in (8, 4, 6)) / 3
    ours = on_pixels(maps.values[1], 1, image).float()  # captum sums in float32
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_cells_are_as_large_as_all_windows_and_strides_allow() -> None:
    image = image_for()
    maps = attribute(Occlusion(window=(8, 12), stride=4), small_runtime(), image, logits(3))
    assert maps.values.shape == (1, 1, 5, 4)
    assert maps.affine.diagonal().tolist() == [4.0, 4.0, 1.0]


def test_one_window_in_a_list_is_that_window() -> None:
    image, runtime = image_for(), small_runtime()
    alone, listed = (
        attribute(Occlusion(window=window, baseline=BASELINE), runtime, image, logits(0)).values
        for window in (6, (6,))
    )
    assert torch.equal(alone, listed)


def test_all_windows_go_through_the_model_in_one_pass() -> None:
    image = image_for()
    method = Occlusion(window=(8, 4), stride=4)
    plan = method.plan(image, logits(0))
    plan.send(None)
    covered = plan.send(Step(0, 1, scores=torch.zeros(1, 1)))
    assert covered.rows.count == 4 * 3 + 5 * 4 == method.estimate(image.shape, 1).rows - 1


def test_the_stride_of_several_windows_stays_half_of_each() -> None:
    settled = Occlusion(window=(8, 4)).settled(ModelFacts(baseline=-1.0))
    assert settled.model_dump(mode="json") == {
        "window": [8, 4],
        "stride": None,
        "baseline": -1.0,
        "refine": None,
    }
    assert [each.stride for each in settled.lattices((20, 16))] == [4, 2]


@pytest.mark.parametrize("window", [(), (8,) * 5, (8, 0), (8, 4.5)])
def test_lists_that_make_no_sense_are_refused(window: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="window"):
        Occlusion(window=window)  # type: ignore[arg-type]


def test_gaps_between_the_smallest_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="stride must be at most window"):
        Occlusion(window=(8, 4), stride=6)
