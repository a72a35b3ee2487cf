"""What methods share that need the model itself: lent for one target at a time."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from traceback import clear_frames
from typing import ClassVar, Final

import torch
from torch import Tensor
from typing_extensions import override

from workers.device import is_out_of_memory, release_memory
from workers.methods.base import Maps, Method, add_rows, cells, require_half, zeros
from workers.passes import Exclusive, Forward, Lease, Plan, Scalar, Step, Targets, TimeUp
from workers.rows import Clean, Rows
from workers.twins import Scored, twin

SECONDS: Final = 60.0
"""Longest time that one call may take; nobody else has the model meanwhile."""

ROWS: Final = 4
"""Most rows of one call: the scheduler cuts no lent work to what the memory holds."""

FEWEST: Final = 16
"""Gradient rows of each target that make a partial map; half of them if they are fewer."""

Part = Callable[[Scored], Tensor]
"""One call, which may hook the twin it is given; its maps, shape ``(n, C, *spatial)``."""


class LentMethod(Method):
    """A map that shares out the change in score from a reference, or from several, to the image.

    The model is given back after each call, so that other jobs get their turns
    and a job that is cancelled or late ends. All hooks are set on a twin of it.
    `score`, `baseline_score` (the mean over the references), their difference
    `score_change`, the map's `sum`, the `residual`, sum minus change, and the
    `gradient_rows` are returned for each target. When time is up, a method of
    several calls returns the mean over those done so far, marked as partial, if
    there are enough of every target.
    """

    signed: ClassVar = True

    @override
    def plan(self, image: Tensor, targets: Targets) -> Plan[Maps]:
        """Attribute `image`, shape ``(C, *spatial)``; maps ``(K, C, *spatial)``."""
        end, starts = yield (
            Forward(Clean(image), targets),
            Forward(self.references(image), targets),
        )
        sums = [_Sum(target, self.parts(image), zeros(image.shape, image)) for target in targets]
        calls, late = len(sums[0].parts), False
        rows = self.estimate(image.shape, 1).gradient_rows // calls
        try:
            for call in range(calls):
                for each in sums:
                    work = partial(_called, each.target, each.parts[call])
                    each.add((yield Exclusive(work, SECONDS, rows)))
        except TimeUp:
            late = True
            require_half(rows * sums[-1].calls, rows * calls, FEWEST)
        maps = torch.stack([each.total / each.count for each in sums])
        spatial = image.shape[1:]
        figures = tuple(
            {**said, "gradient_rows": float(each.calls * rows)}
            for said, each in zip(_figures(end, starts, maps), sums, strict=True)
        )
        return Maps(maps.to(image.dtype), cells(spatial, spatial), figures, partial=late)

    @abstractmethod
    def references(self, image: Tensor) -> Rows:
        """Return the reference images, as rows."""

    @abstractmethod
    def parts(self, image: Tensor) -> Sequence[Part]:
        """Return calls of `ROWS` rows at most, in order; their mean is the map of one target."""


@dataclass(slots=True, eq=False)
class _Sum:
    """What the calls for one target have given so far."""

    target: Scalar
    parts: Sequence[Part]
    total: Tensor
    """Float64, shape ``(C, *spatial)``."""

    calls: int = 0
    count: int = 0
    """Maps that were added."""

    def add(self, some: Tensor) -> None:
        """Add what the next call gave, shape ``(n, C, *spatial)``."""
        add_rows(self.total, some)
        self.calls += 1
        self.count += len(some)


def _called(target: Scalar, part: Part, lease: Lease) -> Tensor:
    """Return what one call gives.

    Raises
    ------
    TimeUp
        It took too long.
    """
    made = part(Scored(twin(lease.model), target)).detach()
    lease.check()
    return made


def as_fit(rows: Tensor, work: Callable[[Tensor], Tensor]) -> Tensor:
    """Return what `work` makes of rows; of half of them at a time where memory is full.

    Raises
    ------
    Exception
        What `work` raised; also when not even one row fits.
    """
    try:
        return work(rows)
    except Exception as error:
        if len(rows) == 1 or not is_out_of_memory(error):
            raise
        clear_frames(error.__traceback__)  # else they keep the failed call's tensors alive
    release_memory(rows.device)
    return torch.cat([as_fit(half, work) for half in rows.tensor_split(2)])


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
