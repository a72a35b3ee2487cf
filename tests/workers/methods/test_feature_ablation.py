"""Feature ablation equals captum's with the same segments."""

import pytest
import torch
from captum.attr import FeatureAblation as CaptumFeatureAblation

from tests.support.coalitions import BASELINE
from tests.support.engine import attribute, image_for, logits, small_net, small_runtime
from workers.methods.feature_ablation import FeatureAblation
from workers.methods.superpixels import segmented


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_map_equals_captum(axes: int, channels: int) -> None:
    image = image_for(axes, channels)
    method = FeatureAblation(segments=12, baseline=BASELINE)
    maps = attribute(method, small_runtime(axes, channels), image, logits(1, 4))
    captum = CaptumFeatureAblation(small_net(axes, channels))
    for values, target in zip(maps.values, (1, 4), strict=True):
        mask = segmented(image, 12)[None, None].expand(1, *image.shape)
        expected = captum.attribute(image[None], BASELINE, target, feature_mask=mask)[0, :1]
        span = (expected.max() - expected.min()).item()
        assert span > 0
        assert (values - expected).abs().max().item() <= 1e-9 * span


def test_the_score_and_the_number_of_segments_are_stated() -> None:
    image = image_for()
    maps = attribute(FeatureAblation(segments=9), small_runtime(), image, logits(2))
    with torch.no_grad():
        score = small_net()(image[None])[0, 2].item()
    assert maps.extras[0]["score"] == pytest.approx(score)
    assert maps.extras[0]["segments"] == int(segmented(image, 9).max()) + 1
