"""CAM: a layer's channels weighted by the linear head's own weights."""

from dataclasses import replace
from typing import ClassVar, Self

from torch import Tensor
from typing_extensions import override

from workers.methods.base import METHODS, ModelFacts
from workers.methods.cam import GradientCam, weighted
from workers.passes import Ability


@METHODS.register("class_activation_map")
class ClassActivationMap(GradientCam):
    r"""Class activation map of a model with global average pooling and a linear head.

    .. math:: A = \sum_c w_c F_c, \qquad
              f(x) = b + \sum_c w_c \frac{1}{|\Omega|} \sum_{u \in \Omega} F_c(u)

    The map's mean is the score without its bias, exactly: of such a model it
    is the score itself, before its places are forgotten. The weights are read
    off the gradient at `F`, which is ``w / |Omega|`` everywhere; when the
    model is loaded it is tried whether scores are such a function of `F`, so
    that any way to write the head will do, and no other head is taken for one.

    Parameters
    ----------
    layer
        The layer `F`, out of those that such a head follows; the first of them
        if not given.

    References
    ----------
    Zhou, Khosla, Lapedriza, Oliva, Torralba (2016). Learning deep features for
    discriminative localization. CVPR. arXiv:1512.04150, eq. 1 and 2.
    """

    title: ClassVar = "CAM"
    needs: ClassVar = frozenset({Ability.LAYER_GRADIENT, Ability.LINEAR_HEAD})
    signed: ClassVar = True
    marks_alike: ClassVar = True
    linear: ClassVar = True
    paper: ClassVar = "Zhou et al. (2016), arXiv:1512.04150, eq. 1-2"
    weaknesses: ClassVar = (
        "As coarse as the layer's grid, and each cell has seen all of its receptive field: what "
        "raised the score there may lie beside the cell."
    )

    @override
    def settled(self, model: ModelFacts) -> Self:
        """Return this method with the first layer that has a linear head where none was given."""
        return super().settled(replace(model, layers=model.linear_heads))

    @override
    def combined(self, features: Tensor, gradients: Tensor) -> Tensor:
        """Return maps ``(K, 1, *grid)``."""
        return weighted(features, gradients.double().flatten(2).sum(2))
