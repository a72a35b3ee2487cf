"""Grad-CAM: a layer's channels weighted by their pooled gradients."""

from collections.abc import Sequence
from typing import ClassVar, Self

from pydantic import Field
from torch import Tensor
from typing_extensions import override

from service.errors import InvalidParameter, MethodError, MissingAbility
from workers.methods.base import METHODS, Maps, Method, ModelFacts, cells
from workers.methods.cam import weighted
from workers.passes import Ability, Cost, Gradient, Plan, Step, Targets
from workers.rows import Clean


@METHODS.register("grad_cam")
class GradCam(Method):
    r"""Gradient-weighted class activation map of one layer, with its sign.

    .. math:: A = \sum_c \alpha_c F_c, \qquad
              \alpha_c = \frac{1}{|\Omega|} \sum_{u \in \Omega}
              \frac{\partial f}{\partial F_c(u)}

    The map stays on the layer's own grid, and evidence against the target
    stays negative; the paper's rectification and the enlargement are matters
    of display.

    Parameters
    ----------
    layer
        The layer `F`, out of the model's declared ones; its default if not
        given.

    References
    ----------
    Selvaraju et al. (2017). Grad-CAM: visual explanations from deep networks
    via gradient-based localization. ICCV. arXiv:1610.02391, eq. 1 and 2.
    """

    title: ClassVar = "Grad-CAM"
    needs: ClassVar = frozenset({Ability.LAYER_GRADIENT})
    signed: ClassVar = True
    paper: ClassVar = "Selvaraju et al. (2017), arXiv:1610.02391, eq. 1-2"
    cost: ClassVar = "1 gradient row"
    weaknesses: ClassVar = (
        "As coarse as the layer's grid: small findings share a cell with their surroundings. "
        "Averaged gradients can point to places that did not raise the score."
    )

    layer: str | None = Field(
        default=None,
        max_length=200,
        description="Target layer, out of the model's declared ones; default: the model's.",
    )

    @override
    def settled(self, model: ModelFacts) -> Self:
        """Return this method with the model's default layer where none was given.

        Raises
        ------
        MissingAbility
            If the model has no usable layer.
        InvalidParameter
            If it has no usable layer of the given name.
        """
        if not model.layers:
            raise MissingAbility("grad_cam needs a target layer; the model has no usable one.")
        if self.layer is None:
            return self.model_copy(update={"layer": model.layers[0]})
        if self.layer not in model.layers:
            raise InvalidParameter(
                "The model has no such target layer.",
                parameter="layer",
                valid=list(model.layers),
            )
        return self

    @override
    def estimate(self, shape: Sequence[int], targets: int) -> Cost:
        """Return one gradient row."""
        return Cost(gradient_rows=1)

    @override
    def plan(self, image: Tensor, targets: Targets) -> Plan[Maps]:
        """Attribute `image`, shape ``(C, *spatial)``; maps ``(K, 1, *grid)`` of the layer."""
        if self.layer is None:
            raise MethodError("grad_cam was planned before its layer was settled.")
        step: Step = yield Gradient(Clean(image), targets, at=(self.layer,))
        features = step.activations[self.layer][0]
        if features.dim() != image.dim():
            raise MethodError("The target layer's output has no spatial grid.")
        weights = step.gradients[self.layer][0].double().flatten(2).mean(2)
        return Maps(weighted(features, weights), cells(image.shape[1:], features.shape[1:]))
