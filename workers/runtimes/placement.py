"""Which outputs of a network lie over the image, cell by cell: tried, never told from a shape.

A tensor ``(1, channels, *grid)`` may as well hold the attention of heads, features whose channels
come last, or a border of padding; a map of it would look like one of the image. So the image is
changed by a ramp along one axis, and by its mirror: cells over the image answer in the order in
which they lie. Where cells have seen so much that no order is left, the ramp is laid on the output
of a layer before them that lies over the image itself.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, cached_property, partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from workers.runtimes.token_placement import Lit, answering_alone, with_cell
from workers.tokens import Tokens

STEEP: Final = 0.3
"""Least rise of answers from cell to cell, as a share of what the ramp itself would cause."""

ORDERED: Final = 0.85
"""Least correlation of answers with the ramp."""

LEVEL: Final = 0.25
"""Most that answers, from -1 to 1, may deviate along an axis without a ramp."""

ROUNDS: Final = 6
"""Layers on which ramps are laid at most, the image among them."""

LOUD: Final = 1000
"""Times noise that is tried on modules that do not answer to noise at all."""

MIXTURES: Final = 32
"""Numbers that are kept of a cell's channels at most."""

Hook = Callable[[nn.Module, Any, Any], Any]


class Placement:
    """Modules whose outputs lie over the image; found out as far as it is asked.

    Parameters
    ----------
    model
        In evaluation mode; it is run one row at a time.
    pair
        Two images of noise, shape ``(2, C, *spatial)``.
    tokens
        Where a transformer's tokens are said to lie; such outputs alone are then looked at.
    loud
        Whether they are as far beyond usual images as is tried.
    """

    def __init__(
        self, model: nn.Module, pair: Tensor, tokens: Tokens | None = None, *, loud: bool = False
    ) -> None:
        self._tokens = tokens
        self._modules = {name: module for name, module in model.named_modules() if name}
        self._model = model
        self._pair = pair
        self._loud = loud
        self._image, self._other = _apart(pair)
        self._base = self._mixed(self._image)
        self._order = {name: k for k, name in enumerate(self._base)}
        self._placed: set[str] = set()
        self._sources: set[str] = set()

    def on(self, grid: Sequence[int]) -> Iterator[str]:
        """Iterate over the modules that put out cells of a grid, in the order in which they end."""
        cells = tuple(grid) if self._tokens is None else (self._tokens.prefix + math.prod(grid),)
        return (name for name, each in self._base.items() if each.shape[1:] == cells)

    def holds(self, name: str) -> bool:
        """Tell whether what a module puts out lies over the image."""
        spent: set[torch.Size] = set()  # grids of which no layer shows more
        while name in self._base and name not in self._placed:
            source = self._before(name, spent)
            if source in self._sources and source:
                spent.add(self._base[source].shape[1:])
            elif source in self._sources or len(self._sources) == ROUNDS:
                return name in self._silent and self._louder.holds(name)
            else:
                self._sources.add(source)
                self._placed |= self._answering(source)
        return name in self._placed

    @cached_property
    def _silent(self) -> frozenset[str]:
        """Modules that put out the same for both images."""
        other = {} if self._loud else self._mixed(self._other)
        return frozenset(k for k, each in other.items() if torch.equal(each, self._base[k]))

    @cached_property
    def _louder(self) -> "Placement":
        return Placement(self._model, LOUD * self._pair, self._tokens, loud=True)

    def _before(self, name: str, spent: Collection[torch.Size]) -> str:
        """Return the last module before one that is known to lie over the image; or no name."""
        earlier = [
            each
            for each in self._placed
            if self._order[each] < self._order[name] and self._base[each].shape[1:] not in spent
        ]
        return max(earlier, key=self._order.__getitem__, default="")

    def _answering(self, source: str) -> set[str]:
        """Return the modules that answer in order to ramps on what `source` puts out."""
        low, high = self._put_out(source, self._image), self._put_out(source, self._other)
        mixed = partial(self._mixed_with, source)
        if self._tokens is None:
            return _following(low, high, self._base, mixed)
        tokens, left = self._tokens, self._base.keys() - self._placed
        lit = _lit(low, high, mixed, tokens if source else None)
        base = {name: each for name, each in self._base.items() if name in left}
        return answering_alone(base, lit, tokens, tokens.grid_of(low) if source else ())

    def _put_out(self, source: str, image: Tensor) -> Tensor:
        """Return what a module puts out for an image; without a name, the image itself."""
        if not source:
            return image
        seen: list[Tensor] = []
        with _hooked({source: self._modules[source]}, lambda _name: _keep(seen)), torch.no_grad():
            self._model(image)
        return seen[0]

    def _mixed_with(self, source: str, value: Tensor) -> dict[str, Tensor]:
        """Return mixtures of a run in which `source` puts out a value."""
        if not source:
            return self._mixed(value)
        with _hooked({source: self._modules[source]}, lambda _name: _put(value)):
            return self._mixed(self._image)

    def _mixed(self, image: Tensor) -> dict[str, Tensor]:
        """Return mixtures of channels, ``(mixtures, *grid)``, of outputs with the image's axes.

        In the order in which modules end; without those that run more than once.
        """
        calls: Counter[str] = Counter()
        found: dict[str, Tensor] = {}
        tokens = self._tokens

        def watch(name: str, _module: nn.Module, _args: Any, output: object) -> None:
            calls[name] += 1
            if isinstance(output, Tensor) and self._is_looked_at(output, image):
                found[name] = _mixtures(output[0] if tokens is None else tokens.listed(output)[0])

        with _hooked(self._modules, lambda name: partial(watch, name)), torch.no_grad():
            self._model(image)
        return {name: each for name, each in found.items() if calls[name] == 1}

    def _is_looked_at(self, output: Tensor, image: Tensor) -> bool:
        """Tell whether an output has the axes of the image, or is such tokens; of several cells."""
        if self._tokens is None:
            return on_grid(output, image)
        return math.prod(self._tokens.grid_of(output)) > 1 and len(output) == 1


def not_over_image(layer: str, shape: Sequence[int]) -> str:
    """Return what is told of a layer whose output, of some shape for one row, does not."""
    cells = " x ".join(map(str, shape))
    return (
        f"The cells of '{layer}' ({cells}) do not answer to the image in the order in which they"
        " lie: they may be tokens, heads of attention, channels that come last or a border of"
        " padding. Name a layer that puts out (rows, channels, *grid) over the image."
    )


def over_image(run: Callable[[Tensor], Mapping[str, Tensor]], pair: Tensor) -> set[str]:
    """Return those of a run's outputs that lie over the image.

    Parameters
    ----------
    run
        Returns outputs by name, for one row.
    pair
        Two images of noise, shape ``(2, C, *spatial)``.
    """

    def mixed(image: Tensor) -> dict[str, Tensor]:
        found = run(image)
        return {name: _mixtures(each[0]) for name, each in found.items() if on_grid(each, image)}

    low, high = _apart(pair)
    return _following(low, high, mixed(low), mixed)


def tokens_over_image(
    run: Callable[[Tensor], Mapping[str, Tensor]], pair: Tensor, tokens: Tokens
) -> set[str]:
    """Return those of a run's outputs that are tokens over the image, as is said.

    Parameters
    ----------
    run
        Returns outputs by name, for one row, that are such tokens.
    pair
        Two images of noise, shape ``(2, C, *spatial)``.
    """

    def mixed(image: Tensor) -> dict[str, Tensor]:
        return {name: _mixtures(tokens.listed(each)[0]) for name, each in run(image).items()}

    low, high = _apart(pair)
    return answering_alone(mixed(low), _lit(low, high, mixed, None), tokens)


def _lit(
    low: Tensor,
    high: Tensor,
    mixed: Callable[[Tensor], Mapping[str, Tensor]],
    tokens: Tokens | None,
) -> Lit:
    """Return trials in which a value is another one over a cell, in each trial a new one."""
    return lambda number, cell, grid: mixed(
        with_cell(low, high.roll(number, -1), tokens, cell, grid)
    )


def _apart(pair: Tensor) -> tuple[Tensor, Tensor]:
    """Return two images that differ in noise, which filters of edges see, and in their gray."""
    low, high = pair.detach().split(1)
    return low, high + 1


def _following(
    low: Tensor,
    high: Tensor,
    base: Mapping[str, Tensor],
    mixed: Callable[[Tensor], Mapping[str, Tensor]],
) -> set[str]:
    """Return what answers in order to ramps along every axis from one value to another.

    Parameters
    ----------
    base, mixed
        Mixtures by name at `low`, and of any value.
    """
    held = set(base)
    for axis in range(2, low.dim()):
        ramp = _ramp(low, axis)
        rising, falling = (mixed(torch.lerp(low, high, each)) for each in (ramp, 1 - ramp))
        held = {
            name
            for name in held & rising.keys() & falling.keys()
            if base[name].shape == rising[name].shape == falling[name].shape
            and _ordered(rising[name] - base[name], falling[name] - base[name], axis - 1)
        }
    return held


@contextmanager
def _hooked(modules: Mapping[str, nn.Module], hook: Callable[[str], Hook]) -> Iterator[None]:
    """Put a hook on modules for a while; nothing is left on them."""
    handles = [each.register_forward_hook(hook(name)) for name, each in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _keep(seen: list[Tensor]) -> Hook:
    """Return a hook that keeps a copy of an output, which may be changed in place later."""
    return lambda _module, _args, output: seen.append(output.clone())


def _put(value: Tensor) -> Hook:
    """Return a hook that puts a copy of a value in an output's place."""
    return lambda _module, _args, _output: value.clone()


def on_grid(output: Tensor, image: Tensor) -> bool:
    """Tell whether an output has the axes of the image, and more cells than one."""
    alike = output.dim() == image.dim() and len(output) == 1
    return alike and math.prod(output.shape[2:]) > 1


def _mixtures(output: Tensor) -> Tensor:
    """Return the channels, shape ``(channels, *grid)``; of many, few sums with random weights."""
    if len(output) <= MIXTURES:
        return output.clone()
    flat = _weights(len(output)).to(output) @ output.flatten(1)
    return flat.reshape(MIXTURES, *output.shape[1:])


@cache
def _weights(channels: int) -> Tensor:
    generator = torch.Generator().manual_seed(channels)
    return torch.randn(MIXTURES, channels, generator=generator)


def _places(cells: int) -> Tensor:
    """Return where the middles of cells lie along an axis of length 1."""
    return (torch.arange(cells, dtype=torch.float64) + 0.5) / cells


def _ramp(values: Tensor, axis: int) -> Tensor:
    """Return what rises from 0 to 1 along one axis of some values."""
    shape = [-1 if k == axis else 1 for k in range(values.dim())]
    return _places(values.shape[axis]).to(values).view(shape)


def _ordered(rising: Tensor, falling: Tensor, axis: int) -> bool:
    """Tell whether cells answer to a ramp along one axis, and its mirror, as it lies over them.

    Parameters
    ----------
    rising, falling
        What the ramp and its mirror changed, shape ``(mixtures, *grid)``.
    axis
        The axis of these on which the ramp must be seen, and on no other.
    """
    for along in range(1, rising.dim()):
        shares = _shares(rising, falling, along)
        if not bool(shares.isfinite().all()):  # padding answers to nothing
            return False
        if not (_rises(shares) if along == axis else shares.std(correction=0) <= LEVEL):
            return False
    return True


def _shares(rising: Tensor, falling: Tensor, along: int) -> Tensor:
    """Return from -1 to 1, for each line of cells, how much more the ramp moves it.

    Each cell counts alike, however much it answers: a few peaks would outweigh all others.
    """
    up, down = (each.double().square().sum(0).cpu() for each in (rising, falling))
    others = [k for k in range(up.dim()) if k != along - 1]
    shares = (up - down) / (up + down)
    return shares.nanmean(others) if others else shares


def _rises(shares: Tensor) -> bool:
    """Tell whether lines of cells, one after the other, follow a ramp that lies over them."""
    if len(shares) == 1:
        return True
    places = _places(len(shares))
    wanted = (2 * places - 1) / (places.square() + (1 - places).square())
    found = shares - shares.mean()
    steep = (wanted @ found) / (wanted @ wanted)
    ordered = (wanted @ found) / (wanted.norm() * found.norm())
    return bool(steep >= STEEP and ordered >= ORDERED)
