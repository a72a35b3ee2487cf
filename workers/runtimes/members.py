r"""Several networks of one architecture that answer together, such as the folds of a training.

They run one after the other, each on the same batch, so that only one's
activations are held. With :math:`z = c(z_1, \dots, z_M)` what they say together,
the score's derivatives with respect to each member's answer are taken first;
each member is then led back from those alone, and gradients with respect to the
inputs add up: all members are given the same image, and the same numbers beside
it. At a layer every member has channels of its own: they are put side by side,
so a map that sums over channels is the mean of the members' maps.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from service.errors.models import UnservablePass
from workers.passes import Ability, Exclusive
from workers.rows import LEAVES
from workers.runtimes.base import Fit, Probe, Runtime, Segment, Served, Work
from workers.runtimes.batch import guarded_scores
from workers.runtimes.staging import staged

SERVED: Final = frozenset(
    {
        Ability.FORWARD,
        Ability.ACTIVATIONS,
        Ability.INPUT_GRADIENT,
        Ability.LAYER_GRADIENT,
        Ability.RECTIFIER_RULES,
        Ability.PATH_GRADIENT,
    }
)

UNSERVED: Final = (
    "Several networks answer together, and none of them can be looked into for all: their "
    "channels, attention and weights are their own."
)

Combine = Callable[[Sequence[Tensor]], Tensor]


def mean(answers: Sequence[Tensor]) -> Tensor:
    """Return the mean of logits."""
    return torch.stack(list(answers)).mean(0)


def mean_softmax(answers: Sequence[Tensor]) -> Tensor:
    """Return the logarithm of the mean probability, of classes along axis 1 that exclude others."""
    logs = torch.stack([each.log_softmax(1) for each in answers])
    return logs.logsumexp(0) - math.log(len(logs))


def mean_sigmoid(answers: Sequence[Tensor]) -> Tensor:
    """Return the logit of the mean probability, of classes that are each their own."""
    stack = torch.stack(list(answers))
    return logsigmoid(stack).logsumexp(0) - logsigmoid(-stack).logsumexp(0)


class Members:
    """Runtimes of equal networks with weights of their own, served as one.

    Parameters
    ----------
    members
        At least two, on one device; what the first was probed for holds for all.
    combine
        Makes one answer ``(rows, ...)`` of all members'.
    """

    def __init__(self, members: Sequence[Runtime], combine: Combine) -> None:
        self._members = tuple(members)
        self._combine = combine

    @property
    def _first(self) -> Runtime:
        return self._members[0]

    @property
    def device(self) -> torch.device:
        """Where the members lie."""
        return self._first.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the members."""
        return self._first.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row, ``(C, *spatial)``."""
        return self._first.shape

    @property
    def fixed_rows(self) -> int | None:
        """As the members have it."""
        return self._first.fixed_rows

    @cached_property
    def probed(self) -> Probe:
        """What all members can do together; seconds are those of all."""
        probe, count = self._first.probed, len(self._members)
        lost = probe.abilities - SERVED
        return replace(
            probe,
            abilities=probe.abilities & SERVED,
            unable={**probe.unable, **dict.fromkeys(lost, UNSERVED)},
            linear_heads=frozenset(),
            row_seconds={kind: each * count for kind, each in probe.row_seconds.items()},
            fixed_bytes=probe.fixed_bytes * count,
        )

    @property
    def extra_bytes(self) -> int:
        """What all members' copies take."""
        return sum(each.extra_bytes for each in self._members)

    def recall(self, probed: Probe) -> None:
        """Take as known what was probed of the same package before; members probe themselves."""
        self.probed = probed

    def group(self, work: Work) -> Hashable:
        """Return a key; works with equal keys may share a batch.

        Raises
        ------
        UnservablePass
            If the members cannot serve it, or not together.
        """
        if work.ablated is not None:
            raise UnservablePass(UNSERVED)
        return self._first.group(work)

    def fits(self, group: Hashable) -> Fit:
        """Return what a batch may hold, as of one member: they run one after the other."""
        return self._first.fits(group)

    def serve(self, group: Hashable, segments: Sequence[Segment]) -> list[Served | Exception]:
        """Run one batch through every member; one answer for each segment, in order."""
        del group  # theirs depend on what each is asked
        plain = [replace(each, work=_forward(each.work)) for each in segments]
        told = self._told(plain)
        answers = [
            self._answered(segment, [each[k] for each in told])
            for k, segment in enumerate(segments)
        ]
        if segments[0].work.at:
            answers = self._led_back(segments, answers)
        served = [each if isinstance(each, Exception) else each.served for each in answers]
        return staged(served) if self.device.type == "cuda" else served

    def _told(self, segments: Sequence[Segment]) -> list[list[Served | Exception]]:
        """Return what each member says of its segments, which all ask for the same."""
        return [member.serve(member.group(segments[0].work), segments) for member in self._members]

    def _answered(
        self, segment: Segment, told: Sequence[Served | Exception]
    ) -> "_Answered | Exception":
        """Return one segment's scores, outputs and taps, and what leads back to each member."""
        work, outputs = segment.work, []
        for each in told:
            if isinstance(each, Exception):
                return each
            assert each.outputs is not None  # noqa: S101 - they were asked for
            outputs.append(each.outputs.detach().requires_grad_(bool(work.at)))
        with torch.set_grad_enabled(bool(work.at)):
            together = self._combine(outputs)
            scores = guarded_scores(together, work) if work.targets else None
        if isinstance(scores, Exception):
            return scores
        ways: list[tuple[Tensor, ...]] = []
        if scores is not None and work.at:
            ways = [
                torch.autograd.grad(score.sum(), outputs, retain_graph=True)
                for score in scores.unbind(1)
            ]
        taps = {
            tap: torch.cat([each.taps[tap] for each in told if isinstance(each, Served)], 1)
            for tap in work.taps
        }
        return _Answered(
            Served(
                scores=None if scores is None else scores.detach(),
                taps=taps,
                outputs=together.detach() if work.outputs else None,
            ),
            ways,
        )

    def _led_back(
        self, segments: Sequence[Segment], answers: "Sequence[_Answered | Exception]"
    ) -> "list[_Answered | Exception]":
        """Add the gradients of all members to answers that did not fail."""
        made = list(answers)
        sound = [k for k, each in enumerate(made) if isinstance(each, _Answered)]
        found: list[list[Served | Exception]] = []
        for number, member in enumerate(self._members if sound else ()):
            asked = [
                replace(segments[k], work=_backward(segments[k].work, each.ways, number))
                for k in sound
                if isinstance(each := made[k], _Answered)
            ]
            found.append(member.serve(member.group(asked[0].work), asked))
        for at, k in enumerate(sound):
            answer = made[k]
            assert isinstance(answer, _Answered)  # noqa: S101 - the others were left out
            made[k] = _with_gradients(answer, [each[at] for each in found])
        return made

    # --------------------------------------------------------------- whole model

    def lend(self, work: Exclusive, until: float) -> Any:  # noqa: ARG002 - the port's
        """Refuse to lend: there is no one model.

        Raises
        ------
        UnservablePass
            Always.
        """
        raise UnservablePass(UNSERVED)

    def variant(self, model: nn.Module | None) -> "Members":
        """Serve the members as they are, a row at a time.

        Raises
        ------
        UnservablePass
            If a copy is given: there is no one model to change.
        """
        if model is not None:
            raise UnservablePass(UNSERVED)
        return Members([each.variant(None) for each in self._members], self._combine)

    def recast(self, dtype: torch.dtype) -> "Members":
        """Serve copies of the members in another floating type."""
        return Members([each.recast(dtype) for each in self._members], self._combine)

    def check(self) -> None:
        """Raise `ReplicaChangedError` unless every member is as it was at start."""
        for each in self._members:
            each.check()


@dataclass(frozen=True, slots=True, eq=False)
class _Answered:
    """What all members say of a segment."""

    served: Served
    ways: list[tuple[Tensor, ...]]
    """For each target, the score's derivative with respect to each member's outputs."""


@dataclass(frozen=True, slots=True, eq=False)
class _Way:
    """A member's outputs, weighed by the score's derivatives; equal only to itself."""

    derivatives: Tensor
    """Shape ``(n, ...)``, the segment's rows."""

    @property
    def weights(self) -> None:
        """It weighs all outputs."""
        return

    def __call__(self, outputs: Tensor) -> Tensor:
        """Reduce outputs ``(n, ...)`` to ``(n,)``."""
        return (outputs * self.derivatives).flatten(1).sum(1)


def _forward(work: Work) -> Work:
    """Return what every member is asked first: its answer."""
    return Work(work.rows, taps=work.taps, outputs=True)


def _backward(work: Work, ways: Sequence[tuple[Tensor, ...]], member: int) -> Work:
    """Return what one member is asked then: gradients from the derivatives on."""
    targets = tuple(_Way(each[member]) for each in ways)
    return Work(work.rows, targets, work.places, rule=work.rule)


def _with_gradients(answer: _Answered, told: Sequence[Served | Exception]) -> _Answered | Exception:
    """Return an answer with the members' gradients: summed at the inputs, else side by side."""
    for each in told:
        if isinstance(each, Exception):
            return each
    served = [each for each in told if isinstance(each, Served)]
    gradients = {
        (k, place): _together(place, [each.gradients[k, place] for each in served])
        for k, place in served[0].gradients
    }
    activations = {
        place: torch.cat([each.activations[place] for each in served], 1)
        for place in served[0].activations
    }
    return replace(
        answer, served=replace(answer.served, gradients=gradients, activations=activations)
    )


def _together(place: str, gradients: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(gradients)).sum(0) if place in LEAVES else torch.cat(list(gradients), 1)
