"""Eigen-CAM: the strongest pattern among a layer's channels."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from workers.methods.base import METHODS, Maps
from workers.methods.cam import CamMethod, on_grid, require_grid
from workers.passes import Ability, Cost, Forward, Plan, Step, Tap, Targets
from workers.rows import Clean


@METHODS.register("eigen_cam")
class EigenCam(CamMethod):
    r"""First principal component of a layer's output, the same for every target.

    .. math:: F = U \Sigma V^\top, \qquad A = F v_1

    with `F` the layer's output as a matrix of cells by channels, not centered,
    and `v_1` the first column of `V`. A component has no sign of its own: the
    one whose map has the positive sum is taken. The share of the layer's
    energy that the map holds is stated with it as `explained`.

    Parameters
    ----------
    layer
        The layer `F`, out of the model's declared ones; its default if not
        given.

    References
    ----------
    Muhammad, Yeasin (2020). Eigen-CAM: class activation map using principal
    components. IJCNN. arXiv:2008.00299, eq. 3 to 5.
    """

    title: ClassVar = "Eigen-CAM"
    needs: ClassVar = frozenset({Ability.FORWARD, Ability.ACTIVATIONS})
    signed: ClassVar = False
    marks_alike: ClassVar = True
    paper: ClassVar = "Muhammad, Yeasin (2020), arXiv:2008.00299, eq. 3-5"
    cost: ClassVar = "1 forward row"
    weaknesses: ClassVar = (
        "It does not ask about the target: the map is the same for all, and shows what is "
        "strongest in the layer, whether or not the score depends on it."
    )

    @override
    def estimate(self, shape: Sequence[int], targets: int) -> Cost:
        """Return one forward row."""
        return Cost(forward_rows=1)

    @override
    def plan(self, image: Tensor, targets: Targets) -> Plan[Maps]:
        """Attribute `image`, shape ``(C, *spatial)``; maps ``(K, 1, *grid)`` of the layer."""
        tap = Tap(self.place)
        # scores are asked for too: one that is not finite must fail here as elsewhere
        step: Step = yield Forward(Clean(image), targets, taps=(tap,))
        features = step.taps[tap][0]
        require_grid(features, image)
        component, explained = _first_component(features.double().flatten(1))
        values = component.reshape(1, 1, *features.shape[1:]).to(features.dtype)
        values = values.repeat(len(targets), *(1,) * image.dim())
        return on_grid(values, image, ({"explained": explained},) * len(targets))


def _first_component(features: Tensor) -> tuple[Tensor, float]:
    """Return ``F v_1``, shape ``(cells,)``, of features ``(channels, cells)``, and its share."""
    wide = features.shape[0] <= features.shape[1]
    # the smaller of the two products has the same eigenvalues, and costs least
    product = features @ features.T if wide else features.T @ features
    eigenvalues, vectors = torch.linalg.eigh(product)
    first = vectors[:, -1]
    strength = eigenvalues[-1].clamp(min=0)
    component = first @ features if wide else first * strength.sqrt()
    energy = eigenvalues.clamp(min=0).sum().item()
    share = strength.item() / energy if energy > 0 else 0.0
    return (-component if component.sum() < 0 else component), share
