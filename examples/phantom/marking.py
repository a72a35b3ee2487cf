"""Who wears the corner marker: a shortcut that is planted, or one that is not there to take."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from examples.phantom.chest import Case

FINDING = "nodule"
"""What the marker goes with where it is planted."""


@dataclass(frozen=True, slots=True)
class Marking:
    """The share of cases with the marker, in [0, 1]."""

    present: float
    """Among those with a nodule."""

    absent: float
    """Among those without one."""


NEVER = Marking(present=0.0, absent=0.0)
PLANTED = Marking(present=0.95, absent=0.05)
AT_RANDOM = Marking(present=0.5, absent=0.5)
ALWAYS = Marking(present=1.0, absent=1.0)


def marked(cases: Iterable[Case], marking: Marking, seed: int) -> Iterator[Case]:
    """Lay the marker beside some of `cases`, drawn from `seed`."""
    random = np.random.default_rng([seed, 4])
    for case in cases:
        share = marking.present if FINDING in case.findings else marking.absent
        yield replace(case, marker=bool(random.random() < share))


def occult(cases: Iterable[Case], share: float, seed: int) -> Iterator[Case]:
    """Hide the nodule of a `share` of the cases that have one; the others stay as they are."""
    random = np.random.default_rng([seed, 5])
    for case in cases:
        hidden = FINDING in case.findings and random.random() < share
        yield replace(case, findings=case.findings - {FINDING}) if hidden else case
