"""What methods share that need the model itself: lent for one target at a time."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from traceback import clear_frames
from typing import ClassVar, Final

import torch
from torch import Tensor
from typing_extensions import override

from workers.device import is_out_of_memory, release_memory
from workers.methods.base import Maps, Method, cells
from workers.passes import Exclusive, Forward, Lease, Plan, Step, Targets
from workers.rows import Clean, Rows
from workers.twins import Scored, twin

SECONDS: Final = 60.0
"""Longest time for which the model is lent for one target."""

ROWS: Final = 4
"""Most rows of one call: the scheduler cuts no lent work to what the memory holds."""


class LentMethod(Method):
    """A map that shares out the change in score from a reference, or from several, to the image.

    The model is given back between two targets, so that other jobs get their
    turns. All hooks are set on a twin of it. `score`, `baseline_score` (the
    mean over the references), their difference `score_change`, the map's `sum`
    and the `residual`, sum minus change, are returned for each target.
    """

    signed: ClassVar = True

    @override
    def plan(self, image: Tensor, targets: Targets) -> Plan[Maps]:
        """Attribute `image`, shape ``(C, *spatial)``; maps ``(K, C, *spatial)``."""

        def work(lease: Lease, target: int) -> Tensor:
            lease.check()
            return self.shared_out(lease, Scored(twin(lease.model), targets[target]), image)

        end, starts, *made = yield (
            Forward(Clean(image), targets),
            Forward(self.references(image), targets),
            *(Exclusive(partial(work, target=k), SECONDS) for k in range(len(targets))),
        )
        maps = torch.stack(made).detach()
        spatial = image.shape[1:]
        return Maps(maps.to(image.dtype), cells(spatial, spatial), _figures(end, starts, maps))

    @abstractmethod
    def references(self, image: Tensor) -> Rows:
        """Return the reference images, as rows."""

    @abstractmethod
    def shared_out(self, lease: Lease, scored: Scored, image: Tensor) -> Tensor:
        """Return the map ``(C, *spatial)`` of one target.

        Parameters
        ----------
        lease
            To be checked between two calls of the model.
        scored
            The twin, which may be hooked.
        """


def in_parts(
    lease: Lease, rows: Tensor, most: int, work: Callable[[Tensor], Tensor]
) -> Iterator[Tensor]:
    """Yield what `work` makes of rows, some at a time; fewer where memory is full.

    Parameters
    ----------
    most
        Most rows at a time; halved when so many do not fit.

    Raises
    ------
    TimeUp
        The lease has ended.
    Exception
        What `work` raised; also when not even one row fits.
    """
    start = 0
    while start < len(rows):
        lease.check()
        some = rows[start : start + most]
        try:
            made = work(some)
        except Exception as error:
            if len(some) == 1 or not is_out_of_memory(error):
                raise
            most = len(some) // 2
            clear_frames(error.__traceback__)  # else they keep the failed call's tensors alive
        else:
            start += len(some)
            yield made
            continue
        release_memory(rows.device)


def grays(image: Tensor, count: int) -> Tensor:
    """Return uniform images of every gray of `image`, evenly, shape ``(count, C, *spatial)``."""
    low, span = image.min(), image.max() - image.min()
    values = low + span * (torch.arange(count).to(image) + 0.5) / count
    return values.reshape(-1, *(1,) * image.dim()).expand(-1, *image.shape)


def _figures(end: Step, starts: Step, maps: Tensor) -> tuple[dict[str, float], ...]:
    """Return what each target's map should sum to, and what it does."""
    assert end.scores is not None  # noqa: S101 - both passes have targets
    assert starts.scores is not None  # noqa: S101 - likewise
    scores, bases = end.scores[0].double(), starts.scores.double().mean(0)
    sums = maps.double().flatten(1).sum(1)
    return tuple(
        {
            "score": score,
            "baseline_score": base,
            "score_change": score - base,
            "sum": whole,
            "residual": whole - (score - base),
        }
        for score, base, whole in zip(scores.tolist(), bases.tolist(), sums.tolist(), strict=True)
    )
