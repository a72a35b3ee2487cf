"""Attention computed step by step, so that its weights can be seen.

Fused attention never holds them. Within this mode torch's attention functions
are replaced, and those that a network writes out are found by their softmax, for
one pass and one thread: the model is not touched, and every other pass keeps the
fused kernels.
"""

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from service.errors.models import UnservablePass

PREFIX: Final = "attention:"
"""What the places of attention weights begin with; no module path holds a colon."""

AXES: Final = 4
"""Of queries: rows, heads, tokens, and a head's own numbers."""


SOFTMAX: Final = frozenset(
    (torch.softmax, Tensor.softmax, functional.softmax, torch.special.softmax)
)


class Attentions(TorchFunctionMode):
    """Hands the weights of each attention, ``(rows, heads, tokens, tokens)``, to `take`.

    Parameters
    ----------
    take
        Called with a place, ``attention:0`` onwards in order of the calls, and
        the weights; returns what the model is to go on with, or `None` for
        the weights themselves.
    """

    def __init__(self, take: Callable[[str, object], Tensor | None]) -> None:
        super().__init__()
        self._take = take
        self._count = 0

    @override
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention:
            return self._scaled(*args, **(kwargs or {}))
        if func is functional.multi_head_attention_forward:
            return self._multi_head(*args, **(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        if func in SOFTMAX and _along_last(*args, **(kwargs or {})):
            return self._written_out(result)
        return result

    def _written_out(self, weights: Tensor) -> Tensor:
        """Return a softmax over the last axis, which is attention if its axes are."""
        if weights.dim() == AXES:
            return self._taken(weights)
        # of heads that are folded into the rows nobody knows how many there are
        _require(weights.dim() < AXES - 1 or weights.shape[-1] != weights.shape[-2])
        return weights

    def _scaled(  # noqa: PLR0917 - the parameters are torch's
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Replace the function of the same parameters."""
        _require(attn_mask is None and not (dropout_p or is_causal or enable_gqa))
        return self._weights(query, key, scale) @ value

    def _multi_head(  # noqa: PLR0917 - the parameters are torch's
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        embed_dim_to_check: int,
        num_heads: int,
        in_proj_weight: Tensor | None,
        in_proj_bias: Tensor | None,
        bias_k: Tensor | None,
        bias_v: Tensor | None,
        add_zero_attn: bool,
        dropout_p: float,
        out_proj_weight: Tensor,
        out_proj_bias: Tensor | None,
        training: bool = True,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        use_separate_proj_weight: bool = False,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        **_unused: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Replace the function of the same parameters, on tokens ``(tokens, rows, width)``."""
        _require(query is key and key is value and query.shape[2:] == (embed_dim_to_check,))
        _require(bias_k is None and bias_v is None and not (add_zero_attn or is_causal))
        _require(key_padding_mask is None and attn_mask is None and not use_separate_proj_weight)
        _require(in_proj_weight is not None and not (training and dropout_p))
        parts = functional.linear(query, in_proj_weight, in_proj_bias)  # type: ignore[arg-type]
        queries, keys, values = parts.unflatten(2, (3, num_heads, -1)).permute(2, 1, 3, 0, 4)
        weights = self._weights(queries, keys, None)
        seen = (weights @ values).permute(2, 0, 1, 3).flatten(2)
        mixed = functional.linear(seen, out_proj_weight, out_proj_bias)
        if not need_weights:
            return mixed, None
        return mixed, weights.mean(1) if average_attn_weights else weights

    def _weights(self, query: Tensor, key: Tensor, scale: float | None) -> Tensor:
        """Return the weights of queries and keys ``(rows, heads, tokens, numbers)``."""
        _require(query.dim() == AXES)
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        return self._taken((query @ key.transpose(-2, -1) * scale).softmax(-1))

    def _taken(self, weights: Tensor) -> Tensor:
        """Hand weights ``(rows, heads, tokens, tokens)`` over; return what to go on with."""
        passed = self._take(f"{PREFIX}{self._count}", weights)
        self._count += 1
        return weights if passed is None else passed


def _along_last(*args: Any, **kwargs: Any) -> bool:
    """Tell whether a softmax of these arguments, which are torch's, is over the last axis."""
    of = args[0] if args else kwargs["input"]
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    return dim in {-1, of.dim() - 1}


def _require(plain: bool) -> None:
    """Refuse what is not plain attention of all tokens to all: rollout would be wrong."""
    if not plain:
        raise UnservablePass("The model's attention has a form that cannot be looked into.")
