"""Numbers beside the image: how a network is given them, and how plans come by them.

A plan of an image alone knows nothing of them: `accompanied` puts the patient's own
values beside every row that it asks for. A method that shares the score out among
them as well says itself what stands beside which row.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from service.domain.manifest import Manifest
from service.domain.variable import Variable, VariableFact, VariableShare
from workers.passes import Exclusive, Lease, Pass, Plan
from workers.rows import Beside

R = TypeVar("R")


@dataclass(frozen=True, slots=True, eq=False)
class Tabular:
    """The values of one patient and their baseline, normalized as the model takes them."""

    values: Tensor
    """Shape ``(variables,)``."""

    baseline: Tensor
    """What their shares are counted from, shape ``(variables,)``."""

    @classmethod
    def of(cls, variables: Sequence[Variable], given: Sequence[float], like: Tensor) -> "Tabular":
        """Return values in their own units, normalized, in type and place of `like`."""
        pairs = list(zip(variables, given, strict=True))
        values = [each.normalized(value) for each, value in pairs]
        baseline = [each.normalized(each.baseline) for each, _ in pairs]
        return cls(*torch.tensor([values, baseline], dtype=torch.float64).to(like))

    @property
    def way(self) -> Tensor:
        """From the baseline to the values, shape ``(variables,)``."""
        return self.values - self.baseline

    def only(self, asked: Sequence[bool]) -> "Tabular | None":
        """Return them with those values as their own baseline that are not asked about.

        So they stay as they are; `None` where none is asked about.
        """
        if not any(asked):
            return None
        kept = torch.tensor(list(asked), device=self.values.device)
        return Tabular(self.values, torch.where(kept, self.baseline, self.values))

    def along(self, weights: Sequence[float]) -> Tensor:
        """Return points on the way from the baseline, shape ``(weights, variables)``."""
        shares = torch.tensor(weights, dtype=torch.float64).to(self.values)[:, None]
        return self.baseline + shares * self.way

    def without(self) -> Tensor:
        """Return the values with another one at its baseline in each row, ``(variables,) * 2``."""
        rows = self.values.expand(len(self.values), -1).clone()
        rows.diagonal().copy_(self.baseline)
        return rows


def shared(
    facts: Sequence[VariableFact], shares: Sequence[float], asked: Sequence[bool]
) -> tuple[VariableShare, ...]:
    """Return what each value that is asked about adds to the score, by name."""
    return tuple(
        VariableShare(key=each.key, label=each.label, relevance=float(share))
        for each, share, wanted in zip(facts, shares, asked, strict=True)
        if wanted
    )


# ---------------------------------------------------------------------- networks


@dataclass(frozen=True)
class Companions:
    """A hook that gives a network its numbers as tensors of their own, beside the image.

    Called with the image alone, as it is when it is probed, the network is given the
    baselines.
    """

    baseline: Tensor
    """As the model takes it, shape ``(variables,)``."""

    widths: tuple[int, ...]
    """Numbers of each tensor, in the order of the network's inputs."""

    @classmethod
    def of(cls, manifest: Manifest) -> "Companions":
        """Return what the manifest tells."""
        usual = [each.normalized(each.baseline) for each in manifest.variables]
        return cls(torch.tensor(usual), tuple(len(each.variables) for each in manifest.tabular))

    @classmethod
    def none(cls) -> "Companions":
        """Return those of a network that takes an image alone."""
        return cls(torch.zeros(0), ())

    @property
    def count(self) -> int:
        """How many numbers there are."""
        return sum(self.widths)

    def join(self, network: nn.Module) -> None:
        """Have a network take its numbers this way, if it takes any."""
        if self.count:
            network.register_forward_pre_hook(self)

    def __call__(self, _network: nn.Module | None, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return what the network is called with.

        Parameters
        ----------
        given
            The image and, if they are given, all numbers, shape ``(rows, variables)``.
        """
        image, *values = given
        beside = values[0] if values else self.baseline.to(image).expand(len(image), -1)
        return (image, *(beside.split(self.widths, dim=1) if self.count else ()))


@contextmanager
def _bound(network: nn.Module, values: Tensor) -> Iterator[None]:
    """Have a network, and copies that are made of it meanwhile, take these values always."""

    def beside(_network: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (given[0], values.to(given[0]).expand(len(given[0]), -1))

    handle = network.register_forward_pre_hook(beside, prepend=True)
    try:
        yield
    finally:
        handle.remove()


# ------------------------------------------------------------------------- plans


def accompanied(plan: Plan[R], tabular: Tabular | None) -> Plan[R]:
    """Return a plan whose rows have the patient's values beside them where they say none."""
    if tabular is None:
        return (yield from plan)
    resume: Any = None
    error: BaseException | None = None
    while True:
        try:
            asked = plan.send(resume) if error is None else plan.throw(error)
        except StopIteration as end:
            result: R = end.value
            return result
        given = tuple(_beside(each, tabular) for each in _asks(asked))
        error = None
        try:
            resume = yield given if isinstance(asked, tuple) else given[0]
        except GeneratorExit:
            plan.close()
            raise
        except BaseException as thrown:  # noqa: BLE001 - the plan decides what becomes of it
            error = thrown


def _asks(asked: Pass | tuple[Pass, ...]) -> tuple[Pass, ...]:
    return asked if isinstance(asked, tuple) else (asked,)


def _beside(ask: Pass, tabular: Tabular) -> Pass:
    """Return a pass with the values beside its rows, or in the model that it borrows."""
    if isinstance(ask, Exclusive):
        inner = ask

        def work(lease: Lease) -> Any:
            with _bound(lease.model, tabular.values):
                return inner.work(lease)

        return replace(ask, work=work)
    if isinstance(ask.rows, Beside):
        return ask
    rows = Beside(ask.rows, tabular.values)
    return replace(ask, rows=rows)
