"""What methods share that follow a transformer's attention from block to block."""

from typing import ClassVar, Self

import torch
from pydantic import PrivateAttr
from torch import Tensor
from typing_extensions import override

from service.errors.models import MethodError
from workers.methods.base import Maps, Method, ModelFacts, cells
from workers.tokens import Tokens


class AttentionMethod(Method):
    """A map of how much each patch reaches the token from which the score is read."""

    signed: ClassVar = False

    _tokens: Tokens | None = PrivateAttr(default=None)
    _attentions: tuple[str, ...] = PrivateAttr(default=())

    @override
    def settled(self, model: ModelFacts) -> Self:
        """Return this method with the places of the model's attention and tokens."""
        method = self.model_copy()
        method._tokens = model.tokens  # noqa: SLF001 - its own copy
        method._attentions = model.attentions  # noqa: SLF001 - its own copy
        return method

    @property
    def places(self) -> tuple[str, ...]:
        """The places of attention weights, from the first block on, once they are settled."""
        if not self._attentions:
            raise MethodError(f"{self.name} was planned before its model was known.")
        return self._attentions

    def maps(self, relevance: Tensor, image: Tensor) -> Maps:
        """Return maps ``(K, 1, *grid)`` of patches.

        Parameters
        ----------
        relevance
            What reaches each token (rows) from each (columns), shape
            ``(K, tokens, tokens)``.
        """
        tokens = self._tokens
        if tokens is None:
            raise MethodError(f"{self.name} was planned before its model was known.")
        patches = relevance[:, :, tokens.prefix :]
        read = patches[:, 0] if tokens.reads_class else patches[:, tokens.prefix :].mean(1)
        values = read.reshape(len(read), 1, *tokens.grid).to(image.dtype)
        return Maps(values, cells(image.shape[1:], tokens.grid))


def start(attention: Tensor, targets: int) -> Tensor:
    """Return the relevance before the first block: of each token, itself alone.

    Parameters
    ----------
    attention
        Of some block, shape ``(..., tokens, tokens)``.

    Returns
    -------
    Tensor
        Shape ``(targets, tokens, tokens)``, float64.
    """
    identity = torch.eye(attention.shape[-1], dtype=torch.float64, device=attention.device)
    return identity.expand(targets, -1, -1)
