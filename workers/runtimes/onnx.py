"""ONNX on onnxruntime; what needs gradients, on the same graph interpreted in torch.

The session is built from bytes in which all external data is, so that no file
can be reached; layers are appended to the graph's outputs and asked for by name
in each call. The interpreted graph serves only what the session cannot.
"""

import copy
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Final, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from service.domain.network import Surrogate
from service.errors.models import InvalidPackage, UnservablePass
from workers.endings import Ending
from workers.passes import Ability, Exclusive
from workers.rows import INPUT, VALUES
from workers.runtimes.base import Fit, Probe, Segment, Served, Work
from workers.runtimes.batch import answered, filled, row_shape, spans, usual_seconds
from workers.runtimes.graph.operators.base import UnsupportedGraph
from workers.runtimes.memory import peaked, resident_bytes
from workers.runtimes.placement import not_over_image, over_image, tokens_over_image
from workers.runtimes.places import tokens_astray
from workers.runtimes.session import ended, exposed, image_of, memory_of, session, unloadable
from workers.runtimes.surrogate import difference, surrogate
from workers.runtimes.taken import told_of_graph, tried
from workers.runtimes.torch import TorchRuntime
from workers.runtimes.torch_probe import beside, demand_one_answer, layer_facts, noise
from workers.tabular import Companions
from workers.tokens import Tokens

UNREAD: Final = "Its graph cannot be interpreted."


@dataclass(frozen=True, slots=True)
class Group:
    """What works must have in common to share a call of the session."""

    shape: tuple[int, ...]
    taps: tuple[str, ...]
    outputs: bool


class OnnxRuntime:
    """One ONNX model on the CPU.

    Parameters
    ----------
    model
        An ONNX model of one input ``(N, C, *spatial)``, and perhaps of numbers
        beside it, as `read_model` returned it; its first output is explained.
    shape
        Shape of one row, ``(C, *spatial)``.
    layers
        Names of layers that methods may use, each with its tensor in the graph;
        chosen by a trial run of the interpreted graph if not given.
    fixed_rows
        Pad every batch to this many rows: the deterministic mode.
    channels_last
        Whether the graph wants ``(N, *spatial, C)``.
    limit
        How nearly the interpreted graph must say what the session says.
    companions
        The numbers beside the image, if it takes any.
    beside
        Names of the graph's inputs for them, in their order.
    ending
        What is made of outputs that do not count as they are.
    tokens
        Where the tokens lie, if it is a transformer's and the package says so.

    Raises
    ------
    InvalidPackage
        If it is no such model, does not take rows of this shape, or its tokens lie otherwise.
    """

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(
        self,
        model: Any,
        shape: Sequence[int],
        layers: Mapping[str, str] | None = None,
        *,
        fixed_rows: int | None = None,
        channels_last: bool = False,
        limit: Surrogate | None = None,
        companions: Companions | None = None,
        beside: Sequence[str] = (),
        ending: Ending | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        self.shape = tuple(shape)
        self._companions = companions or Companions.none()
        self._beside = tuple(beside)
        self.fixed_rows = fixed_rows
        self._channels_last = channels_last
        self._ending = ending
        twin, self._why = _interpreted(
            model,
            self.shape,
            layers,
            fixed_rows,
            channels_last=channels_last,
            companions=self._companions,
            beside=self._beside,
            ending=ending,
            tokens=tokens,
        )
        self._tokens = tokens if twin is None else twin.tokens
        if layers is None:
            layers = {} if twin is None else {name: name for name in twin.layers}
        try:
            self._output = model.graph.output[0].name
            self._tensors, self._missing = exposed(model, layers)
            before = resident_bytes()
            content = model.SerializeToString()
            self._session = session(content)
            # it keeps the file, and weights in layouts of its own beside it
            self._bytes = max(len(content), resident_bytes() - before)
        except Exception:  # noqa: BLE001 - foreign parsers raise what they like
            raise unloadable(model) from None
        self._input = image_of(self._session, self._beside)
        first = partial(self._run, noise(self, 1), [self._output])
        self._peak = peaked(
            lambda: tried(lambda: ended(lambda options: first(options=options)), self._untaken)
        )
        self._twin, self._difference = self._admitted(twin, limit or Surrogate())

    def _untaken(self) -> InvalidPackage:
        """Return what is told of a graph that does not take what the package prepares."""
        image = next(each for each in self._session.get_inputs() if each.name == self._input)
        return told_of_graph(
            image.name, image.type, image.shape, self.shape, channels_last=self._channels_last
        )

    def _admitted(
        self, twin: TorchRuntime | None, limit: Surrogate
    ) -> tuple[TorchRuntime | None, float | None]:
        """Return the interpreted graph if it says what the session says, and how nearly."""
        if twin is None:
            return None, None
        try:
            apart = difference(twin, lambda row: self._run(row, [self._output])[0], limit)
            _ = twin.probed
        except InvalidPackage:  # said of the package, and not of this graph
            raise
        except UnsupportedGraph as error:
            self._why = error.reason
        except Exception:  # noqa: BLE001 - a graph that runs there and not here
            self._why = UNREAD
        else:
            return twin, apart
        return None, None

    @cached_property
    def probed(self) -> Probe:
        """What the session can do; measured at the first call."""
        own, twin = self._probed_alone(), None if self._twin is None else self._twin.probed
        if twin is None:
            unable = dict.fromkeys(set(Ability) - own.abilities, self._why)
            return replace(own, unable=unable)
        return replace(
            twin,
            abilities=own.abilities | twin.abilities,
            refused={**own.refused, **twin.refused, **self._missing},
            outputs=own.outputs,
            mixes_rows=own.mixes_rows or twin.mixes_rows,
            row_seconds={**twin.row_seconds, **own.row_seconds},
            row_bytes={**twin.row_bytes, **own.row_bytes},
            fixed_bytes=own.fixed_bytes + twin.fixed_bytes,
            surrogate=twin.abilities - own.abilities,
            difference=self._difference,
        )

    @property
    def extra_bytes(self) -> int:
        """What copies of the interpreted graph take; a session has none."""
        return 0 if self._twin is None else self._twin.extra_bytes

    def recall(self, probed: Probe) -> None:
        """Take as known what was probed of the same package before."""
        self.probed = probed

    def _probed_alone(self) -> Probe:
        """Return what the session alone can do."""
        one = noise(self, 1)
        (outputs,) = self._run(one, [self._output])
        demand_one_answer(outputs, *self._run(one, [self._output]))
        taps = {name: self._on_grid(tap) for name, tap in self._tapped(one).items()}
        placed = self._placed() | {name for name, tap in taps.items() if tap.dim() != one.dim()}
        shapes = {name: tuple(tap.shape[1:]) for name, tap in taps.items()}
        layers = tuple(layer_facts(n, shapes[n], self.shape) for n in shapes if n in placed)
        laid = self._laid(one)
        astray = {
            name: tokens_astray(name) if name in laid else not_over_image(name, shapes[name])
            for name in shapes
            if name not in placed
        }
        mixes = self._mixes_rows()
        need = memory_of(partial(self._run, names=[self._output]), self._peak, self, alone=mixes)
        handed = one.numel() + outputs.numel()  # handed to the session, and handed on by it
        return Probe(
            abilities=frozenset({Ability.FORWARD} | ({Ability.ACTIVATIONS} if layers else set())),
            layers=layers,
            refused={**self._missing, **astray},
            outputs=tuple(outputs.shape[1:]),
            mixes_rows=mixes,
            row_seconds={"forward": usual_seconds(lambda: self._run(one, [self._output]))},
            row_bytes={"forward": need.row + handed * one.element_size()},
            fixed_bytes=self._bytes + need.fixed,
        )

    def _tapped(self, image: Tensor) -> dict[str, Tensor]:
        """Return what the layers put out for one row."""
        if not self._tensors:  # the session takes no names for all of them
            return {}
        return dict(zip(self._tensors, self._run(image, [*self._tensors.values()]), strict=True))

    def _placed(self) -> set[str]:
        """Return the layers that lie over the image; best told by the interpreted graph."""
        if self._twin is not None:
            return {layer.name for layer in self._twin.probed.layers}
        pair, tokens = noise(self, 2), self._tokens
        placed = over_image(self._plain, pair)
        return placed if tokens is None else placed | tokens_over_image(self._laid, pair, tokens)

    def _plain(self, image: Tensor) -> dict[str, Tensor]:
        """Return what the layers that are no tokens put out for one row."""
        return {k: tap for k, tap in self._tapped(image).items() if not self._are_tokens(tap)}

    def _laid(self, image: Tensor) -> dict[str, Tensor]:
        """Return the tokens that layers put out for one row."""
        return {k: tap for k, tap in self._tapped(image).items() if self._are_tokens(tap)}

    def _are_tokens(self, output: Tensor) -> bool:
        return self._tokens is not None and self._tokens.fit(output)

    def _on_grid(self, output: Tensor) -> Tensor:
        """Return a layer's output as a grid if it is tokens."""
        return output if self._tokens is None else self._tokens.on_grid(output)

    def group(self, work: Work) -> Hashable:
        """Return a key; works with equal keys may share a batch.

        Raises
        ------
        UnservablePass
            If more is wanted than scores, outputs and layers, and the graph is
            not interpreted; or it has no such layer.
        """
        seen = {tap.place for tap in work.taps} <= self._tensors.keys()
        if work.at or work.ablated is not None or not (seen or self._twin is None):
            return self._interpreting().group(work)
        taps = tuple(tap.place for tap in work.taps)
        if unknown := set(taps) - set(self._tensors):
            raise UnservablePass(f"The model has no usable layer {', '.join(sorted(unknown))}.")
        return Group(row_shape(work, self._companions.count), taps, work.outputs)

    def _interpreting(self) -> TorchRuntime:
        """Return the interpreted graph.

        Raises
        ------
        UnservablePass
            It is not interpreted, for the reason told.
        """
        if self._twin is None:
            raise UnservablePass(f"onnxruntime alone gives no more than scores. {self._why}")
        return self._twin

    def fits(self, group: Hashable) -> Fit:
        """Return what a batch of the group may hold, and what of memory that takes."""
        if not isinstance(group, Group):
            return self._interpreting().fits(group)
        need, fixed = self.probed.row_bytes["forward"], self.fixed_rows is not None
        return Fit(1 if self.probed.mixes_rows else self.fixed_rows, fixed, need)

    def serve(self, group: Hashable, segments: Sequence[Segment]) -> list[Served | Exception]:
        """Run one batch; one answer for each segment, in order."""
        if not isinstance(group, Group):
            return self._interpreting().serve(group, segments)
        rows = sum(segment.count for segment in segments)
        size = rows if self.fixed_rows is None else max(rows, self.fits(group).rows or 0)
        batch, failures = filled(segments, size, self.dtype, self.device)
        names = [self._output, *(self._tensors[tap] for tap in group.taps)]
        outputs, *found = self._run(batch[INPUT], names, batch.get(VALUES))
        taps = dict(zip(group.taps, map(self._on_grid, found), strict=True))
        return [
            failures.get(k)
            or answered(
                segment.work,
                outputs[span],
                {tap: taps[tap.place][span] for tap in segment.work.taps},
            )
            for k, (segment, span) in enumerate(zip(segments, spans(segments), strict=True))
        ]

    def lend(self, work: Exclusive, until: float) -> Any:
        """Lend the interpreted graph to `work` until a moment of `time.monotonic`.

        Raises
        ------
        UnservablePass
            It is not interpreted.
        """
        return self._interpreting().lend(work, until)

    def variant(self, model: nn.Module | None) -> "OnnxRuntime | TorchRuntime":
        """Serve the same model a row at a time; or a copy of the interpreted graph, in torch.

        Raises
        ------
        UnservablePass
            If a copy is given and the graph is not interpreted.
        """
        if model is not None:
            return self._interpreting().variant(model)
        variant = copy.copy(self)
        variant.fixed_rows = 1
        variant._twin = None if self._twin is None else self._twin.variant(None)  # noqa: SLF001 - its own
        return variant

    def recast(self, dtype: torch.dtype) -> NoReturn:  # noqa: ARG002 - nothing to copy
        """Refuse: there is no model object to copy.

        Raises
        ------
        UnservablePass
            Always.
        """
        raise UnservablePass("The ONNX runtime computes in the type that its file was made for.")

    def check(self) -> None:
        """Raise `ReplicaChangedError` unless the interpreted graph is as it was; a session is."""
        if self._twin is not None:
            self._twin.check()

    def _run(
        self,
        image: Tensor,
        names: Sequence[str],
        values: Tensor | None = None,
        options: Any = None,
    ) -> list[Tensor]:
        """Return tensors of the graph; without values it is given their baselines."""
        image, *tensors = self._companions(None, (image, *(() if values is None else (values,))))
        image = image.movedim(1, -1) if self._channels_last else image
        fed = zip((self._input, *self._beside), (image, *tensors), strict=True)
        given: list[Any] = self._session.run(
            list(names), {name: each.contiguous().numpy() for name, each in fed}, options
        )
        found = [torch.from_numpy(np.asarray(each)) for each in given]
        if self._ending is None:
            return found
        pairs = zip(names, found, strict=True)
        return [self._ending.said(image, t) if name == self._output else t for name, t in pairs]

    def _mixes_rows(self) -> bool:
        """Tell whether a row's bits depend on its neighbor; also true if two rows are refused."""
        try:
            return any(
                not torch.equal(*(self._run(each, [self._output])[0][place] for each in pair))
                for place, pair in enumerate(beside(self))
            )
        except Exception:  # noqa: BLE001 - a model exported with a fixed batch raises its own
            return True


def _interpreted(
    model: Any,
    shape: tuple[int, ...],
    layers: Mapping[str, str] | None,
    fixed_rows: int | None,
    **options: Any,
) -> tuple[TorchRuntime | None, str]:
    """Return the graph interpreted in torch, or why it cannot be; options as of `surrogate`."""
    try:
        return surrogate(model, shape, layers, fixed_rows, **options), ""
    except UnsupportedGraph as error:
        return None, error.reason
    except Exception:  # noqa: BLE001 - a graph may be wrong in any way; onnxruntime judges it
        return None, UNREAD
