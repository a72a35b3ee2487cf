"""Attribute: what the model says of the image, and why, by every method asked for.

The clean forward pass comes first: whether this is the result that was asked
about, and what the targets are, depend on it. Then all methods are handed to
the scheduler together, so that they share passes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from service.domain.explanation import BagInstance, ExecutedOn, InstanceShare, TargetLayer
from service.domain.parity import Parity
from service.domain.precision import Precision
from service.domain.request import MethodChoice
from service.domain.resolved import ResolvedTarget
from service.domain.value import Sha256
from service.domain.variable import VariableShare
from service.errors.base import Failure, WhylightError
from service.errors.models import SurrogateDisagrees
from service.errors.studies import NothingToExplain
from workers.access import Access
from workers.agreement import disagreement
from workers.bags import alone, named, ranked, weighed
from workers.binding import bound
from workers.device import sent
from workers.methods.base import Maps, Method
from workers.parcels import Attributed, Attribution, Prepared
from workers.parity import compare, refusal
from workers.passes import Exclusive, Forward, Lease, Plan
from workers.restriction import padding_share, restrict
from workers.rows import Clean
from workers.running import Planned
from workers.tabular import shared
from workers.targets.base import Answer, Chosen, distinct
from workers.targets.resolve import predict, resolve
from workers.views import piece, share

STAND_IN_SECONDS: Final = 30.0
"""For which the network that stands in for a model may be asked for its answer."""

ANSWER: Final = 0.1
"""Share of this stage's progress that is the model's own answer: many windows of a volume."""

NO_TARGET: Final = NothingToExplain("There was no target to explain.")


def attribute(prepared: Prepared, access: Access) -> Attributed:
    """Explain every target by every method.

    Parameters
    ----------
    access
        The job's way to its model.

    Returns
    -------
    Attributed
        One attribution for each method and target, method by method. A method
        that failed says so in its own attributions; a request for what is
        above its threshold, where nothing is, gives one without a target, and
        so does one for where a class is seen, which it is nowhere.

    Raises
    ------
    NonFiniteScore
        The model's answer on the image is not finite.
    ParityMismatch
        It is not what the issuing AI was observed to say, and must be.
    InvalidTarget
        The model has no such target.
    Cancelled, Draining, LeaseLost
        The job was stopped.
    """
    model = access.model
    image = sent(torch.from_numpy(prepared.tensor), model.runtime.device, model.runtime.dtype)
    request = prepared.decoded.fetched.request
    bench = _Bench(access, image, request.precision)
    volume = prepared.decoded.volume
    answer = Answer(
        model.manifest,
        bench.outputs(),
        prepared.grid,
        volume=None if volume is None else volume.matrix,
        given=prepared.given,
        views=prepared.seen,
        slices=_slices(prepared),
        references=_references(bench, prepared),
    )
    predictions = predict(answer)
    parity = access.held.parity = compare(request.observed, predictions)
    if parity.outcome is Parity.MISMATCHED and not request.allow_mismatch:
        raise refusal(parity)
    asked = resolve(request.targets, answer, predictions)
    shares = bench.instances(asked.chosen, prepared)
    attributions: list[Attribution] = []
    disagrees = bench.disagreement(request.methods, answer.outputs)
    for tried, outcome in bench.explain(request.methods, asked.chosen, disagrees):
        targets = seen_by(tried.method, asked.chosen)
        attributions += _attributions(tried, targets, outcome, prepared)
        attributions += [tried.without_map(None, reason) for reason in asked.nothing]
    if shares:
        attributions = [
            replace(each, instances=shares.get(each.target.key, ())) if each.target else each
            for each in attributions
        ]
    maps = bound(prepared, model.ref, attributions)
    chosen = tuple(each for target in asked.chosen for each in target.every)
    return Attributed(prepared, predictions, maps, parity, chosen)


def _references(bench: "_Bench", prepared: Prepared) -> dict[str, tuple[Tensor, Sha256]]:
    """Return what the model says of each image that this one is held against, and its digest."""
    said = {}
    for name, each in prepared.references.items():
        image = sent(torch.from_numpy(each.tensor), bench.image.device, bench.image.dtype)
        said[name] = replace(bench, image=image).outputs(), each.sha256
    return said


def _slices(prepared: Prepared) -> tuple[BagInstance, ...]:
    """Return what the slices of a bag are called; nothing of all else."""
    bag = prepared.decoded.fetched.manifest.image.bag
    return named(prepared) if bag is not None and not prepared.views else ()


@dataclass(frozen=True, slots=True)
class _Tried:
    """A method as it was asked for, and as it runs."""

    choice: MethodChoice
    method: Method | None
    """With every parameter settled; `None` when it cannot run."""

    executed_on: ExecutedOn
    layer: TargetLayer | None
    work: Planned[Maps] | WhylightError
    """What is handed to the scheduler, or why nothing is."""

    @property
    def version(self) -> int | None:
        """Of the method, as it runs."""
        return self.method.version if self.method else None

    @property
    def parameters(self) -> dict[str, Any]:
        """Every parameter, also those that were not given."""
        return self.method.model_dump(mode="json") if self.method else dict(self.choice.parameters)

    @property
    def signed(self) -> bool:
        """Whether values below zero mean something."""
        return self.method is not None and self.method.signed

    def without_map(self, target: ResolvedTarget | None, failure: Failure) -> Attribution:
        """Return the attribution of a target that has no map, and why."""
        return Attribution(
            method=self.choice.name,
            version=self.version,
            parameters=self.parameters,
            signed=self.signed,
            target=target,
            values=None,
            grid=None,
            layer=self.layer,
            executed_on=self.executed_on,
            failure=failure,
        )


@dataclass(frozen=True, slots=True)
class _Bench:
    """The image on the device, and all that its passes go through."""

    access: Access
    image: Tensor
    precision: Precision
    """What maps are computed in; the model's answer is always float32's."""

    def outputs(self) -> Tensor:
        """Return the model's answer on the unchanged image, as of `Answer`."""
        manifest = self.access.model.manifest
        dense = manifest.task == "segmentation" or manifest.sliding_window is not None

        def plan() -> Plan[Tensor]:
            step = yield Forward(Clean(self.image), outputs=True)
            outputs: Tensor = step.outputs[0].detach().cpu()
            return outputs if dense else outputs.double()

        planned = self.access.planned(plan(), 1, self.image)
        (outcome,) = self.access.serve([planned], partial(self._report, 0.0, ANSWER)).outcomes
        if isinstance(outcome, WhylightError):
            raise outcome
        return outcome

    def _report(self, low: float, high: float, share: float) -> None:
        """Note the progress of what stands between two shares of the stage."""
        self.access.held.report(low + (high - low) * share)

    def disagreement(
        self, choices: Sequence[MethodChoice], outputs: Tensor
    ) -> SurrogateDisagrees | None:
        """Return that the model's stand-in says something else here, if a method runs on it."""
        if not any(self.access.model.executed_on(each.name) == "surrogate" for each in choices):
            return None

        def plan() -> Plan[Tensor]:
            answer: Tensor = yield Exclusive(partial(_answer, self.image), STAND_IN_SECONDS)
            return answer

        planned = self.access.planned(plan(), 1, self.image)
        (outcome,) = self.access.serve([planned]).outcomes
        if isinstance(outcome, WhylightError):
            raise outcome
        extent = self.image.shape[1:]
        return disagreement(self.access.model.manifest, outputs, outcome, extent)

    def instances(
        self, targets: Sequence[Chosen], prepared: Prepared
    ) -> dict[str, tuple[InstanceShare, ...]]:
        """Return what each instance of a bag adds, by target; nothing where there is no bag."""
        bag = self.access.model.manifest.image.bag
        if bag is None or not targets:
            return {}
        scalars = distinct(targets)
        plan = weighed(bag, self.image, scalars)
        planned = self.access.planned(plan, 1 + self.image.shape[1], self.image, scalars)
        (outcome,) = self.access.serve([planned]).outcomes
        if isinstance(outcome, WhylightError):
            raise outcome
        ranks = [ranked(outcome, k, prepared) for k in range(len(scalars))]
        return {each.target.key: ranks[scalars.index(each.scalar)] for each in targets}

    def explain(
        self,
        choices: Sequence[MethodChoice],
        targets: Sequence[Chosen],
        disagrees: SurrogateDisagrees | None,
    ) -> list[tuple[_Tried, Maps | WhylightError]]:
        """Return each method with its maps of all targets, or with its failure."""
        tried = [self._tried(choice, targets, disagrees) for choice in choices]
        works = [each.work for each in tried if isinstance(each.work, Planned)]
        served = (
            self.access.serve(
                works, partial(self._report, ANSWER, 1.0), precision=self.precision
            ).outcomes
            if targets and works
            else ()
        )
        outcomes = iter(served)
        return [
            (each, each.work if isinstance(each.work, WhylightError) else next(outcomes, NO_TARGET))
            for each in tried
        ]

    def _tried(
        self,
        choice: MethodChoice,
        targets: Sequence[Chosen],
        disagrees: SurrogateDisagrees | None,
    ) -> _Tried:
        """Settle a method and plan it; one that cannot run spares the others."""
        method, layer, where = None, None, self.access.model.executed_on(choice.name)
        try:
            method = self.access.model.settled(choice)
            layer = self.access.model.layer(choice, method)
            if self.precision != "float32":
                self.access.model.precisions.demand(method)
            if where == "surrogate" and disagrees is not None:
                raise disagrees
            scalars = distinct(seen_by(method, targets))
            work = self.access.mapped(method, self.image, scalars)
        except WhylightError as error:
            if error.retryable:  # the store is silent: the job waits for it
                raise
            return _Tried(choice, method, where, layer, error)
        return _Tried(choice, method, where, layer, work)


def seen_by(method: Method | None, targets: Sequence[Chosen]) -> tuple[Chosen, ...]:
    """Return targets as a method has them explained; as they are of one that cannot run."""
    return tuple(targets if method is None else (each.seen_by(method) for each in targets))


def _answer(image: Tensor, lease: Lease) -> Tensor:
    """Return what a model that was lent says of an image."""
    with torch.no_grad():
        (outputs,) = lease.model(image[None])
    answer: Tensor = outputs.double().cpu()
    return answer


def _shared(prepared: Prepared, shares: Sequence[float] | None) -> tuple[VariableShare, ...]:
    """Return what the values beside the image add, of those inputs that are asked about."""
    if shares is None:
        return ()
    fetched = prepared.decoded.fetched
    asked = fetched.manifest.explained(fetched.request.inputs)
    return shared(prepared.variables, shares, asked)


def _attributions(
    tried: _Tried,
    targets: Sequence[Chosen],
    outcome: Maps | WhylightError,
    prepared: Prepared,
) -> list[Attribution]:
    """Return one attribution for each target, with its map led back to the source.

    What an image's ultrasound regions leave out is not in the map.
    """
    if isinstance(outcome, WhylightError):
        return [tried.without_map(each.target, outcome.failure()) for each in targets]
    scalars = distinct(targets)
    made = []
    for each in targets:
        k, image = scalars.index(each.scalar), prepared.of(each.target.view)
        own = piece(outcome, k, prepared.place(each.target.view))
        among = share(outcome, k, prepared, image, signed=tried.signed)
        if each.target.slice is not None:
            own, among = alone(own, prepared, each.target.slice, signed=tried.signed)
        cells = own.cells.within(image.grid)
        values, restriction = restrict(own.values, cells, image.decoded.facts.regions)
        made.append(
            Attribution(
                method=tried.choice.name,
                version=tried.version,
                parameters=tried.parameters,
                signed=tried.signed,
                target=each.target,
                values=values,
                grid=cells,
                layer=tried.layer,
                restriction=restriction,
                padding_share=padding_share(values, cells, image.decoded.facts.shape),
                variables=_shared(prepared, own.shares),
                view=among,
                elsewhere=own.elsewhere,
                extras=dict(own.extras),
                executed_on=tried.executed_on,
                partial=outcome.partial,
            )
        )
    return made
