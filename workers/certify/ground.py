"""What all measurements on one model stand on: cases, copies of the model, its banks."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from torch import Tensor, nn

from service.domain.manifest import Manifest
from service.errors.base import WhylightError
from service.errors.models import UnservablePass
from workers.abreast import abreast
from workers.certify.cases import Case, NotCertifiable, read_cases
from workers.certify.heads import headed
from workers.certify.turns import Turns
from workers.certify.weights import SEEDS, head_of, shuffled
from workers.measures.bank import Bank, bank, rows_of
from workers.measures.bearing import too_small
from workers.model import Model
from workers.passes import Exclusive, Plan
from workers.running import Planned
from workers.runtimes.base import Runtime
from workers.targets.classes import predictions_of
from workers.views import Place, seen

LOAN: Final = 30.0
"""Seconds for which the model may be lent to be copied."""


@dataclass(frozen=True, slots=True, eq=False)
class Copies:
    """Copies of a model that was lent."""

    network: nn.Module
    """On the CPU; all others are made of it."""

    surrogate: bool
    """Whether it is one that stands in for the model."""

    plain: Runtime
    """Serves a copy, unchanged."""

    head: frozenset[str]
    """Parameters of the head; empty when it cannot be told."""

    many: Runtime | None
    """Serves a copy with its own and every shuffled head, see `headed`; `None` if none can."""

    def variants(self, turns: Turns, names: frozenset[str] | None = None) -> Iterator[Runtime]:
        """Serve the model with shuffled weights, one shuffle after the other.

        The shuffles are made in the calling thread, on the CPU; only the way
        to the device is the owner thread's.
        """
        for seed in SEEDS:
            network = shuffled(self.network, seed, names)
            yield turns.owned(partial(self.plain.variant, network))


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """One model's cases and what serves them; the served replica is only ever copied."""

    manifest: Manifest
    cases: tuple[Case, ...]
    plain: Runtime
    """Serves the model as it is, a row at a time."""

    copies: Copies | None
    """`None` where the runtime lends no model, so that no weights can be shuffled."""

    banks: tuple[tuple[Bank, ...] | None, ...]
    """The probe bank of each case, by the model itself, for each of its views or for the image
    alone; `None` where it could not be had."""

    def reported(self, case: int) -> tuple[int, ...]:
        """Return the classes of a case that are present and that the model reports."""
        answered = self.banks[case]
        if answered is None:
            return ()
        predictions = predictions_of(self.manifest, answered[0].scores.tolist())
        best = max(predictions, key=lambda each: each.logit)
        return tuple(
            each.index
            for each in predictions
            if each.index in self.cases[case].present
            and (each is best if each.above_threshold is None else each.above_threshold)
        )


def prepare(model: Model, folder: Path, turns: Turns) -> Ground:
    """Read the cases, copy the model if it is lent, and have its probe banks made.

    Parameters
    ----------
    folder
        Where the model's package lies unpacked.

    Raises
    ------
    NotCertifiable
        There is no calibration set, or it does not serve.
    Unwanted
        The worker drains, or the model is gone.
    """
    if model.manifest.calibration is None:
        raise NotCertifiable("no_calibration_set")
    path = folder / model.manifest.calibration.cases
    cases = read_cases(path, model.manifest, model.runtime.shape)
    network = _copied(model.runtime, turns)
    plain = turns.owned(lambda: model.runtime.variant(None))
    return Ground(
        manifest=model.manifest,
        cases=cases,
        plain=plain,
        copies=None if network is None else _copies(network, plain, cases[0], turns),
        banks=_banks(plain, cases, turns),
    )


def _copied(runtime: Runtime, turns: Turns) -> nn.Module | None:
    """Borrow the model for as long as it takes to copy it to the CPU; `None` if it is not lent.

    A network that stands in for the model is borrowed in its place.
    """

    def plan() -> Plan[nn.Module]:
        network: nn.Module = yield Exclusive(lambda lease: copy.deepcopy(lease.model).cpu(), LOAN)
        return network

    (outcome,) = turns.serve(runtime, [Planned(plan(), 1)])
    if isinstance(outcome, UnservablePass):
        return None
    if isinstance(outcome, WhylightError):
        raise outcome
    return outcome


def _copies(network: nn.Module, plain: Runtime, case: Case, turns: Turns) -> Copies:
    """Find the head, and put all of its shuffles into one copy where that can be.

    Parameters
    ----------
    plain
        Serves the model itself.
    """
    surrogate = plain.probed.stood_in
    if surrogate:  # so that maps are compared with maps of the same network
        own = copy.deepcopy(network)
        plain = turns.owned(lambda: plain.variant(own))
    image = case.image.to(plain.dtype)
    head = head_of(network, image)
    layers = [layer.name for layer in plain.probed.layers]
    together = headed(network, head, image, layers)
    many = None if together is None else turns.owned(lambda: plain.variant(together))
    return Copies(network, surrogate, plain, head, many)


def _banks(
    runtime: Runtime, cases: tuple[Case, ...], turns: Turns
) -> tuple[tuple[Bank, ...] | None, ...]:
    """Have each case's probe bank made, where the images are large enough for one."""
    if too_small(cases[0].extent):
        return (None,) * len(cases)
    plans = [_bank(case, case.image.to(runtime.device, runtime.dtype)) for case in cases]
    outcomes = turns.serve(runtime, plans)
    return tuple(None if isinstance(each, WhylightError) else each for each in outcomes)


def _bank(case: Case, image: Tensor) -> Planned[tuple[Bank, ...]]:
    """Return the plan of a case's bank, of each view with the others as they are."""
    if case.several:
        places = Place.each(image)
        plan = abreast([seen(bank(each.own), each) for each in places])
        return Planned(plan, sum(rows_of(each.own.shape) for each in places))
    return Planned(abreast([bank(image)]), rows_of(image.shape))
