"""Judge: every measure asks every map, before anything is drawn.

What measures must ask the model (the probe bank, the expected region) goes to
the scheduler in one go, like the plans of methods: once for an image, whatever
the number of its maps. It is asked in float32 always, so that maps in any
precision are held against what the model says; methods are run again in theirs.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.domain.certificate import MethodRecord
from service.domain.explanation import Check
from service.domain.grid import Grid
from service.domain.precision import Precision, PrecisionRecord
from service.domain.request import Annotation
from service.domain.resolved import ResolvedTarget
from service.domain.trust import Flag, Probes
from service.errors.base import WhylightError
from workers.access import Access
from workers.binding import Seen
from workers.device import sent
from workers.margins import margins
from workers.measures.bank import BANK, Bank
from workers.measures.base import MEASURES, Box, Case, Inquiry, Measure, Scene
from workers.measures.bearing import described
from workers.measures.integrity import DEGENERATE
from workers.methods.base import METHODS, Maps, Method
from workers.parcels import Attributed, Attribution, Judged, Prepared, Verdict
from workers.passes import Ability, Scalar
from workers.records import NO_CLASS, NO_LOGIT
from workers.regions import inside
from workers.restriction import restrict
from workers.running import Planned
from workers.targets.scalars import ClassLogit
from workers.trust import Known, trust_report
from workers.views import Place, piece, seen

SCORES_ALONE: Final = frozenset({Ability.FORWARD})

UNJUDGED: Final = Verdict(checks=(), degenerate=False)

SAMPLED: Final = 100
"""One job in so many has its methods run again, whether asked or not."""

DECIMALS: Final = 3
"""Of a count of pixels, whose rounding errors must not decide."""

Values = NDArray[np.float32]

Part = str | int | None
"""Key of a view, number of a bag's slice, or `None` of one image or volume."""

Answers = Mapping[Part, Mapping[str, Any]]
"""What the model answered, by part and inquiry."""


def judge(attributed: Attributed, access: Access, seen: Seen) -> Judged:
    """Check every map, unless the request wants none checked.

    Whether a map is degenerate is judged always, because such a map must never
    be drawn in color.

    Parameters
    ----------
    access
        The job's way to its model.
    seen
        The maps that this worker made before.

    Raises
    ------
    Cancelled, Draining, LeaseLost
        The job was stopped. Passes that fail for another reason leave their
        measures unanswered, and no map supported by them.
    """
    bench = _Bench(attributed, access, seen)
    answers, again = bench.ask()
    return Judged(attributed, bench.verdicts(answers, again))


@dataclass(frozen=True, slots=True)
class _Bench:
    """The maps of one job, and what is needed to judge them."""

    attributed: Attributed
    access: Access
    seen: Seen

    # ------------------------------------------------------- what the model is asked

    def ask(self) -> tuple[Answers, Mapping[str, Mapping[str, Values]]]:
        """Return the answers by view and inquiry, and by method the maps of a second run by key."""
        if not any(each.values is not None for each in self.attributed.attributions):
            return {}, {}
        image = self._image()
        asked = [
            (part, scene, inquiry)
            for part, scene in self._scenes(image)
            for inquiry in self._inquiries()
            if inquiry.rows(scene)
        ]
        repeated = list(self._repeated())
        plans = [self._planned(image, *each) for each in asked]
        again = [
            self.access.mapped(method, image, tuple(dict.fromkeys(map(self._scalar, targets))))
            for method, targets in repeated
        ]
        answers: dict[Part, dict[str, Any]] = {}
        for (part, _, inquiry), said in zip(asked, self._served(plans, "float32"), strict=True):
            if not isinstance(said, WhylightError):
                answers.setdefault(part, {})[inquiry.name] = said
        runs = zip(repeated, self._served(again, self._precision), strict=True)
        return answers, {
            method.name: self._by_key(targets, maps)
            for (method, targets), maps in runs
            if not isinstance(maps, WhylightError) and not maps.partial
        }

    def _planned(self, image: Tensor, part: Part, scene: Scene, inquiry: Inquiry) -> Planned[Any]:
        """Return the plan of an inquiry; about one view or slice, others stay as they are."""
        plan, rows = inquiry.plan(scene), inquiry.rows(scene)
        place = self.attributed.prepared.place(part)
        if place is not None:
            plan = seen(plan, Place(image, place, scene.image))
        return self.access.planned(plan, rows, image, scene.scalars)

    def _by_key(self, targets: Sequence[ResolvedTarget], maps: Maps) -> dict[str, Values]:
        """Return the maps of a second run by the targets' keys."""
        scalars = list(dict.fromkeys(map(self._scalar, targets)))
        place = self.attributed.prepared.place
        return {
            each.key: piece(maps, scalars.index(self._scalar(each)), place(each.part)).values
            for each in targets
        }

    def _served(self, plans: Sequence[Planned[Any]], precision: Precision) -> tuple[Any, ...]:
        """Have plans served, if there are any, and return their outcomes."""
        if not plans:
            return ()
        return self.access.serve(plans, self.access.held.report, precision=precision).outcomes

    @property
    def _precision(self) -> Precision:
        """What the maps were computed in."""
        return self.attributed.prepared.decoded.fetched.request.precision

    def _image(self) -> Tensor:
        """Return the image, or all views, on the model's device."""
        runtime = self.access.model.runtime
        tensor = torch.from_numpy(self.attributed.prepared.tensor)
        return sent(tensor, runtime.device, runtime.dtype)

    def _scenes(self, image: Tensor) -> Iterator[tuple[Part, Scene]]:
        """Yield the image as measures see it; each view by itself, and each slice asked about."""
        prepared = self.attributed.prepared
        views: list[Part] = [each.key for each in prepared.seen]
        asked = {each.target.part for each in self.attributed.chosen}
        for part in views or sorted(asked, key=str):
            place = prepared.place(part)
            own = image if place is None else image[:, place].contiguous()
            yield part, self._scene(own, prepared.of(part))

    def _scene(self, image: Tensor, prepared: Prepared) -> Scene:
        facts, model = prepared.decoded.facts, self.access.model
        place = inside(model.manifest, model.region, prepared.grid, facts.shape, facts.regions)
        scores = np.array(list(self._scores.values()))
        return Scene(image, place, scores, tuple(self._scores), pixels=_pixels(prepared))

    @property
    def _classes(self) -> tuple[ClassLogit, ...]:
        """Return the logits of a classifier; no other model has scalars of its own."""
        if not self.access.model.manifest.task.startswith("classification"):
            return ()
        return tuple(ClassLogit(each.index) for each in self.attributed.predictions)

    @property
    def _scores(self) -> dict[Scalar, float]:
        """Return the value of every class's logit, and of what else is explained."""
        said = [each.logit for each in self.attributed.predictions]
        known: dict[Scalar, float] = dict(zip(self._classes, said, strict=False))
        return known | {each.scalar: each.target.score for each in self.attributed.chosen}

    def _inquiries(self) -> list[Inquiry]:
        """Return what the measures have to ask, each once."""
        asked = (measure.inquiry for measure in self._measures() if measure.inquiry)
        return list(dict.fromkeys(asked))

    def _measures(self) -> list[type[Measure]]:
        """Return the measures of the level that was asked for."""
        level = self.attributed.prepared.decoded.fetched.request.checks
        if level == "none":
            return []
        full = level == "full" or self._sampled()
        return [each for _, each in MEASURES.items() if full or each.when == "standard"]

    def _sampled(self) -> bool:
        """Tell whether this job is one of those whose methods are run again anyway."""
        job = self.attributed.prepared.decoded.fetched.lease.job.id
        return int(hashlib.sha256(job.encode()).hexdigest()[:8], 16) % SAMPLED == 0

    def _repeated(self) -> Iterator[tuple[Method, tuple[ResolvedTarget, ...]]]:
        """Yield each method that is to be run again, with the targets of its maps."""
        if not any(measure.again for measure in self._measures()):
            return
        methods: dict[str, list[Attribution]] = {}
        for each in self.attributed.attributions:
            if each.values is not None and each.target is not None and not each.partial:
                methods.setdefault(each.method, []).append(each)
        for group in methods.values():
            targets = tuple(each.target for each in group if each.target is not None)
            yield settled(group[0]).settled(self.access.model.facts), targets

    def _scalar(self, target: ResolvedTarget) -> Scalar:
        """Return what the engine computed for a target."""
        return next(each.scalar for each in self.attributed.chosen if each.target == target)

    # ----------------------------------------------------------------------- the maps

    def verdicts(
        self, answers: Answers, again: Mapping[str, Mapping[str, Values]]
    ) -> tuple[Verdict, ...]:
        """Ask every measure about all maps of an image; a method that failed has none."""
        maps = {
            k: each
            for k, each in enumerate(self.attributed.attributions)
            if each.values is not None and each.grid is not None and each.target is not None
        }
        known = {k: self._known(each) for k, each in maps.items()}
        parts: dict[Part, list[int]] = {}
        for k, each in maps.items():
            parts.setdefault(each.target.part if each.target else None, []).append(k)
        asked = self._measures() or [MEASURES["integrity"]]
        judged: dict[int, Verdict] = {}
        for part, of_part in parts.items():
            cases = [
                self._case(maps[k], answers.get(part, {}), known[k], again.get(maps[k].method, {}))
                for k in of_part
            ]
            said = zip(*(measure().judge_all(cases) for measure in asked), strict=True)
            for k, case, checks in zip(of_part, cases, said, strict=True):
                judged[k] = self._verdict(maps[k], known[k], case, checks)
        return tuple(judged.get(k, UNJUDGED) for k in range(len(self.attributed.attributions)))

    def _verdict(
        self, attribution: Attribution, known: Known, case: Case, said: tuple[Check, ...]
    ) -> Verdict:
        """Return what there is to say of one map."""
        degenerate = any(DEGENERATE in check.flags for check in said)
        blank = any(Flag.EVIDENCE_ELSEWHERE in check.flags for check in said)
        duplicate = attribution.binding is not None and self.seen.is_duplicate(
            attribution.binding, degenerate=degenerate or blank
        )
        report = trust_report(
            attribution,
            said,
            known=known,
            parity=self.attributed.parity,
            duplicate=duplicate,
            measured=self._measured(attribution),
        )
        return Verdict(
            checks=said if self._measures() else (),
            degenerate=degenerate,
            blank=blank,
            trust=report,
            probes=_probes(case),
            reference=_reference(known),
        )

    def _known(self, attribution: Attribution) -> Known:
        """Return what is known of the method on this model, which is of classes' logits alone."""
        if attribution.target is None or attribution.target.kind != "class":
            return NO_CLASS
        if not attribution.target.is_logit:
            return NO_LOGIT
        return self.access.model.records.record(settled(attribution))

    def _measured(self, attribution: Attribution) -> PrecisionRecord | None:
        """Return what was measured of the precision, where it is not the usual one."""
        if self._precision == "float32":
            return None
        return self.access.model.precisions.known(settled(attribution))

    def _case(
        self,
        attribution: Attribution,
        answers: Mapping[str, Any],
        known: Known,
        again: Mapping[str, Values],
    ) -> Case:
        """Return a map with all that is known of it."""
        grid, target = attribution.grid, attribution.target
        assert attribution.values is not None  # noqa: S101 - the caller looked
        assert grid is not None  # noqa: S101 - likewise
        assert target is not None  # noqa: S101 - likewise
        prepared = self.attributed.prepared.of(target.part)
        classes, of_class = self._classes, target.is_logit
        regions, second = prepared.decoded.facts.regions, again.get(target.key)
        place = self.attributed.prepared.place(target.part) or 0
        values = np.asarray(attribution.values, np.float32)
        if target.slice is not None:  # its map is zero elsewhere
            values, grid = values[:, place], Grid(grid.shape[1:], grid.affine[1:, 1:])
        known_margins = self.access.model.known_margins[place : place + 1]
        back = np.asarray(np.linalg.inv(prepared.grid.affine) @ grid.affine, np.float64)
        return Case(
            values=values,
            score=target.score,
            of_scores=METHODS[attribution.method].needs <= SCORES_ALONE,
            extras=attribution.extras,
            beside=sum(each.relevance for each in attribution.variables) + attribution.elsewhere,
            elsewhere=(attribution.view and attribution.view.full) or 0.0,
            grid=Grid(grid.shape, back),
            extent=prepared.grid.shape,
            pixels=_pixels(prepared),
            source=grid,
            target=list(self._scores).index(self._scalar(target)),
            rivals=tuple(range(len(classes))) if of_class else (),
            gap=self.access.model.gaps.get(target.index) if of_class else None,
            answers=answers,
            template=_template(known, target.key),
            again=None if second is None else restrict(second, grid, regions)[0],
            margins=margins(prepared.tensor) if known_margins else (),
            known_margins=next(iter(known_margins), None),
            image=prepared.decoded.facts.shape[-len(grid.shape) :],
            boxes=_boxes(prepared.decoded.fetched.request.annotations, target),
            partial=attribution.partial,
            left_out=attribution.restriction.outside_sum if attribution.restriction else 0.0,
        )


def settled(attribution: Attribution) -> Method:
    """Return the method of a map as it ran, all of its parameters settled."""
    return METHODS[attribution.method].model_validate(attribution.parameters)


def _pixels(prepared: Prepared) -> float:
    """Return the fewest pixels of the source along an axis of what the model takes of it."""
    taken = np.round(np.multiply(prepared.grid.shape, prepared.grid.cell), DECIMALS)
    return min(*prepared.decoded.facts.shape, float(taken.min()))


def _boxes(annotations: Sequence[Annotation], target: ResolvedTarget) -> tuple[Box, ...]:
    """Return the boxes that a reader drew for a class; of one slice, what of them lies on it."""
    boxes = tuple(
        each.box
        for each in annotations
        if each.of in (target.about, target.index) and each.view == target.view
    )
    if target.slice is None:
        return boxes
    center = target.slice - 0.5  # slice i, from 1, covers [i - 1, i) of a box
    return tuple((*box[1:3], *box[4:]) for box in boxes if box[0] <= center < box[3])


def _template(known: Known, key: str) -> NDArray[np.float64] | None:
    """Return the method's mean map of a class on this model, if it is known."""
    if not isinstance(known, MethodRecord) or known.calibration is None:
        return None
    template = known.calibration.templates.get(key)
    return None if template is None else np.array(template)


def _reference(known: Known) -> float | None:
    """Return the relevance that is drawn in full color, if it is known."""
    if not isinstance(known, MethodRecord) or known.calibration is None:
        return None
    return known.calibration.reference


def _probes(case: Case) -> Probes | None:
    """Return the probe bank as it stands for one map."""
    bank: Bank | None = case.answers.get(BANK.name)
    if bank is None:
        return None
    return described(case.extent, case.grid, bank.drops[:, case.target])
