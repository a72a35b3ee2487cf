"""Attribute: what the model says of the image, and why, by every method asked for.

The clean forward pass comes first, because targets may depend on it. Then all
methods are handed to the scheduler together, so that they share passes.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from service.domain.grid import Grid
from service.domain.job import Priority
from service.domain.request import MethodChoice
from service.domain.target import ABOVE_THRESHOLD, ResolvedTarget
from service.errors import (
    Failure,
    InvalidParameter,
    MissingAbility,
    NothingToExplain,
    WhylightError,
)
from workers.held import Held, LeaseLost
from workers.methods.base import METHODS, Maps, Method
from workers.model import Model
from workers.parcels import Attributed, Attribution, Prepared
from workers.passes import Forward, Plan
from workers.rows import Clean
from workers.running import Planned, Report
from workers.scheduler import Scheduler
from workers.targets.classes import Chosen, predictions_of, resolve

R = TypeVar("R")

WEIGHTS: Final = {Priority.STAT: 8.0, Priority.HIGH: 4.0, Priority.NORMAL: 2.0, Priority.LOW: 1.0}
"""Share of the device by priority, as in the queue's turns."""

MARGIN: Final = 10.0
"""Seconds beyond the deadline in which the scheduler must have answered."""

NOTHING: Final = NothingToExplain(
    "No class reaches its threshold on this image; name a class or 'top1' to see one explained."
).failure()

NO_TARGET: Final = NothingToExplain("There was no target to explain.")


def attribute(
    prepared: Prepared, model: Model, scheduler: Scheduler, held: Held, deadline: float
) -> Attributed:
    """Explain every target by every method.

    Parameters
    ----------
    deadline
        Moment of `time.monotonic` at which the job ends.

    Returns
    -------
    Attributed
        One attribution for each method and target, method by method. A method
        that failed says so in its own attributions; a request for what is
        above its threshold, where nothing is, gives one without a target.

    Raises
    ------
    NonFiniteScore
        The model's answer on the image is not finite.
    InvalidTarget
        The model has no such class.
    Cancelled, Draining, LeaseLost
        The job was stopped.
    """
    runtime = model.runtime
    image = torch.from_numpy(prepared.tensor).to(runtime.device, runtime.dtype)
    bench = _Bench(model, scheduler, held, deadline, image)
    request = prepared.decoded.fetched.request
    logits = bench.logits()
    predictions = predictions_of(model.manifest, logits)
    targets = resolve(request.targets, model.manifest, logits)
    above_none = any(each.of == ABOVE_THRESHOLD for each in request.targets) and not any(
        each.above_threshold for each in predictions
    )
    attributions: list[Attribution] = []
    for tried, outcome in bench.explain(request.methods, targets):
        attributions += _attributions(tried, targets, outcome, prepared.grid)
        if above_none:
            attributions.append(tried.without_map(None, NOTHING))
    return Attributed(prepared, predictions, tuple(attributions))


@dataclass(frozen=True, slots=True)
class _Tried:
    """A method as it was asked for, and as it runs."""

    choice: MethodChoice
    method: Method | None
    """With every parameter settled; `None` when it cannot run."""

    work: Planned[Maps] | WhylightError
    """What is handed to the scheduler, or why nothing is."""

    @property
    def parameters(self) -> dict[str, Any]:
        """Every parameter, also those that were not given."""
        return self.method.model_dump(mode="json") if self.method else dict(self.choice.parameters)

    @property
    def signed(self) -> bool:
        """Whether negative values mean evidence against the target."""
        return self.method is not None and self.method.signed

    def without_map(self, target: ResolvedTarget | None, failure: Failure) -> Attribution:
        """Return the attribution of a target that has no map, and why."""
        return Attribution(
            method=self.choice.name,
            parameters=self.parameters,
            signed=self.signed,
            target=target,
            values=None,
            grid=None,
            failure=failure,
        )


@dataclass(frozen=True, slots=True)
class _Bench:
    """The image on the device, and all that its passes go through."""

    model: Model
    scheduler: Scheduler
    held: Held
    deadline: float
    image: Tensor

    def logits(self) -> tuple[float, ...]:
        """Return the model's answer on the unchanged image, one number a class."""

        def plan() -> Plan[list[float]]:
            step = yield Forward(Clean(self.image), outputs=True)
            logits: list[float] = step.outputs[0].double().tolist()
            return logits

        (outcome,) = self._serve([Planned(plan(), 1)]).outcomes
        if isinstance(outcome, WhylightError):
            raise outcome
        return tuple(outcome)

    def explain(
        self, choices: Sequence[MethodChoice], targets: Sequence[Chosen]
    ) -> list[tuple[_Tried, Maps | WhylightError]]:
        """Return each method with its maps of all targets, or with its failure."""
        tried = [self._tried(choice, targets) for choice in choices]
        works = [each.work for each in tried if isinstance(each.work, Planned)]
        served = self._serve(works, self.held.report).outcomes if targets and works else ()
        outcomes = iter(served)
        return [
            (each, each.work if isinstance(each.work, WhylightError) else next(outcomes, NO_TARGET))
            for each in tried
        ]

    def _tried(self, choice: MethodChoice, targets: Sequence[Chosen]) -> _Tried:
        """Settle a method and plan it; one that cannot run spares the others."""
        method = None
        try:
            method = _settled(choice, self.model)
            scalars = tuple(each.scalar for each in targets)
            rows = method.estimate(self.image.shape, len(scalars)).rows
            return _Tried(choice, method, Planned(method.plan(self.image, scalars), rows))
        except WhylightError as error:
            return _Tried(choice, method, error)

    def _serve(
        self, plans: Sequence[Planned[R]], on_progress: Callable[[float], None] | None = None
    ) -> Report[R]:
        """Have plans served, and stop them as soon as the job is stopped."""
        token = self.held.token
        ticket = self.scheduler.submit(
            token,
            self.model.runtime,
            plans,
            weight=WEIGHTS[self.held.lease.job.priority],
            deadline=self.deadline,
            on_progress=on_progress,
        )
        with self.held.waking(lambda: self.scheduler.cancel(token)):
            report = _answer(ticket, self.deadline + MARGIN)
        self.held.check()
        return report


def _settled(choice: MethodChoice, model: Model) -> Method:
    """Return a method with its parameters, the model's own defaults filled in."""
    if choice.name not in model.entry.methods:
        reason = model.entry.refused.get(choice.name, "This worker does not know the method.")
        raise MissingAbility(reason, method=choice.name)
    try:
        return METHODS[choice.name].model_validate(choice.parameters).settled(model.facts)
    except ValidationError as error:
        # sentences of our own validators; the gateway has checked single values
        said = [each["msg"].removeprefix("Value error, ") for each in error.errors()]
        raise InvalidParameter(
            "The method's parameters do not go together; 'reasons' says why.",
            method=choice.name,
            reasons=[*said],
        ) from None


def _attributions(
    tried: _Tried,
    targets: Sequence[Chosen],
    outcome: Maps | WhylightError,
    grid: Grid,
) -> list[Attribution]:
    """Return one attribution for each target, with its map led back to the source."""
    if isinstance(outcome, WhylightError):
        return [tried.without_map(each.target, outcome.failure()) for each in targets]
    values = outcome.values.detach().cpu().numpy().astype(np.float32)
    cells = Grid(values.shape[2:], outcome.affine).within(grid)
    extras = outcome.extras or ({},) * len(targets)
    return [
        Attribution(
            method=tried.choice.name,
            parameters=tried.parameters,
            signed=tried.signed,
            target=each.target,
            values=values[k],
            grid=cells,
            extras=dict(extras[k]),
            partial=outcome.partial,
        )
        for k, each in enumerate(targets)
    ]


def _answer(ticket: "Future[Report[R]]", until: float) -> Report[R]:
    """Wait for the scheduler; when it broke, the job must run on another worker."""
    try:
        return ticket.result(max(0.0, until - time.monotonic()))
    except Exception as error:
        raise LeaseLost from error
