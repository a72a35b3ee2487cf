"""When tumors progress: what a survival model of planted pictures learns, and how well."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import softplus

from examples.planted.inputs import inputs
from examples.planted.pictures import Course, Picture
from workers.targets.survival import EventBy

TIMES: Final = (90.0, 180.0, 365.0, 730.0)
"""Ends of the intervals, in days."""

YEAR: Final = 365.0


def loss(outputs: Tensor, pictures: Sequence[Picture]) -> Tensor:
    """Return the negative log likelihood of logits of hazards ``(N, intervals)``.

    An interval counts as lived through if the patient was followed to its end without the event,
    and not at all if the follow-up ended within it.
    """
    days = torch.tensor([[_course(each).days] for each in pictures])
    progressed = torch.tensor([[_course(each).progressed] for each in pictures])
    ends = torch.tensor(TIMES)
    begins = torch.cat([torch.zeros(1), ends[:-1]])
    lived, came = days >= ends, progressed & (days >= begins) & (days < ends)
    return (softplus(outputs) * lived + softplus(-outputs) * came).sum(1).mean()


def told(
    network: nn.Module, pictures: Sequence[Picture], time: float = YEAR
) -> NDArray[np.float64]:
    """Return the log odds of progression by one of `TIMES`, shape ``(N,)``."""
    with torch.no_grad():
        outputs = network(inputs(pictures)).double()
    return EventBy(TIMES.index(time) + 1, hazards=True)(outputs).numpy()


def error(network: nn.Module, pictures: Sequence[Picture]) -> float:
    """Return the mean error of the probability of progression within a year."""
    probabilities = 1 / (1 + np.exp(-told(network, pictures)))
    true = [1 - np.exp(-_course(each).hazard * YEAR) for each in pictures]
    return float(np.abs(probabilities - true).mean())


def concordance(scores: NDArray[np.float64], pictures: Sequence[Picture]) -> float:
    """Return Harrell's index: of pairs whose order in time is known, the share told rightly."""
    courses = [_course(each) for each in pictures]
    right = [
        scores[first] > scores[second]
        for first, one in enumerate(courses)
        for second, other in enumerate(courses)
        if one.progressed and one.days < other.days
    ]
    return float(np.mean(right))


def _course(picture: Picture) -> Course:
    assert picture.course is not None  # noqa: S101 - a tumor has one
    return picture.course
