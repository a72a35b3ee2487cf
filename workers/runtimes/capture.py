"""Layer outputs: captured in the forward pass, and cut there from the graph."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from service.errors.models import LayerAmbiguous, LayerNotCaptured
from workers.device import sent
from workers.rows import ablated
from workers.runtimes.base import Segment
from workers.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Ablation:
    """A layer's channels that are to be zero, one in each row."""

    place: str
    channels: tuple[int, ...]
    """For each row of the batch; rows beyond are whole."""

    views: tuple[int, ...] = ()
    """Likewise in which of several views; empty where the layer tells none apart."""

    tokens: Tokens | None = None
    """How tokens lie, if the layer puts out tokens; their numbers are the channels."""

    @classmethod
    def of(cls, place: str, segments: Sequence[Segment], tokens: Tokens | None) -> "Ablation":
        """Return the channels that the rows of a batch lack at their place."""
        lacking = [
            (rows.channels[segment.start : segment.stop], rows.view)
            for segment in segments
            if (rows := ablated(segment.work.rows)) is not None
        ]
        channels = tuple(chain.from_iterable(some for some, _ in lacking))
        views = tuple(view for some, view in lacking if view is not None for _ in some)
        return cls(place, channels, views, tokens)

    def apply(self, output: Tensor) -> None:
        """Set the channels of an output ``(rows, channels, ...)`` to zero, in place."""
        if self.tokens is not None and self.tokens.fit(output):
            output = output.movedim(-1, 1)
        cells = [range(len(self.channels)), self.channels, *([self.views] if self.views else [])]
        index = sent(torch.tensor([*map(list, cells)]), output.device, torch.int64)
        output.index_put_(index.unbind(), output.new_zeros(()))  # a number would be waited for


class Capture:
    """What the declared layers put out in one forward pass.

    Parameters
    ----------
    places
        Layers whose output is wanted.
    cut
        Layers at which a gradient is wanted: where nothing above needs a
        gradient, the graph begins there.
    ablation
        Channels that the model is to go on without.
    """

    def __init__(
        self,
        places: Collection[str],
        cut: Collection[str] = (),
        ablation: Ablation | None = None,
    ) -> None:
        self._ablation = ablation
        self._places = places
        self._cut = cut
        self._seen: Counter[str] = Counter()
        self.found: dict[str, Tensor] = {}
        """By place; the tensor of which gradients are taken."""

        self._lent: dict[str, list[tuple[Tensor, Tensor]]] = {}
        """By place: what its layer was given, and the clone that it works on."""

        self._frozen: dict[str, list[tuple[Tensor, int]]] = {}
        """By place: tensors that nobody may write to from then on, with their versions."""

    def lend(self, place: str, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Return clones of what a layer is given, so that its output is nobody else's tensor."""
        if place not in self._places:
            return None
        clones = tuple(each.clone() if isinstance(each, Tensor) else each for each in given)
        pairs = zip(given, clones, strict=True)
        self._lent[place] = [pair for pair in pairs if isinstance(pair[0], Tensor)]
        return clones

    def take(self, place: str, output: object) -> Tensor | None:
        """Keep a layer's output; return what the model is to go on with.

        The model goes on with a clone, because a later in-place layer would
        change the captured tensor silently, or refuse to run on a leaf. Where a
        layer writes into what it is given, all who hold that see the same clone.
        """
        if place not in self._places:
            return None
        passed = self._kept(place, output)
        for given, own in self._lent.pop(place, []):
            if not own._version:  # noqa: SLF001 - torch's count of writes
                continue
            if own is output:
                given.copy_(own if passed is None else passed)
                passed = given
            else:
                given.copy_(own)
        return passed

    def _kept(self, place: str, output: object) -> Tensor | None:
        """Keep a layer's output; return what is to stand for it."""
        self._seen[place] += 1
        if self._seen[place] > 1 or not isinstance(output, Tensor):
            return None
        cut = place in self._cut and not output.requires_grad
        found = output.detach().requires_grad_() if cut else output
        passed = found.clone()
        self.found[place] = found
        self._freeze(place, output)
        if self._ablation is not None and self._ablation.place == place:
            self._ablation.apply(passed)
        return passed

    def _freeze(self, place: str, output: Tensor) -> None:
        """Note what must stay as it is; with an output that is the input, that too."""
        frozen = [output]
        for given, own in self._lent.get(place, []):
            alias = own.untyped_storage().data_ptr() == output.untyped_storage().data_ptr()
            if alias and not (own is output and own._version):  # noqa: SLF001 - likewise
                frozen.append(given)
        self._frozen[place] = [(each, each._version) for each in frozen]  # noqa: SLF001 - likewise

    def fault(self, place: str) -> LayerNotCaptured | LayerAmbiguous | None:
        """Return why a layer's output cannot be used, or `None`."""
        if self._seen[place] > 1:
            return LayerAmbiguous(f"Layer '{place}' ran more than once in the forward pass.")
        if place not in self.found:
            reason = "put out no tensor" if self._seen[place] else "was not reached"
            return LayerNotCaptured(f"Layer '{place}' {reason} in the forward pass.")
        if any(each._version != version for each, version in self._frozen[place]):  # noqa: SLF001 - likewise
            return LayerNotCaptured(
                f"What layer '{place}' puts out is changed in place later, by something that holds"
                " it without the layer; name the layer before or after."
            )
        return None

    def require_all(self) -> None:
        """Raise `LayerNotCaptured` or `LayerAmbiguous` unless every place was captured once."""
        for place in sorted(self._places):
            fault = self.fault(place)
            if fault is not None:
                raise fault


def hooked(network: nn.Module) -> bool:
    """Tell whether layers within a network have hooks of its own, beside those of a `Seat`.

    What stands on the network as a whole does not count: it sees what any copy of it sees.
    """
    return any(
        not (isinstance(hook, partial) and isinstance(getattr(hook.func, "__self__", None), Seat))
        for layer in network.modules()
        if layer is not network
        for hooks in (
            layer._forward_pre_hooks,  # noqa: SLF001 - torch has no public list
            layer._forward_hooks,  # noqa: SLF001
            layer._backward_pre_hooks,  # noqa: SLF001
            layer._backward_hooks,  # noqa: SLF001
        )
        for hook in hooks.values()
    )


class Seat:
    """Where a model's hooks find the capture of the pass at hand; a copied model has its own."""

    def __init__(self) -> None:
        self._capture: Capture | None = None

    def install(self, network: nn.Module, layers: Iterable[str]) -> None:
        """Put hooks on those of the layers that the network has."""
        modules = dict(network.named_modules())
        for layer in layers:
            if layer in modules:
                modules[layer].register_forward_pre_hook(partial(self._before, layer))
                modules[layer].register_forward_hook(partial(self._after, layer))

    @contextmanager
    def watching(self, capture: Capture) -> Iterator[None]:
        """Hand what layers put out to `capture`, for one pass."""
        self._capture = capture
        try:
            yield
        finally:
            self._capture = None

    def _before(self, place: str, _module: nn.Module, given: Any) -> tuple[Any, ...] | None:
        return None if self._capture is None else self._capture.lend(place, given)

    def _after(self, place: str, _module: nn.Module, _args: Any, output: object) -> Tensor | None:
        return None if self._capture is None else self._capture.take(place, output)
