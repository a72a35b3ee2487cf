"""Plans led through windows: a method asks of the whole image, the network is given windows.

A pass over whole images becomes passes over their windows, with nothing kept
but sums: of logits for the blend, of gradients on the image's grid. So memory
is that of the result and of one window, and other jobs take their turns, and
this one can be stopped, between two windows. Scores and gradients are those
of the blended answer, exactly; see `workers.sliding.regions`. What windows say of
boxes is not blended but kept apart; see `workers.sliding.boxes`. Numbers beside the
image stand beside every window of it; their gradients add up.
"""

from collections.abc import Hashable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

import torch
from torch import Tensor

from service.domain.inputs import SlidingWindow
from service.errors.models import UnservablePass
from workers.abreast import abreast
from workers.methods.base import Maps, Method, cells
from workers.methods.cam import enlarged
from workers.passes import (
    Ability,
    Exclusive,
    Forward,
    Gradient,
    Pass,
    Plan,
    Scalar,
    Step,
    Targets,
    TimeUp,
)
from workers.rows import INPUT, LEAVES, VALUES, Box, Clean, ablated
from workers.runtimes.base import Probe
from workers.sliding.blend import blended, blended_scores, parts, rivals_of
from workers.sliding.boxes import gathered, parts_of, placed
from workers.sliding.lent import led
from workers.sliding.regions import Region, Share
from workers.sliding.rows import Source
from workers.sliding.seen import Seen, demand_sums, met_by, regions_among, seen_of
from workers.tabular import Tabular
from workers.tiling import Tiling
from workers.union import joined

R = TypeVar("R")

SERVED: Final = frozenset(
    {
        Ability.FORWARD,
        Ability.INPUT_GRADIENT,
        Ability.LAYER_GRADIENT,
        Ability.RECTIFIER_RULES,
        Ability.PATH_GRADIENT,
    }
)
"""Abilities of a network on windows that its answer on the whole image has too."""

UNSERVED: Final = (
    "The model is given its image window by window: each window has activations and attention of "
    "its own, and the network is never run on the whole image."
)


LOST_WITH_BOXES: Final = frozenset({Ability.ACTIVATIONS, Ability.ABLATION})
"""Abilities that a detection in windows lacks: methods with derivatives are run in the one window
of a box, where the network can do all that it can; others see every window of the box."""


def windowed(probe: Probe, rules: SlidingWindow) -> Probe:
    """Return what of a network's abilities holds for images that are given in windows."""
    lost = LOST_WITH_BOXES if rules.blend == "none" else probe.abilities - SERVED
    return replace(
        probe,
        abilities=probe.abilities - lost,
        unable={**probe.unable, **dict.fromkeys(lost, UNSERVED)},
    )


@dataclass(frozen=True, slots=True, eq=False)
class Sliding:
    """One job's way through windows.

    Parameters
    ----------
    rules
        What the manifest says of windows.
    like
        A tensor of the model's floating type, on its device.
    part
        The windows, where an image is a part of a larger one.
    """

    rules: SlidingWindow
    like: Tensor
    part: Tiling | None = None

    def tiling(self, shape: Sequence[int]) -> Tiling:
        """Return the windows over an image of shape ``(C, *spatial)``."""
        return self.part or Tiling(self.rules, tuple(shape[1:]))

    def windows(self, shape: Sequence[int], targets: Targets = ()) -> int:
        """Return how many windows of an image matter to targets, or to its whole answer."""
        tiling = self.tiling(shape)
        met = met_by([seen_of(each, tiling) for each in targets])
        return len(met) if targets else tiling.count

    def rows(self, method: Method, shape: Sequence[int], targets: Targets) -> int:
        """Return the windows that the network is given for the maps of a method."""
        if self.rules.blend != "none":
            return method.estimate(shape, len(targets)).rows * self.windows(shape, targets)
        return sum(
            method.estimate((shape[0], *each.tiling.shape), len(each.asked)).rows
            * each.tiling.count
            for each in parts_of(targets, self.tiling(shape))
        )

    def led(self, plan: Plan[R]) -> Plan[R]:
        """Return a plan of passes over windows that does what `plan` does over whole images."""
        guide = _Guide(self)
        with closing(plan):
            try:
                asked = next(plan)
                while True:
                    try:
                        answer = yield from guide.answer(asked)
                    except TimeUp as late:
                        asked = plan.throw(late)
                    else:
                        asked = plan.send(answer)
            except StopIteration as stop:
                result: R = stop.value
                return result

    def maps(
        self, method: Method, image: Tensor, targets: Targets, tabular: Tabular | None
    ) -> Plan[Maps]:
        """Return a plan of a method on an image, shape ``(C, *spatial)``, and what is beside it.

        A method that looks into a layer makes a map of each window, of what that
        window alone says of the region; the maps are blended as answers are. Of a
        box every method makes a map of what its windows cover.
        """
        if self.rules.blend == "none":
            return self._placed_maps(method, image, targets, tabular)
        if Ability.LAYER_GRADIENT in method.needs:
            return self._blended_maps(method, image, targets)
        return self.led(method.joint(image, targets, tabular))

    def _placed_maps(
        self, method: Method, image: Tensor, targets: Targets, tabular: Tabular | None
    ) -> Plan[Maps]:
        tiling = self.tiling(image.shape)
        padded, seen = tiling.padded(image), parts_of(targets, tiling)
        plans = []
        for part in seen:
            own = padded[:, *part.box].contiguous()
            if method.differentiates():
                plans.append(method.joint(own, part.alone, tabular))
            else:
                within = replace(self, part=part.tiling)
                plans.append(within.led(method.joint(own, part.targets, tabular)))
        made = yield from abreast(plans)
        return placed(seen, made, tiling)

    def _blended_maps(self, method: Method, image: Tensor, targets: Targets) -> Plan[Maps]:
        tiling = self.tiling(image.shape)
        source = Source(Clean(image), 0, tiling, self.like)
        regions = [Region(each, tiling) for each in targets]
        rivals = yield from rivals_of(source, regions)
        total: Tensor | None = None
        for window in met_by(regions):
            meeting = [k for k, each in enumerate(regions) if window in each.windows]
            own = tuple(Share(regions[k], window, rivals[k], blended=False) for k in meeting)
            made: Maps = yield from method.plan(source.cut(window).contiguous(), own)
            values = enlarged(made.values, tiling.size)
            if total is None:
                shape = (len(targets), values.shape[1], *tiling.extent)
                total = values.new_zeros(shape)
            share = tiling.share(window).to(values)
            for k, each in zip(meeting, values, strict=True):
                total[k][:, *tiling.boxes[window]] += share * each
        assert total is not None  # noqa: S101 - no region is empty
        return Maps(total[:, :, *tiling.inner], cells(tiling.shape, tiling.shape))


class _Guide:
    """Answers the passes of one plan."""

    def __init__(self, sliding: Sliding) -> None:
        self._sliding = sliding
        self._known: dict[tuple[Hashable, Targets], dict[int, Tensor]] = {}
        """What a window of an unchanged image says of each target, shape ``(K,)``, by number."""

        self._met: dict[tuple[Scalar, tuple[int, ...]], Seen] = {}

    def answer(self, asked: Pass | tuple[Pass, ...]) -> Plan[Any]:
        """Return what a plan is resumed with."""
        if not isinstance(asked, tuple):
            return (yield from self._one(asked))
        steps: tuple[Any, ...] = ()
        for each in asked:
            step = yield from self._one(each)
            steps = (*steps, step)
        return steps

    def _one(self, ask: Pass) -> Plan[Any]:
        if isinstance(ask, Exclusive):
            return (yield led(ask, self._sliding.rules))
        shape = ask.rows.shapes[INPUT]
        _require_servable(ask)
        tiling = self._sliding.tiling(shape)
        steps = []
        for row in range(ask.rows.count):
            source = Source(ask.rows, row, tiling, self._sliding.like)
            if isinstance(ask, Gradient):
                step = yield from self._gradient(ask, row, source)
            else:
                step = yield from self._forward(ask, row, source)
            if ask.fold is None:
                steps.append(step)
            else:
                ask.fold(row, step)
        return joined(steps, ask.rows.count)

    def _seen(self, targets: Targets, tiling: Tiling) -> list[Seen]:
        """Return targets under a tiling; their masks are looked through but once."""
        for each in targets:
            if (each, tiling.shape) not in self._met:
                self._met[each, tiling.shape] = seen_of(each, tiling)
        return [self._met[each, tiling.shape] for each in targets]

    # -------------------------------------------------------------------- scores

    def _forward(self, ask: Forward, row: int, source: Source) -> Plan[Step]:
        """Serve one row of a forward pass."""
        if ask.outputs:
            whole = gathered if self._sliding.rules.blend == "none" else blended
            outputs = yield from whole(source)
            said = [target(outputs) for target in ask.targets]
            return Step(row, 1, scores=torch.stack(said, 1) if said else None, outputs=outputs)
        seen = self._seen(ask.targets, source.tiling)
        regions = regions_among(seen)
        if any(each.of_others for each in regions):
            scores = yield from blended_scores(source, regions)
        else:
            scores = yield from self._joined_scores(source, ask.targets, seen)
        return Step(row, 1, scores=scores[None].to(self._sliding.like.dtype))

    def _joined_scores(
        self, source: Source, targets: Targets, seen: Sequence[Seen]
    ) -> Plan[Tensor]:
        """Return the scores of a row, of what each window says of them; float64, shape ``(K,)``.

        Of a changed version of an image only the windows that changed are
        computed: every other window says what it always does.
        """
        windows = met_by(seen)
        clean = source.clean
        known = {} if clean is None else self._known.setdefault((clean.token, targets), {})
        changed = [each for each in windows if clean is None or source.touches(each)]
        missing = [each for each in windows if each not in known and each not in changed]
        if clean is not None and missing:
            known.update(zip(missing, (yield from parts(clean, seen, missing)).T, strict=True))
        said = dict(known)
        if changed:
            new = yield from parts(source, seen, changed)
            said.update(zip(changed, new.T, strict=True))
        return torch.stack(
            [
                each.total(torch.stack([said[window][k] for window in each.windows]))
                for k, each in enumerate(seen)
            ]
        )

    # ----------------------------------------------------------------- gradients

    def _gradient(self, ask: Gradient, row: int, source: Source) -> Plan[Step]:
        """Serve one row of a gradient pass."""
        tiling = source.tiling
        seen = self._seen(ask.targets, tiling)
        demand_sums(seen)
        rivals = yield from rivals_of(source, seen)
        sums = _Sums.over(source, len(seen), self._sliding.like)
        asks = []
        for window in met_by(seen):
            meeting = [k for k, each in enumerate(seen) if window in each.windows]
            asks.append(
                Gradient(
                    source.rows((window,)),
                    tuple(seen[k].part(window, rivals[k]) for k in meeting),
                    at=ask.at,
                    rule=ask.rule,
                    fold=partial(sums.add, meeting, tiling.boxes[window]),
                )
            )
        yield tuple(asks)
        return sums.step(row, ask.at)


def _require_servable(ask: Forward | Gradient) -> None:
    """Refuse what lies in layers, of which each window has its own."""
    inside = set(ask.at) - LEAVES if isinstance(ask, Gradient) else ask.taps
    if inside or ablated(ask.rows):
        raise UnservablePass(UNSERVED)


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """What the windows of a row add up to."""

    tiling: Tiling
    scores: Tensor
    """Float64, shape ``(K,)``."""

    image: Tensor
    """Gradients on the padded image, shape ``(K, C, *extent)``."""

    values: Tensor
    """Gradients of the numbers beside it, shape ``(K, variables)``."""

    @classmethod
    def over(cls, source: Source, targets: int, like: Tensor) -> "_Sums":
        """Return sums of nothing yet."""
        variables = 0 if source.values is None else len(source.values)
        return cls(
            source.tiling,
            like.new_zeros(targets, dtype=torch.float64),
            like.new_zeros(targets, source.channels, *source.tiling.extent),
            like.new_zeros(targets, variables),
        )

    def add(self, targets: Sequence[int], box: Box, _start: int, step: Step) -> None:
        """Add a window's gradients and scores."""
        assert step.scores is not None  # noqa: S101 - a gradient pass has targets
        for at, k in enumerate(targets):
            self.scores[k] += step.scores[0, at]
            if INPUT in step.gradients:
                self.image[k][:, *box] += step.gradients[INPUT][0, at]
            if VALUES in step.gradients:
                self.values[k] += step.gradients[VALUES][0, at]

    def step(self, row: int, at: Sequence[str]) -> Step:
        """Return the sums as what a pass of one row gives, with gradients at these places."""
        found = {INPUT: self.image[None][:, :, :, *self.tiling.inner], VALUES: self.values[None]}
        gradients = {place: found[place] for place in at}
        return Step(row, 1, scores=self.scores[None].to(self.image.dtype), gradients=gradients)
