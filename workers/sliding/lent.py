"""A model that is lent, run window by window."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from service.domain.inputs import SlidingWindow
from workers.passes import Exclusive, Lease
from workers.tiling import Tiling


def led(ask: Exclusive, rules: SlidingWindow) -> Exclusive:
    """Return work to which the model is lent as one that takes whole images."""
    return replace(ask, work=partial(_lent, rules, ask.work))


class _Windowed(nn.Module):
    """A model that is lent, run window by window; without gradients."""

    def __init__(self, lease: Lease, rules: SlidingWindow) -> None:
        super().__init__()
        self._lease = lease
        self._rules = rules

    @override
    def forward(self, batch: Tensor) -> Tensor:
        """Return the answer on ``(1, C, *spatial)``: blended logits, or every window's own."""
        tiling = Tiling(self._rules, tuple(batch.shape[2:]))
        answers = self._answers(tiling, tiling.padded(batch))
        if self._rules.blend == "none":
            return torch.stack(list(answers), 1)
        total: Tensor | None = None
        for window, logits in enumerate(answers):
            if total is None:
                total = logits.new_zeros(*logits.shape[:2], *tiling.extent)
            total[:, :, *tiling.boxes[window]] += tiling.share(window).to(logits) * logits
        assert total is not None  # noqa: S101 - there is a window
        return total[:, :, *tiling.inner]

    def _answers(self, tiling: Tiling, padded: Tensor) -> Iterator[Tensor]:
        """Yield what each window says."""
        for box in tiling.boxes:
            self._lease.check()
            yield self._lease.model(padded[:, :, *box])


def _lent(rules: SlidingWindow, work: Callable[[Lease], Any], lease: Lease) -> Any:
    """Lend a model that is run window by window."""
    return work(Lease(_Windowed(lease, rules), lease.until))
