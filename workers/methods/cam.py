"""What class activation maps share: a target layer, and its channels summed with weights."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Final, Self

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from service.errors.models import MethodError
from service.errors.requests import InvalidParameter, MissingAbility
from workers.methods.base import Maps, Method, ModelFacts, cells, scored, zeros
from workers.passes import Ability, Cost, Gradient, Plan, Step, Targets, TimeUp
from workers.rows import Clean, Rows

SHARE: Final = 0.25
"""Fewest channels of a partial map: on the demo model Score-CAM and Ablation-CAM then correlate
with the full map at 0.98 (median of eight maps; the least 0.91)."""

INTERPOLATION: Final = {1: "linear", 2: "bilinear", 3: "trilinear"}
"""By number of spatial axes."""


class CamMethod(Method):
    """A map made of one layer's output, on the layer's own grid.

    Parameters
    ----------
    layer
        The layer, out of the model's declared ones; its default if not given.
    """

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
            raise MissingAbility(f"{self.name} needs a target layer; the model has no usable one.")
        if self.layer is None:
            return self.model_copy(update={"layer": model.layers[0]})
        if self.layer not in model.layers:
            raise InvalidParameter(
                "The model offers no such target layer; 'valid' lists those it does.",
                parameter="layer",
                valid=list(model.layers),
            )
        return self

    @property
    def place(self) -> str:
        """The layer, once it is settled."""
        if self.layer is None:
            raise MethodError(f"{self.name} was planned before its layer was settled.")
        return self.layer


class ChannelCam(CamMethod):
    """A map whose channels are tried one by one, the strongest first, up to a cap.

    Parameters
    ----------
    layer
        The layer, out of the model's declared ones; its default if not given.
    channels
        Most channels that are tried.
    """

    partial_map: ClassVar = True

    channels: int = Field(default=256, ge=1, le=4096, description="Most channels that are tried.")

    def chosen(self, strength: Tensor) -> Tensor:
        """Return the strongest channels, these first; none is without strength."""
        order = strength.argsort(descending=True, stable=True)
        return order[: min(self.channels, int((strength > 0).sum()))]

    def tried(self, rows: Rows, targets: Targets, image: Tensor) -> Plan[tuple[Tensor, bool]]:
        """Ask for the scores of a row for each channel.

        Returns
        -------
        tuple[Tensor, bool]
            As `scored`, of a `SHARE` of the rows at least.
        """
        if not rows.count:
            return zeros((0, len(targets)), image), False
        scores, late = yield from scored(rows, targets, image)
        if len(scores) < SHARE * rows.count:
            raise TimeUp
        return scores, late

    def capped(
        self, features: Tensor, weights: Tensor, chosen: Tensor, image: Tensor, *, partial: bool
    ) -> Maps:
        """Return maps of the chosen channels, and say how many they are.

        Parameters
        ----------
        features
            The layer's output, shape ``(channels, *grid)``.
        weights
            One for each of the first chosen channels and target, shape ``(n, K)``.
        """
        whole = weights.new_zeros(weights.shape[1], len(features), dtype=torch.float64)
        whole[:, chosen[: len(weights)]] = weights.double().T
        figures = {"channels": float(len(weights)), "channels_of_layer": float(len(features))}
        maps = on_grid(weighted(features, whole), image, (figures,) * len(whole))
        return replace(maps, partial=partial)


class GradientCam(CamMethod):
    """A map of one layer's output and of the gradients there."""

    needs: ClassVar = frozenset({Ability.LAYER_GRADIENT})
    cost: ClassVar = "1 gradient row"

    @override
    def estimate(self, shape: Sequence[int], targets: int) -> Cost:
        """Return one gradient row."""
        return Cost(gradient_rows=1)

    @override
    def plan(self, image: Tensor, targets: Targets) -> Plan[Maps]:
        """Attribute `image`, shape ``(C, *spatial)``; maps ``(K, 1, *grid)`` of the layer."""
        step: Step = yield Gradient(Clean(image), targets, at=(self.place,))
        features = step.activations[self.place][0]
        require_grid(features, image)
        return on_grid(self.combined(features, step.gradients[self.place][0]), image)

    @abstractmethod
    def combined(self, features: Tensor, gradients: Tensor) -> Tensor:
        """Return maps ``(K, 1, *grid)`` in the type of `features`.

        Parameters
        ----------
        features
            The layer's output, shape ``(channels, *grid)``.
        gradients
            Of each target there, shape ``(K, channels, *grid)``.
        """


def require_grid(features: Tensor, image: Tensor) -> None:
    """Raise `MethodError` unless features ``(channels, *grid)`` have the image's axes."""
    if features.dim() != image.dim():
        raise MethodError("The target layer's output has no spatial grid.")


def on_grid(values: Tensor, image: Tensor, extras: Sequence[dict[str, float]] = ()) -> Maps:
    """Return maps ``(K, 1, *grid)`` of a layer whose equal cells cover `image`."""
    return Maps(values, cells(image.shape[1:], values.shape[2:]), tuple(extras))


def pooled(gradients: Tensor) -> Tensor:
    """Return the mean over the grid, float64, shape ``(K, channels)``.

    Parameters
    ----------
    gradients
        Shape ``(K, channels, *grid)``.
    """
    return gradients.double().flatten(2).mean(2)


def enlarged(values: Tensor, spatial: Sequence[int]) -> Tensor:
    """Return `values`, shape ``(N, channels, *grid)``, linearly enlarged to `spatial`."""
    mode = INTERPOLATION[len(spatial)]
    return functional.interpolate(values, tuple(spatial), mode=mode, align_corners=False)


def weighted(activations: Tensor, weights: Tensor) -> Tensor:
    """Return the signed sum over channels.

    Parameters
    ----------
    activations
        A layer's output on one row, shape ``(channels, *grid)``.
    weights
        One weight to a channel and target, shape ``(K, channels)``.

    Returns
    -------
    Tensor
        Shape ``(K, 1, *grid)``.
    """
    # thousands of channels of both signs nearly cancel: float32 would lose two digits
    flat = weights.double() @ activations.flatten(1).double()
    return flat.reshape(len(weights), 1, *activations.shape[1:]).to(activations.dtype)


def summed(activations: Tensor, weights: Tensor) -> Tensor:
    """Return the sum over channels with a weight of its own at every cell.

    Parameters
    ----------
    activations
        A layer's output on one row, shape ``(channels, *grid)``.
    weights
        Shape ``(K, channels, *grid)``.

    Returns
    -------
    Tensor
        Shape ``(K, 1, *grid)``.
    """
    products = weights.double() * activations.double()
    return products.sum(1, keepdim=True).to(activations.dtype)
