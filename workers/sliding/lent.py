"""A model that is lent, run window by window."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from service.domain.inputs import SlidingWindow
from workers.passes import Exclusive, Lease
from workers.sliding.tiling import Tiling


def led(ask: Exclusive, rules: SlidingWindow) -> Exclusive:
    """Return work to which the model is lent as one that takes whole images."""
    return Exclusive(partial(_lent, rules, ask.work), ask.seconds)


class _Blended(nn.Module):
    """A model that is lent, run window by window; without gradients."""

    def __init__(self, lease: Lease, rules: SlidingWindow) -> None:
        super().__init__()
        self._lease = lease
        self._rules = rules

    @override
    def forward(self, batch: Tensor) -> Tensor:
        """Return the blended logits of ``(1, C, *spatial)``."""
        tiling = Tiling(self._rules, tuple(batch.shape[2:]))
        padded = tiling.padded(batch)
        total: Tensor | None = None
        for window, box in enumerate(tiling.boxes):
            self._lease.check()
            logits: Tensor = self._lease.model(padded[:, :, *box])
            if total is None:
                total = logits.new_zeros(*logits.shape[:2], *tiling.extent)
            total[:, :, *box] += tiling.share(window).to(logits) * logits
        assert total is not None  # noqa: S101 - there is a window
        return total[:, :, *tiling.inner]


def _lent(rules: SlidingWindow, work: Callable[[Lease], Any], lease: Lease) -> Any:
    """Lend a model that is run window by window."""
    return work(Lease(_Blended(lease, rules), lease.until))
