"""Whether DeepLIFT's contributions add up on a network: tried, never believed.

captum knows non-linearities by their modules. What is reused stops it; what is
written as a function, or has no rule, is passed as if it were linear, and
nothing tells.
"""

from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor, nn

from workers.twins import Scored, separated, twin

TOLERANCE: Final = 1e-3
"""Share of the change in score by which contributions may miss it.

Rounding leaves less than a hundredth of it; a single rectifier that is passed
as if it were linear, some percent.
"""

MISSING: Final = "captum, an optional extra by which it is computed, is not installed here."
BROKEN: Final = "DeepLIFT stops at this network; most often a module is used more than once."
SHORT: Final = (
    "DeepLIFT's contributions miss the change in score by {share:.2g} of it, and "
    f"{TOLERANCE} is allowed: some non-linearity is no module of its own, or has no rule."
)


class Mix:
    """All outputs with weights of their own: what holds for it holds for each of them."""

    weights = None

    def __call__(self, outputs: Tensor) -> Tensor:
        """Return one number to a row."""
        flat = outputs.flatten(1)
        return flat @ torch.linspace(1, 2, flat.shape[1]).to(flat)


def rescale_fault(model: nn.Module, rows: Tensor) -> str | None:
    """Return why the rescale rule cannot be applied to a network, or `None` when it can.

    Parameters
    ----------
    model
        It is not changed: a twin is hooked.
    rows
        Shape ``(n, C, *spatial)``; contributions are taken from each to the next.
    """
    try:
        from captum.attr import DeepLift  # noqa: PLC0415 - an optional extra
    except ImportError:
        return MISSING
    try:
        share = _shortfall(DeepLift, model, rows)
    except Exception:  # noqa: BLE001 - whatever stops it, the method cannot be served
        return BROKEN
    return None if share <= TOLERANCE else SHORT.format(share=share)


def _shortfall(engine: Any, model: nn.Module, rows: Tensor) -> float:
    """Return by how much contributions miss changes, as a share of the largest change."""
    mix = Mix()
    scored = separated(Scored(twin(model), mix))
    missed, changes = [], []
    for start, end in pairwise(rows.split(1)):
        with torch.no_grad():
            change = (mix(model(end)) - mix(model(start))).double()
        total = engine(scored).attribute(end, start).double().sum()
        missed.append((total - change).abs())
        changes.append(change.abs())
    share = torch.stack(missed).max() / torch.stack(changes).max()
    return share.nan_to_num(nan=torch.inf).item()
