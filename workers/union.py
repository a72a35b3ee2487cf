"""What one job asks of identical rows, united into one work and handed back apart.

Wants are united as (target, place) pairs, never as the product of targets and
places: "Grad-CAM for 14 targets" and "saliency for one" share a forward pass,
and only the one target is differentiated down to the input.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from service.errors.models import NonFiniteScore
from workers.device import sent
from workers.passes import Forward, Gradient, Rule, Scalar, Step
from workers.rows import LEAVES
from workers.runtimes.base import Served, Work


def work_of(asks: Sequence[Forward | Gradient]) -> Work:
    """Unite what is asked of the rows that all `asks` have in common.

    Targets are ordered by the places where their gradients are wanted, so that
    works of one pattern can share a batch.
    """
    wants: dict[Scalar, set[str]] = {}
    for ask in asks:
        for target in ask.targets:
            wants.setdefault(target, set()).update(ask.at if isinstance(ask, Gradient) else ())
    ordered = sorted(wants.items(), key=lambda want: sorted(want[1]))
    forwards = [ask for ask in asks if isinstance(ask, Forward)]
    return Work(
        rows=asks[0].rows,
        targets=tuple(target for target, _ in ordered),
        places=tuple(tuple(sorted(places)) for _, places in ordered),
        taps=tuple(sorted({tap for ask in forwards for tap in ask.taps}, key=lambda t: t.place)),
        outputs=any(ask.outputs for ask in forwards),
        rule=rule_of(asks[0]),
    )


def rule_of(ask: Forward | Gradient) -> Rule:
    """Return the rule of a pass; a forward pass is plain."""
    return ask.rule if isinstance(ask, Gradient) else Rule.PLAIN


def step_of(ask: Forward | Gradient, work: Work, served: Served, start: int, count: int) -> Step:
    """Copy out of `served` what `ask` wanted; nothing of the batch is kept alive.

    Raises
    ------
    NonFiniteScore
        If a score or an output is not a finite number. It is judged here and
        not on maps, because a NaN pixel gives a finite, plausible gradient.
    """
    at = [work.targets.index(target) for target in ask.targets]
    scores = _columns(served.scores, at)
    outputs = None
    if isinstance(ask, Forward) and ask.outputs and served.outputs is not None:
        outputs = served.outputs.clone()
    if served.read is None:
        _require_finite(scores, outputs)
    else:
        told, seen = served.read()
        _require_finite(_columns(told, at), None if outputs is None else seen)
    if isinstance(ask, Forward):
        taps = {tap: served.taps[tap].clone() for tap in ask.taps}
        return Step(start, count, scores=scores, taps=taps, outputs=outputs)
    return Step(
        start,
        count,
        scores=scores,
        activations={
            place: served.activations[place].clone() for place in ask.at if place not in LEAVES
        },
        gradients={
            place: torch.stack([served.gradients[k, place] for k in at], dim=1) for place in ask.at
        },
    )


def _columns(scores: Tensor | None, at: Sequence[int]) -> Tensor | None:
    """Copy the columns `at` of scores ``(n, K)``."""
    if scores is None or not at:
        return None
    if list(at) == list(range(scores.shape[1])):  # a plain copy costs a fifth of indexing
        return scores.clone()
    return scores[:, sent(torch.tensor(at), scores.device, torch.int64)]


def _require_finite(*values: Tensor | None) -> None:
    for value in values:
        if value is None:
            continue
        # one sum costs half of a test of each value; finite ones may overflow it
        total = value if value.numel() == 1 else value.sum()
        if math.isfinite(total.item()):
            continue
        if not bool(torch.isfinite(value).all()):
            raise NonFiniteScore(
                "The model's score on this image is not a finite number; "
                "look for invalid pixel values in the study."
            )


def joined(steps: Sequence[Step], count: int) -> Step:
    """Return the chunks of a pass as one step of `count` rows."""
    if len(steps) == 1:
        return steps[0]
    if not steps:
        return Step(0, count)
    first = steps[0]
    return Step(
        0,
        count,
        scores=_cat(step.scores for step in steps),
        taps={tap: torch.cat([step.taps[tap] for step in steps]) for tap in first.taps},
        activations={
            place: torch.cat([step.activations[place] for step in steps])
            for place in first.activations
        },
        gradients={
            place: torch.cat([step.gradients[place] for step in steps]) for place in first.gradients
        },
        outputs=_cat(step.outputs for step in steps),
    )


def _cat(values: Iterable[Tensor | None]) -> Tensor | None:
    """Join tensors along the rows; `None` when there are none."""
    there = [value for value in values if value is not None]
    return torch.cat(there) if there else None
