"""Feature ablation: how far the score falls when one segment is hidden."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from workers.methods.base import METHODS, Maps
from workers.methods.segments import Players, SegmentMethod, on_pixels
from workers.methods.superpixels import segmented
from workers.passes import Cost, Plan, Targets, TimeUp
from workers.tabular import Tabular


@METHODS.register("feature_ablation")
class FeatureAblation(SegmentMethod):
    r"""Fall of the score when one segment of the image is hidden, all others shown.

    .. math:: A(u) = f(x) - f(x_{S(u) \to b})

    with `S(u)` the superpixel that holds the place. It is occlusion by windows
    that follow the image's own edges, without overlap.

    Parameters
    ----------
    segments
        About how many segments.
    baseline
        Value of hidden pixels, in model-input units; the model's own reference
        value if not given.

    References
    ----------
    Zeiler, Fergus (2014). Visualizing and understanding convolutional
    networks. ECCV. arXiv:1311.2901, section 4.2, with superpixels in place of
    squares.
    """

    title: ClassVar = "Feature ablation"
    paper: ClassVar = "Zeiler, Fergus (2014), arXiv:1311.2901, section 4.2"
    cost: ClassVar = "1 + segments forward rows"
    weaknesses: ClassVar = (
        "What two segments show alike, hiding one of them leaves: both get nothing. "
        "Findings that cross segments are cut, and a hidden segment is itself unusual."
    )

    @override
    def estimate(self, shape: Sequence[int], targets: int) -> Cost:
        """Return one row for each segment and one for the image."""
        return Cost(forward_rows=1 + self.most(shape), exact=False)

    @override
    def joint(self, image: Tensor, targets: Targets, tabular: Tabular | None) -> Plan[Maps]:
        """Attribute `image`, and the values beside it if it has any."""
        players = Players(segmented(image, self.segments), tabular)
        places = torch.arange(players.count, device=image.device)

        def presence(start: int, stop: int) -> Tensor:
            rows = torch.arange(start, stop, device=image.device)
            return rows[:, None] != places + 1  # row 0 shows everything

        count = 1 + len(places)
        scores, late = yield from self.scored(image, players, presence, count, targets)
        if late:  # what was not hidden has no value, and zero would be one
            raise TimeUp
        figures = [{"score": score} for score in scores[0].tolist()]
        return on_pixels((scores[:1] - scores[1:]).T, players, image, figures)
