"""A job's access to the device: its stages hand plans in here and wait for their outcomes."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import torch
from torch import Tensor

from service.domain.job import Priority
from service.domain.precision import Precision
from service.errors.base import WhylightError
from service.errors.models import ModelSilent
from workers.held import Held, LeaseLost
from workers.methods.base import Maps, Method
from workers.model import Model
from workers.parcels import Prepared
from workers.passes import Plan, Targets
from workers.running import Planned, Report
from workers.runtimes.base import Runtime
from workers.scheduler import Scheduler
from workers.sliding.passes import Sliding
from workers.tabular import Tabular, accompanied
from workers.views import cost_of, maps

R = TypeVar("R")

WEIGHTS: Final = {Priority.STAT: 8.0, Priority.HIGH: 4.0, Priority.NORMAL: 2.0, Priority.LOW: 1.0}
"""Share of the device by priority, as in the queue's turns."""

MARGIN: Final = 10.0
"""Seconds beyond the deadline in which the scheduler must have answered."""


@dataclass(frozen=True, slots=True)
class Access:
    """The way of one job to its model."""

    model: Model
    scheduler: Scheduler
    held: Held
    deadline: float
    """Moment of `time.monotonic` at which the job ends."""

    tabular: Tabular | None = None
    """What stands beside the job's image, if something does."""

    explained: Tabular | None = None
    """The same as methods share the score out to it; `None` where they do so to the image alone."""

    def beside(self, prepared: Prepared) -> "Access":
        """Return the way of a job whose input is prepared: with the values beside it."""
        runtime, variables = self.model.runtime, self.model.manifest.variables
        if not variables:
            return self
        like = torch.empty(0, dtype=runtime.dtype, device=runtime.device)
        given = [each.value for each in prepared.variables]
        tabular = Tabular.of(variables, given, like)
        asked = self.model.manifest.explained(prepared.decoded.fetched.request.inputs)
        return replace(self, tabular=tabular, explained=tabular.only(asked))

    @property
    def _sliding(self) -> Sliding | None:
        """The way through windows, of a model that is given its images in windows."""
        rules, runtime = self.model.manifest.sliding_window, self.model.runtime
        if rules is None:
            return None
        return Sliding(rules, torch.zeros(0, dtype=runtime.dtype, device=runtime.device))

    def planned(self, plan: Plan[R], rows: int, image: Tensor, targets: Targets = ()) -> Planned[R]:
        """Return a plan of passes over versions of an image, as the model takes them.

        Parameters
        ----------
        rows
            Whole images that the plan asks for.
        image
            Shape ``(C, *spatial)``.
        targets
            All that is asked of them; if empty, whole answers are.
        """
        sliding = self._sliding
        if sliding is not None:
            plan, rows = sliding.led(plan), rows * sliding.windows(image.shape, targets)
        return Planned(accompanied(plan, self.tabular), rows)

    def mapped(self, method: Method, image: Tensor, targets: Targets) -> Planned[Maps]:
        """Return the plan of a method on an image, shape ``(C, *spatial)``, likewise."""
        several = self.model.manifest.image.several
        if several:
            rows = cost_of(method, image.shape, len(targets), several=True).rows
            return self.planned(maps(method, image, targets, self.explained), rows, image, targets)
        sliding = self._sliding
        if sliding is None:
            rows = method.estimate(image.shape, len(targets)).rows
            plan = method.joint(image, targets, self.explained)
        else:
            rows = sliding.rows(method, image.shape, targets)
            plan = sliding.maps(method, image, targets, self.explained)
        return Planned(accompanied(plan, self.tabular), rows)

    def serve(
        self,
        plans: Sequence[Planned[R]],
        on_progress: Callable[[float], None] | None = None,
        *,
        precision: Precision = "float32",
    ) -> Report[R]:
        """Have plans served together, and stop them as soon as the job is stopped.

        Raises
        ------
        UnservablePass
            The model's runtime has no such precision.
        ModelSilent
            The model's server does not answer: the job waits for it.
        Cancelled, Draining, LeaseLost
            The job was stopped.
        """
        token = self.held.token
        ticket = self.scheduler.submit(
            token,
            self._replica(precision),
            plans,
            weight=WEIGHTS[self.held.lease.job.priority],
            deadline=self.deadline,
            on_progress=on_progress,
        )
        with self.held.waking(lambda: self.scheduler.cancel(token)):
            report = _answer(ticket, self.deadline + MARGIN)
        self.held.check()
        for outcome in report.outcomes:
            if isinstance(outcome, ModelSilent):
                raise outcome
        return report

    def _replica(self, precision: Precision) -> Runtime:
        """Return the model's replica of a precision; another than the usual may have to be made."""
        if precision == "float32":
            return self.model.runtime
        made = self.scheduler.call(lambda: self.model.replicas.at(precision))
        return _answer(made, self.deadline + MARGIN)


def _answer(ticket: "Future[R]", until: float) -> R:
    """Wait for the scheduler; when it broke, the job must run on another worker."""
    try:
        return ticket.result(max(0.0, until - time.monotonic()))
    except WhylightError:
        raise
    except Exception as error:
        raise LeaseLost from error
