"""What class activation maps share: a target layer, and its channels summed with weights."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr
from torch import Tensor
from typing_extensions import override

from service.domain.grid import scaling
from service.domain.network import LayerCells
from service.errors.models import MethodError
from service.errors.requests import InvalidParameter, MissingAbility
from workers.methods.base import Maps, Method, ModelFacts, cells
from workers.passes import Ability, Cost, Gradient, Plan, Step, Targets
from workers.rows import Clean


class CamMethod(Method):
    """A map made of one layer's output, on the layer's own grid.

    A cell lies where its receptive field is centered, as far as that is known of the layer.

    Parameters
    ----------
    layer
        The layer, out of the model's declared ones; its default if not given.
    """

    version: ClassVar[int] = 2
    """Of version 1 cells were tiles of the image."""

    layer: str | None = Field(
        default=None,
        max_length=200,
        description="Target layer, out of the model's declared ones; default: the model's.",
    )

    _cells: LayerCells | None = PrivateAttr(default=None)

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
        layer = model.layers[0] if self.layer is None else self.layer
        if layer not in model.layers:
            raise InvalidParameter(
                "The model offers no such target layer; 'valid' lists those it does.",
                parameter="layer",
                valid=list(model.layers),
            )
        method = self.model_copy(update={"layer": layer})
        method._cells = model.cells.get(layer)  # noqa: SLF001 - its own copy
        return method

    @property
    def place(self) -> str:
        """The layer, once it is settled."""
        if self.layer is None:
            raise MethodError(f"{self.name} was planned before its layer was settled.")
        return self.layer

    def affine(self, grid: Sequence[int], image: Tensor) -> NDArray[np.float64]:
        """Return cell index to model-input index, of a layer's grid over an image.

        Of one of several views, its own axes come last.
        """
        if self._cells is None:
            return cells(image.shape[1:], grid)
        axes = len(grid)
        return scaling(self._cells.spacing[-axes:], self._cells.first[-axes:])

    def on_grid(
        self, values: Tensor, image: Tensor, extras: Sequence[dict[str, float]] = ()
    ) -> Maps:
        """Return maps ``(K, 1, *grid)`` of the layer, of an image ``(C, *spatial)``."""
        return Maps(values, self.affine(values.shape[2:], image), tuple(extras))


class ChannelCam(CamMethod):
    """A map whose channels are tried one by one, up to a cap.

    Parameters
    ----------
    layer
        The layer, out of the model's declared ones; its default if not given.
    channels
        Most channels that are tried.
    """

    channels: int = Field(default=256, ge=1, le=4096, description="Most channels that are tried.")

    def chosen(self, strength: Tensor) -> Tensor:
        """Return the strongest channels, ascending; those without strength are not among them."""
        order = strength.argsort(descending=True, stable=True)
        return order[: min(self.channels, int((strength > 0).sum()))].sort().values

    def capped(self, features: Tensor, weights: Tensor, chosen: Tensor, image: Tensor) -> Maps:
        """Return maps of the chosen channels, and say how many they are.

        Parameters
        ----------
        features
            The layer's output, shape ``(channels, *grid)``.
        weights
            One for each chosen channel and target, shape ``(n, K)``.
        """
        whole = weights.new_zeros(weights.shape[1], len(features), dtype=torch.float64)
        whole[:, chosen] = weights.double().T
        figures = {"channels": float(len(chosen)), "channels_of_layer": float(len(features))}
        return self.on_grid(weighted(features, whole), image, (figures,) * len(whole))


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
        return self.on_grid(self.combined(features, step.gradients[self.place][0]), image)

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


def pooled(gradients: Tensor) -> Tensor:
    """Return the mean over the grid, float64, shape ``(K, channels)``.

    Parameters
    ----------
    gradients
        Shape ``(K, channels, *grid)``.
    """
    return gradients.double().flatten(2).mean(2)


def enlarged(values: Tensor, spatial: Sequence[int], affine: NDArray[np.float64]) -> Tensor:
    """Return maps interpolated linearly between the centers of their cells, at every pixel.

    Before the first center and past the last one the border cell's value holds.

    Parameters
    ----------
    values
        Shape ``(N, channels, *grid)``.
    spatial
        Shape of the image.
    affine
        Cell index to the image's index, along its axes.
    """
    for axis, pixels in enumerate(spatial):
        shares = _shares(values.shape[axis + 2], pixels, affine[axis, axis], affine[axis, -1])
        along = torch.from_numpy(shares).to(values)
        values = (values.movedim(axis + 2, -1) @ along).movedim(-1, axis + 2)
    return values


def _shares(count: int, pixels: int, step: float, first: float) -> NDArray[np.float64]:
    """Return the share of each cell in each pixel, shape ``(cells, pixels)``."""
    at = np.clip((np.arange(pixels) - first) / step, 0, count - 1)
    shares: NDArray[np.float64] = np.clip(1 - np.abs(at - np.arange(count)[:, None]), 0, None)
    return shares


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
