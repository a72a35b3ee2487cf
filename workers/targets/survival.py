r"""Targets of a survival model: a log hazard, or that an event comes by a time.

A model in discrete time tells how likely the event is in each interval. With hazards
:math:`h_j`, the chance to be spared until the end of interval `k` is
:math:`S_k = \prod_{j \le k} (1 - h_j)`, and what is explained of the event by then is

.. math:: s = \log \frac{1 - S_k}{S_k} = \log \sum_{j \le k} m_j - \log \sum_{j > k} m_j,

where :math:`m_j` is the probability that it comes in interval `j`; the last one is the time
beyond all horizons. Masses of a softmax give the same from their own logits. These log odds
are the network's own logit where there is one interval, and keep a gradient where the event is
nearly certain or nearly excluded; the probability itself has none there.

References
----------
Gensheimer, Narasimhan (2019). A scalable discrete-time survival model for neural networks.
PeerJ 7:e6257. Lee, Zame, Yoon, van der Schaar (2018). DeepHit: a deep learning approach to
survival analysis with competing risks. AAAI. Of the log hazard: Katzman et al. (2018). DeepSurv.
BMC Medical Research Methodology 18:24.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from typing_extensions import override

from service.domain.explanation import Prediction
from service.domain.manifest import Manifest
from service.domain.outputs import EventSpec
from service.domain.resolved import ResolvedTarget
from service.domain.target import Of, TimeToEventTarget
from service.errors.requests import InvalidTarget
from workers.targets import classes, regressions
from workers.targets.base import Answer, Chosen, found
from workers.targets.scalars import ClassLogit


@dataclass(frozen=True, slots=True)
class EventBy:
    """The scalar of an event by a time: its log odds.

    Parameters
    ----------
    intervals
        How many of the first intervals end by then.
    hazards
        Whether outputs are logits of hazards, and not those of a softmax over masses.
    """

    intervals: int
    hazards: bool

    @property
    def weights(self) -> None:
        """It is not linear."""
        return

    @override
    def __hash__(self) -> int:
        """Hash by value."""
        return hash((EventBy, self.intervals, self.hazards))

    def __call__(self, outputs: Tensor) -> Tensor:
        """Return the log odds of each row, shape ``(rows,)``, of outputs ``(rows, intervals)``."""
        masses = log_masses(outputs) if self.hazards else outputs
        by, later = masses[:, : self.intervals], masses[:, self.intervals :]
        return by.logsumexp(1) - later.logsumexp(1)


def log_masses(logits: Tensor) -> Tensor:
    """Return how likely the event is in each interval, and beyond them, as logarithms.

    Parameters
    ----------
    logits
        Of the hazards, ``(rows, intervals)``.

    Returns
    -------
    Tensor
        Shape ``(rows, intervals + 1)``; the exponentials of a row add up to 1.
    """
    spared = logsigmoid(-logits).cumsum(1)
    before = torch.cat([torch.zeros_like(spared[:, :1]), spared[:, :-1]], 1)
    return torch.cat([logsigmoid(logits) + before, spared[:, -1:]], 1)


def predictions_of(answer: Answer) -> tuple[Prediction, ...]:
    """Return the event by each time, or the risk.

    Raises
    ------
    InvalidTarget
        If there are more or fewer outputs than the manifest tells of.
    """
    if not answer.manifest.classes:
        return regressions.predictions_of(answer)
    if answer.outputs.shape != (answer.manifest.width,):
        raise InvalidTarget("The model's outputs do not match the times of its manifest.")
    return by_time(answer.manifest, answer.outputs)


def by_time(manifest: Manifest, outputs: Tensor) -> tuple[Prediction, ...]:
    """Return the event by each time, of outputs ``(intervals,)``; none of a model of one risk."""
    scalars = [_by(index, manifest) for index in range(len(manifest.classes))]
    return classes.predictions_of(manifest, [each(outputs[None]).item() for each in scalars])


def resolve(target: TimeToEventTarget, answer: Answer, predictions: Sequence[Prediction]) -> Chosen:
    """Make a risk, or the event by a time, definite.

    Raises
    ------
    InvalidTarget
        The model gives no risk, or does not tell of this time.
    """
    event, manifest = _event(answer.manifest), answer.manifest
    if target.horizon is None:
        index, _ = found(0, manifest.values)
        asked, quantity = "risk", "log hazard"
    elif target.horizon in event.usable:
        index = [each.time for each in event.horizons].index(target.horizon)
        asked, quantity = f"{target.horizon:.10g}", "log odds of the event by then"
    else:
        raise InvalidTarget("The model does not tell of this time.", horizons=[*event.usable])
    said = predictions[index]
    return Chosen(
        ResolvedTarget(
            kind="time_to_event",
            key=said.key,
            label=said.label,
            index=index,
            asked_as=asked,
            score=said.logit,
            quantity=quantity,
            probability=said.probability,
            threshold=said.threshold,
            above_threshold=said.above_threshold,
            again=target,
        ),
        ClassLogit(index) if target.horizon is None else _by(index, manifest),
    )


def named(of: Of, manifest: Manifest) -> TimeToEventTarget:
    """Return the target of a key or an index.

    Raises
    ------
    InvalidTarget
        There is none, or it is not for use.
    """
    if not manifest.classes:
        found(of, manifest.values)
        return TimeToEventTarget(kind="time_to_event", of="risk")
    index, _ = found(of, manifest.classes)
    return TimeToEventTarget(kind="time_to_event", horizon=_event(manifest).horizons[index].time)


def _by(index: int, manifest: Manifest) -> EventBy:
    return EventBy(index + 1, manifest.outputs[0].decoding == "hazards")


def _event(manifest: Manifest) -> EventSpec:
    event = manifest.outputs[0].event
    assert event is not None  # noqa: S101 - the task has one
    return event
