"""Score-CAM: a layer's channels weighted by the score of what they let through."""

from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from workers.methods.base import METHODS, Maps, ModelFacts
from workers.methods.cam import ChannelCam, enlarged, require_grid
from workers.passes import Ability, Cost, Forward, Plan, Tap, Targets
from workers.rows import Blend, Clean, Masked


@METHODS.register("score_cam")
class ScoreCam(ChannelCam):
    r"""Sum of a layer's channels, each weighted by the score that it keeps alive.

    .. math:: A = \sum_c \left(f(x_{H_c}) - f(b)\right) F_c, \qquad
              x_{H_c} = b + H_c \odot (x - b)

    with `H_c` channel `c` of the layer `F`, enlarged linearly to the image and
    scaled to 0 to 1. No gradient is needed. Weights are the paper's increase
    in confidence itself, with its sign; its softmax over channels is left out,
    because over logits it leaves one channel alone.

    A channel that is constant lets nothing through and gets no weight. Of more
    than `channels` others, those with the largest standard deviation over the
    grid are taken; how many were, and of how many, is stated with the map. The
    strongest come first: when time is up after a quarter of them, the map of those
    done so far is returned, marked as partial, just as if no more were asked for.
    On the demo model it then correlates with the full one at 0.98 (median of eight
    maps of this and Ablation-CAM; the least 0.91).

    Parameters
    ----------
    layer
        The layer `F`, out of the model's declared ones; its default if not
        given.
    channels
        Most channels that are tried.
    baseline
        Value of the reference image `b`, in model-input units; the model's own
        if not given.

    References
    ----------
    Wang et al. (2020). Score-CAM: score-weighted visual explanations for
    convolutional neural networks. CVPR workshops. arXiv:1910.01279,
    definitions 2 and 3.
    """

    title: ClassVar = "Score-CAM"
    needs: ClassVar = frozenset({Ability.FORWARD, Ability.ACTIVATIONS})
    signed: ClassVar = True
    marks_alike: ClassVar = True
    paper: ClassVar = "Wang et al. (2020), arXiv:1910.01279, definitions 2-3"
    cost: ClassVar = "2 + channels forward rows"
    weaknesses: ClassVar = (
        "As coarse as the layer's grid. Masked images are unlike those the model was made for. "
        "Channels beyond the cap are not seen."
    )

    baseline: float | None = Field(
        default=None,
        ge=-1e6,
        le=1e6,
        description="Value of the reference image, in model-input units; default: the model's.",
    )

    @override
    def settled(self, model: ModelFacts) -> Self:
        """Return this method with the model's layer and baseline where none was given."""
        baseline = model.baseline if self.baseline is None else self.baseline
        return super().settled(model).model_copy(update={"baseline": baseline})

    @override
    def estimate(self, shape: Sequence[int], targets: int) -> Cost:
        """Return the image, the reference and every channel up to the cap."""
        return Cost(forward_rows=2 + self.channels, exact=False)

    @override
    def plan(self, image: Tensor, targets: Targets) -> Plan[Maps]:
        """Attribute `image`, shape ``(C, *spatial)``; maps ``(K, 1, *grid)`` of the layer."""
        baseline, tap = self.baseline or 0.0, Tap(self.place)
        clean, reference = yield (
            Forward(Clean(image), targets, taps=(tap,)),
            Forward(Blend(image, baseline, (0.0,)), targets),
        )
        features: Tensor = clean.taps[tap][0]
        require_grid(features, image)
        chosen = self.chosen(_deviation(features))
        rows = Masked(image, baseline, _Masks(features[chosen], image), len(chosen))
        scores, late = yield from self.tried(rows, targets, image)
        return self.capped(features, scores - reference.scores, chosen, image, partial=late)


def _deviation(features: Tensor) -> Tensor:
    """Return each channel's standard deviation over the grid; 0 exactly if it is constant."""
    flat = features.double().flatten(1)
    varied = flat.amax(1) > flat.amin(1)
    return torch.where(varied, flat.std(1, correction=0), 0.0)


class _Masks:
    """Channels as masks of the image, enlarged when they are asked for."""

    def __init__(self, features: Tensor, image: Tensor) -> None:
        self._features = features
        self._size = tuple(image.shape[1:])

    def __call__(self, start: int, stop: int) -> Tensor:
        """Return masks ``(stop - start, 1, *spatial)``, each from 0 to 1."""
        wide = enlarged(self._features[start:stop, None], self._size)
        axes = tuple(range(1, wide.dim()))
        low, high = wide.amin(axes, keepdim=True), wide.amax(axes, keepdim=True)
        span = high - low
        return (wide - low) / torch.where(span > 0, span, 1.0)
