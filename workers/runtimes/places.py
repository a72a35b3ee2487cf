"""Which layers of a network lie over the image, tokens among them; and what is told of others."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

from torch import Tensor, nn

from service.domain.tokens import MOST_BEFORE
from service.errors.models import InvalidPackage
from workers.runtimes.placement import Placement, not_over_image
from workers.runtimes.torch_layers import put_out
from workers.tokens import Tokens

AXES: Final = 3
"""Of tokens: rows, tokens, and a token's numbers."""

ASTRAY: Final = (
    "The network's tokens could not be shown to lie as 'tokens' says: when the image changes at one"
    " cell, that cell's token must change far more than any other, and does not. Count the"
    " tokens before the patches ('prefix'), and give the patches along each axis in the image's"
    " order, rows first. Of patches that overlap, as those of a convolution with a stride below its"
    " kernel or of several convolutions, the layout often cannot be shown: then leave 'tokens' out."
)


class Places:
    """Which layers of a network lie over the image.

    Parameters
    ----------
    model
        In evaluation mode; it is run one row at a time.
    pair
        Two images of noise, shape ``(2, C, *spatial)``.
    tokens
        Where a transformer's tokens lie, if it has some.

    Raises
    ------
    InvalidPackage
        A package says that tokens lie otherwise than they do.
    """

    def __init__(self, model: nn.Module, pair: Tensor, tokens: Tokens | None) -> None:
        self._axes = pair.dim()
        self._tokens = tokens
        self._plain = Placement(model, pair)
        self._said = None
        if tokens is not None and tokens.said:
            self._said = _tried(model, pair, tokens)

    def astray(self, layer: str, output: Tensor) -> str:
        """Return why a layer's cells do not lie over the image; nothing if they do, or has none."""
        if self._tokens is not None and self._tokens.fit(output):
            placed = self._said is None or self._said.holds(layer)
            return "" if placed else tokens_astray(layer)
        if output.dim() != self._axes or self._plain.holds(layer):
            return ""
        return not_over_image(layer, output.shape[1:])


def tokens_astray(layer: str) -> str:
    """Return what is told of a layer whose tokens do not lie as a package says."""
    return (
        f"The tokens of '{layer}' do not lie over the image as 'tokens' says: when it changes at"
        " one cell, other tokens than that cell's change the most. Name the output of a block or"
        " norm, or mend 'tokens'."
    )


def _tried(model: nn.Module, pair: Tensor, tokens: Tokens) -> Placement:
    """Return where tokens lie, if it is anywhere as a package says.

    Raises
    ------
    InvalidPackage
        It is not.
    """
    outputs = put_out(model, pair[:1])
    if (absent := _absent(tokens, outputs)) is not None:
        pointer, why = absent
        raise InvalidPackage(why, pointer=f"/tokens{pointer}")
    placement = Placement(model, pair, tokens)
    for place, grid in enumerate(tokens.grids):
        if not any(map(placement.holds, placement.on(grid))):
            raise InvalidPackage(
                ASTRAY, pointer=f"/tokens/stages/{place}" if tokens.stages else "/tokens"
            )
    return placement


def _absent(tokens: Tokens, outputs: Sequence[Tensor]) -> tuple[str, str] | None:
    """Return the field of tokens that most layers do not put out, and what is told of it."""
    if tokens.stages:
        return _absent_stage(tokens, outputs)
    listed = [each for each in outputs if each.dim() == AXES and len(each) == 1]
    alike = [each for each in listed if tokens.width in {0, each.shape[2]}]
    counts = Counter(each.shape[1] for each in alike)
    if not counts or counts[tokens.count] == max(counts.values()):
        return None if counts else ("", "The network has no layer that puts out tokens.")
    cells, found = " x ".join(map(str, tokens.grid)), max(counts, key=counts.__getitem__)
    why = (
        f"Most of the network's layers put out {found} tokens, and {tokens.prefix} before a grid of"
        f" {cells} are {tokens.count}"
    )
    before = found - math.prod(tokens.grid)
    if 0 <= before <= MOST_BEFORE:
        return "/prefix", f"{why}: 'prefix' is {before}, if the grid is right."
    return "/grid", f"{why}: mend 'grid', or 'prefix'."


def _absent_stage(tokens: Tokens, outputs: Sequence[Tensor]) -> tuple[str, str] | None:
    """Return what `_absent` does of stages: one without a layer, or with other tokens behind all.

    Other tokens are as wide as those of the last layer that fits; what was merely transposed is
    not. Blocks of those would have no layer, and maps be made before the first of them.
    """
    for place, grid in enumerate(tokens.grids):
        if all(tokens.grid_of(each) != grid for each in outputs):
            cells = " x ".join(map(str, grid))
            return f"/stages/{place}", f"No layer puts out tokens on a grid of {cells} cells."
    last = max(number for number, each in enumerate(outputs) if tokens.fit(each))
    for each in outputs[last + 1 :]:
        count = each.shape[1] if each.dim() == AXES and len(each) == 1 else 1
        if count > 1 and each.shape[2] == outputs[last].shape[-1]:
            return "", (
                f"Behind the last layer with tokens of 'stages' the network goes on with {count}"
                " others, as many as no stage has. Name every stage; or, where tokens keep their"
                " number and some are no patch's, give 'prefix' and 'grid' in place of 'stages'."
            )
    return None
