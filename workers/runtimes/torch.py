"""Eager torch: every pass, on any device.

Parameters never require a gradient; passes run under `no_grad` or with a graph
that begins at the shallowest place where a gradient is wanted. Hooks stand on
the declared layers only, are installed once and do nothing outside a pass that
wants them.
"""

import copy
from collections.abc import Hashable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from service.errors.models import UnservablePass
from workers.passes import Ability, Exclusive, Lease, Rule
from workers.rows import INPUT, LEAVES, VALUES, Boxed
from workers.runtimes.attention import PREFIX, Attentions
from workers.runtimes.base import Fit, Probe, ReplicaChangedError, Segment, Served, Work
from workers.runtimes.batch import filled, guarded_scores, row_shape, spans
from workers.runtimes.capture import Ablation, Capture, Seat, hooked
from workers.runtimes.fingerprint import fingerprint
from workers.runtimes.folding import folded
from workers.runtimes.gradients import Gradients, gradients_of
from workers.runtimes.graphs import Graphs, padded
from workers.runtimes.incremental.rows import Incremental
from workers.runtimes.memory import Ledger, weight_bytes
from workers.runtimes.narrow import NARROW, narrowed
from workers.runtimes.rules import apply_rule
from workers.runtimes.staging import staged
from workers.runtimes.torch_layers import choose_layers, measured
from workers.runtimes.torch_probe import noise, probe
from workers.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Group:
    """What works must have in common to share a batch of torch."""

    shape: tuple[int, ...]
    rounds: tuple[tuple[str, ...], ...]
    """Places of each backward pass; one entry for any number where they cost little."""

    ragged: bool
    """Whether works with different numbers of targets may meet here."""

    taps: tuple[str, ...]
    outputs: bool
    rule: Rule
    ablated: str | None
    boxed: bool
    """Whether rows differ from their images in boxes, and only the model's end is asked for."""


class TorchRuntime:
    """One eager model on one device.

    Parameters
    ----------
    model
        Maps ``(N, C, *spatial)`` to outputs ``(N, ...)``; it is put into
        evaluation mode and moved to `device`.
    shape
        Shape of one row, ``(C, *spatial)``, used for probing.
    layers
        Module paths of layers that methods may use, the default first; chosen
        by a trial run if not given.
    fixed_rows
        Pad every batch to this many rows, so that a row's bits depend on the
        row alone: the deterministic mode.
    tokens
        Where a transformer's tokens lie; layers that put out such tokens are
        handed on as grids.
    variables
        How many numbers the model takes beside the image. Called with the image
        alone, as it is probed, it must take some of its own: see `Companions`.
    narrow
        Whether `model` was made by `narrowed`. What goes in and what comes out
        is float32 all the same.
    ledger
        Where memory is counted that copies take, one for all that are made of one replica.
    """

    def __init__(
        self,
        model: nn.Module,
        shape: Sequence[int],
        layers: Sequence[str] | None = (),
        *,
        device: torch.device | None = None,
        fixed_rows: int | None = None,
        tokens: Tokens | None = None,
        variables: int = 0,
        narrow: bool = False,
        ledger: Ledger | None = None,
    ) -> None:
        self._variables = variables
        self.device = device or torch.device("cpu")
        self.model = model.to(self.device).eval().requires_grad_(requires_grad=False)
        types = (each.dtype for each in model.parameters() if each.is_floating_point())
        self.dtype = torch.float32 if narrow else next(types, torch.float32)
        self._narrow = narrow
        self.shape = tuple(shape)
        self.tokens = tokens and measured(self.model, noise(self, 1), tokens)
        self.reasons: Mapping[str, str] = (
            choose_layers(self.model, noise(self, 2), self.tokens) if layers is None else {}
        )
        self.layers = tuple(self.reasons if layers is None else layers)
        self.fixed_rows = fixed_rows
        self._seat = Seat()
        self._ledger = ledger or Ledger()
        self._graphs = Graphs(self._ledger)
        self.served = self.model
        """Runs every pass: the model, or one that rounds differently and takes less time."""
        self._hooked = hooked(self.model)
        if not narrow and fixed_rows is None:
            self.served = folded(self.model, noise(self, 1), frozenset(self.layers))
        for network in {self.model, self.served}:
            self._seat.install(network, self.layers)
        self._state = fingerprint(self.model, self.served)

    @cached_property
    def probed(self) -> Probe:
        """What the replica can do; measured at the first call."""
        return probe(self)

    @property
    def extra_bytes(self) -> int:
        """Memory that copies of the model and captured passes take; any thread may ask."""
        return self._ledger.bytes

    def recall(self, probed: Probe) -> None:
        """Take as known what was probed of the same package before."""
        self.probed = probed

    @cached_property
    def _usable(self) -> frozenset[str]:
        return frozenset(layer.name for layer in self.probed.layers) | {*self.probed.attentions}

    @cached_property
    def _incremental(self) -> Incremental | None:
        """How boxed rows are served without computing what stays the same, if they can be.

        Not in the deterministic mode: the windows of a batch depend on all its rows.
        Nor in bfloat16, where both ways round differently, nor past a layer's own hooks.
        """
        if self.fixed_rows is not None or self.probed.mixes_rows or self._narrow or self._hooked:
            return None
        return Incremental.of(self.served, noise(self, 1)[0])

    # ------------------------------------------------------------------ grouping

    def group(self, work: Work) -> Hashable:
        """Return a key; works with equal keys may share a batch.

        Raises
        ------
        UnservablePass
            If the model has no such layer, or no gradient leads there.
        """
        taps = tuple(tap.place for tap in work.taps)
        self._require_servable(work, taps)
        rounds = tuple(places for places in work.places if places)
        ragged = len(set(rounds)) == 1 and self.probed.cheap_heads.issuperset(rounds[0])
        return Group(
            shape=row_shape(work, self._variables),
            rounds=rounds[:1] if ragged else rounds,
            ragged=ragged,
            taps=taps,
            outputs=work.outputs,
            rule=work.rule,
            ablated=work.ablated,
            boxed=isinstance(work.rows, Boxed)
            and not (rounds or taps)
            and self._incremental is not None,
        )

    def _require_servable(self, work: Work, taps: Sequence[str]) -> None:
        lacking = () if work.ablated is None else (work.ablated,)
        unknown = {*work.at, *taps, *lacking} - LEAVES - self._usable
        if unknown:
            names = ", ".join(sorted(unknown))
            raise UnservablePass(f"The model has no usable layer {names}.")
        if work.at and Ability.INPUT_GRADIENT not in self.probed.abilities:
            raise UnservablePass("The model's outputs have no gradient.")
        if work.rule is not Rule.PLAIN and (why := self.probed.unable.get(Ability.RECTIFIER_RULES)):
            raise UnservablePass(why)

    def fits(self, group: Hashable) -> Fit:
        """Return what a batch of the group may hold, and what of memory that takes."""
        assert isinstance(group, Group)  # noqa: S101 - the key is this runtime's own
        # a cut at a layer needs no more than the whole gradient does
        need = self.probed.row_bytes["gradient" if group.rounds else "forward"]
        fixed = self.fixed_rows is not None
        return Fit(1 if self.probed.mixes_rows else self.fixed_rows, fixed, need)

    # ------------------------------------------------------------------- serving

    def serve(self, group: Hashable, segments: Sequence[Segment]) -> list[Served | Exception]:
        """Run one batch; one answer for each segment, in order."""
        assert isinstance(group, Group)  # noqa: S101 - the key is this runtime's own
        outputs, found, answers = self._run(group, segments)
        apply_rule(outputs, group.rule)
        scores: dict[int, Tensor] = {}
        for k, (segment, span) in enumerate(zip(segments, spans(segments), strict=True)):
            if k in answers or not segment.work.targets:
                continue
            score = guarded_scores(outputs[span], segment.work)
            if isinstance(score, Tensor):
                scores[k] = score
            else:
                answers[k] = score
        works = [segment.work for segment in segments]
        gradients = gradients_of(works, scores, found)
        found = {place: self.on_grid(output.detach()) for place, output in found.items()}
        served = [
            answers.get(k)
            or _served(
                works[k],
                span,
                outputs,
                found,
                scores=scores.get(k),
                gradients=self._cut(gradients[k], span),
            )
            for k, span in enumerate(spans(segments))
        ]
        return staged(served) if self.device.type == "cuda" else served

    def on_grid(self, output: Tensor) -> Tensor:
        """Return a layer's output, or gradients there, as a grid if it is tokens."""
        return output if self.tokens is None else self.tokens.on_grid(output)

    def _cut(self, gradients: Gradients, span: slice) -> Gradients:
        """Return one segment's rows."""
        return {
            (k, place): grad[span] if place in LEAVES else self.on_grid(grad[span])
            for (k, place), grad in gradients.items()
        }

    def _run(
        self, group: Group, segments: Sequence[Segment]
    ) -> tuple[Tensor, dict[str, Tensor], dict[int, Exception]]:
        """Return the outputs, what the input and each place hold, and failures by segment."""
        if group.boxed and self._incremental is not None:
            return self._incremental.outputs(segments), {}, {}
        rows = sum(segment.count for segment in segments)
        graphed = self._graphed(group)
        if self.fixed_rows is not None:
            size = max(rows, self.fits(group).rows or 0)
        else:
            size = padded(rows) if graphed else rows
        batch, failures = filled(segments, size, self.dtype, self.device)
        if graphed:
            outputs, found = self._graphs.forward(self._plain, batch[INPUT], group.taps)
            return outputs, {**found, **batch}, failures
        at = {place for places in group.rounds for place in places}
        place = group.ablated
        outputs, found = self.forward(
            batch[INPUT],
            {*group.taps, *at} - LEAVES,
            at,
            None if place is None else Ablation.of(place, segments, self.tokens),
            batch.get(VALUES),
        )
        return outputs, {**found, **batch}, failures

    def _graphed(self, group: Group) -> bool:
        """Tell whether a group's passes may be captured: on CUDA, with nothing but the model."""
        return (
            self.device.type == "cuda"
            and not (group.rounds or self._variables)
            and group.ablated is None
            and not any(place.startswith(PREFIX) for place in group.taps)
        )

    def _plain(self, batch: Tensor, places: tuple[str, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the model without a gradient."""
        return self.forward(batch, set(places), set())

    def forward(
        self,
        batch: Tensor,
        places: set[str],
        at: set[str],
        ablation: Ablation | None = None,
        values: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the model; return its outputs and what `places` put out.

        The graph begins at the inputs that are among `at`, else at the
        shallowest layer among them.

        Parameters
        ----------
        values
            Numbers beside the image, shape ``(rows, variables)``.
        """
        lacking = set() if ablation is None else {ablation.place}
        capture = Capture(places | lacking, at, ablation)
        batch.requires_grad_(INPUT in at)
        beside = () if values is None else (values.requires_grad_(VALUES in at),)
        seen = any(place.startswith(PREFIX) for place in places)
        with (
            torch.set_grad_enabled(bool(at)),
            self._seat.watching(capture),
            Attentions(capture.take) if seen else nullcontext(),
        ):
            outputs: Tensor = self.served(batch, *beside)
        capture.require_all()
        return outputs, capture.found

    def capture_all(self, batch: Tensor) -> tuple[object, Capture]:
        """Run the model with a gradient everywhere; nothing is required of the layers."""
        capture = Capture(self.layers, self.layers)
        with torch.enable_grad(), self._seat.watching(capture):
            outputs: object = self.model(batch.requires_grad_())
        return outputs, capture

    # --------------------------------------------------------------- whole model

    def lend(self, work: Exclusive, until: float) -> Any:
        """Lend the model to `work` until a moment of `time.monotonic`."""
        self._require_copies()
        given = work.work(Lease(self.model, until))
        self.check()
        return given

    def variant(self, model: nn.Module | None) -> "TorchRuntime":
        """Serve the model as it is, or a copy whose weights were changed, a row at a time.

        What was probed holds for it. Its batches have one row: a row's bits
        depend on the row alone, and nobody waits longer for the device than that.
        """
        self._require_copies()
        network = copy.deepcopy(self.model) if model is None else model
        variant = TorchRuntime(
            network,
            self.shape,
            self.layers,
            device=self.device,
            fixed_rows=1,
            tokens=self.tokens,
            variables=self._variables,
            ledger=self._ledger,
        )
        return self._entered(variant)

    def recast(self, dtype: torch.dtype) -> "TorchRuntime":
        """Serve a copy of the model in another floating type; what was probed holds for it.

        In bfloat16 only products are taken, see `narrowed`.
        """
        self._require_copies()
        narrow, row = dtype is NARROW, noise(self, 1)
        recast = TorchRuntime(
            narrowed(self.model, row) if narrow else copy.deepcopy(self.model).to(dtype),
            self.shape,
            self.layers,
            device=self.device,
            fixed_rows=self.fixed_rows,
            tokens=self.tokens,
            variables=self._variables,
            narrow=narrow,
            ledger=self._ledger,
        )
        return self._entered(recast)

    def _require_copies(self) -> None:
        """Raise `UnservablePass` where a copy would not be the model."""
        if why := self.probed.unable.get(Ability.EXCLUSIVE):
            raise UnservablePass(why)
        if self._hooked:  # what it keeps of the last pass may have a graph, which is not copied
            with torch.no_grad():
                self.model(noise(self, 1))

    def _entered(self, copied: "TorchRuntime") -> "TorchRuntime":
        """Count a copy's memory with this one's, and tell it what was probed."""
        copied.probed = self.probed
        held = nn.ModuleList((copied.model, copied.served))
        self._ledger.enter(copied, weight_bytes(held))
        return copied

    def check(self) -> None:
        """Raise `ReplicaChangedError` unless the replica is as it was at start."""
        if fingerprint(self.model, self.served) != self._state:
            raise ReplicaChangedError


def _served(
    work: Work,
    span: slice,
    outputs: Tensor,
    found: dict[str, Tensor],
    *,
    scores: Tensor | None,
    gradients: Gradients,
) -> Served:
    """Return what the batch gave for one segment, free of the graph."""
    return Served(
        scores=None if scores is None else scores.detach(),
        gradients=gradients,
        activations={place: found[place][span] for place in work.at if place not in LEAVES},
        taps={tap: found[tap.place][span] for tap in work.taps},
        outputs=outputs.detach()[span] if work.outputs else None,
    )
