"""Gradients of the scores of one batch, each target's down to its own places."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from service.errors.models import NoGradientPath
from workers.runtimes.base import Work

Gradients = dict[tuple[int, str], Tensor]
"""By target's index in the work and place; rows are the batch's."""


def gradients_of(
    works: Sequence[Work], scores: Mapping[int, Tensor], leaves: Mapping[str, Tensor]
) -> list[Gradients]:
    """Differentiate each target down to its own places, one round for one target of each work.

    Rows are independent, so the gradient of the sum over all works' scores is
    each row's own; the sum's value is never used.
    """
    given: list[Gradients] = [{} for _ in works]
    asked = {k: [i for i, at in enumerate(works[k].places) if at] for k in scores}
    rounds = max((len(targets) for targets in asked.values()), default=0)
    for turn in range(rounds):
        members = {k: targets[turn] for k, targets in asked.items() if turn < len(targets)}
        first, target = next(iter(members.items()))
        places = works[first].places[target]
        total = torch.stack([scores[k][:, i].sum() for k, i in members.items()]).sum()
        last = turn == rounds - 1
        grads = torch.autograd.grad(
            total, [leaves[place] for place in places], retain_graph=not last, allow_unused=True
        )
        for place, grad in zip(places, grads, strict=True):
            if grad is None:
                raise NoGradientPath(f"No gradient leads from the score to '{place}'.")
            for k, i in members.items():
                given[k][i, place] = grad
    return given
