"""Target layers of a model whose package names none: found by a trial run."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from workers.runtimes.placement import Placement
from workers.tokens import Tokens

MOST: Final = 5
"""Layers chosen at most, the deepest ones."""


def choose_layers(model: nn.Module, pair: Tensor, tokens: Tokens | None = None) -> dict[str, str]:
    """Return the deepest module output of each spatial grid, with why it was chosen.

    Parameters
    ----------
    pair
        Two rows of noise, shape ``(2, C, *spatial)``.
    tokens
        Where a transformer's tokens lie; only such tokens are then looked at.

    Returns
    -------
    dict
        By module path, the deepest first. Only modules that run once, whose
        output lies over the image in more than one cell, and through which the
        gradient of the outputs passes. Of tokens, only those that no others of their
        grid go past, as the keys of an attention go past its values.
    """
    seen, batch = _Seen(), pair[:1]
    with torch.enable_grad(), _watched(model, seen):
        outputs = model(batch.detach().requires_grad_())
    if not isinstance(outputs, Tensor) or not outputs.requires_grad:
        return {}
    if tokens is not None:
        return _choose_tokens(model, pair, tokens, outputs, seen)
    placement = Placement(model, pair)
    grids: dict[tuple[int, ...], str] = {}
    shared: dict[tuple[int, ...], str] = {}
    for name, output in reversed(seen.outputs.items()):
        grid = tuple(output.shape[2:]) if output.dim() == batch.dim() else ()
        new = math.prod(grid) > 1 and grid not in grids and output is not outputs
        if len(grids) == MOST or not new:
            continue
        if seen.calls[name] > 1 and _passes(outputs, output):
            shared.setdefault(grid, name)
        elif placement.holds(name) and _passes(outputs, output):
            grids[grid] = name
    return {name: _reason(grid, shared.get(grid), seen) for grid, name in grids.items()}


def _choose_tokens(
    model: nn.Module, pair: Tensor, tokens: Tokens, outputs: Tensor, seen: "_Seen"
) -> dict[str, str]:
    """Return what is chosen of tokens, as `choose_layers` does."""
    found = _on_the_way(outputs, tokens, seen)
    # where tokens lie is known beforehand, unless a package alone says so
    placement = Placement(model, pair, tokens) if tokens.said else None
    grids: dict[tuple[int, ...], str] = {}
    shared: dict[tuple[int, ...], str] = {}
    for name, output in reversed(found.items()):
        grid = tokens.grid_of(output)
        if len(grids) == MOST or grid in grids:
            continue
        if seen.calls[name] > 1:
            shared.setdefault(grid, name)
        elif placement is None or placement.holds(name):
            others = {k: each for k, each in found.items() if tokens.grid_of(each) == grid}
            if not _gone_past(name, others):
                grids[grid] = name
    return {name: _reason(grid, shared.get(grid), seen) for grid, name in grids.items()}


def _on_the_way(outputs: Tensor, tokens: Tokens, seen: "_Seen") -> dict[str, Tensor]:
    """Return the modules that put out tokens through whose cells a gradient of the outputs passes.

    In the order in which they ended.
    """
    fit = {
        name: each
        for name, each in seen.outputs.items()
        if math.prod(tokens.grid_of(each)) > 1 and each.requires_grad and each is not outputs
    }
    ways = zip(fit, _gradients(outputs, [*fit.values()]), strict=True)
    passing = {k for k, each in ways if each is not None and tokens.on_grid(each).ne(0).any()}
    return {name: each for name, each in fit.items() if name in passing}


def _gone_past(name: str, tokens: Mapping[str, Tensor]) -> bool:
    """Tell whether some tokens are neither made of those that a module puts out, nor they of them.

    Parameters
    ----------
    tokens
        What modules put out, by name, in the order in which they ended.
    """
    place, output = [*tokens].index(name), tokens[name]
    before, after = [*tokens.values()][:place], [*tokens.values()][place + 1 :]
    ways = [*_gradients(output, before), *(_gradients(each, [output])[0] for each in after)]
    return any(each is None for each in ways)


class _Seen:
    """What modules put out in one run, in the order in which they ended."""

    def __init__(self) -> None:
        self.outputs: dict[str, Tensor] = {}
        self.calls: Counter[str] = Counter()

    def hook(self, name: str, _module: nn.Module, _args: Any, output: object) -> None:
        """Keep a module's output."""
        self.calls[name] += 1
        if isinstance(output, Tensor):
            self.outputs.pop(name, None)  # a module that runs again ends where it ended last
            self.outputs[name] = output


def measured(model: nn.Module, row: Tensor, tokens: Tokens) -> Tokens:
    """Return tokens with their width, which a package does not say: that of the last ones.

    Those of `stages` have several; and where no module puts such tokens out, they stay as they are.

    Parameters
    ----------
    row
        A batch of one, shape ``(1, C, *spatial)``.
    """
    if tokens.width or tokens.stages:
        return tokens
    widths = [each.shape[-1] for each in put_out(model, row) if tokens.fit(each)]
    return replace(tokens, width=widths[-1]) if widths else tokens


def put_out(model: nn.Module, row: Tensor) -> list[Tensor]:
    """Return what modules put out for a batch of one, in the order in which they ended."""
    seen = _Seen()
    with torch.no_grad(), _watched(model, seen):
        model(row)
    return [*seen.outputs.values()]


@contextmanager
def _watched(model: nn.Module, seen: _Seen) -> Iterator[None]:
    """Watch every module but the whole; nothing is left on the model."""
    named: Mapping[str, nn.Module] = {k: v for k, v in model.named_modules() if k}
    handles = [
        module.register_forward_hook(partial(seen.hook, name)) for name, module in named.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _passes(outputs: Tensor, output: Tensor) -> bool:
    """Tell whether some gradient of the model's outputs passes through one of a module."""
    (gradient,) = _gradients(outputs, [output]) if output.requires_grad else (None,)
    return gradient is not None and bool(gradient.ne(0).any())


def _gradients(of: Tensor, at: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """Return the gradients of a mix of values at some places; `None` where none leads."""
    if not at:
        return ()
    weights = torch.linspace(1, 2, of.numel()).to(of).view_as(of)
    found: tuple[Tensor | None, ...] = torch.autograd.grad(
        (of * weights).sum(), at, retain_graph=True, allow_unused=True
    )
    return found


def _reason(grid: tuple[int, ...], shared: str | None, seen: _Seen) -> str:
    cells = " x ".join(map(str, grid))
    chosen = f"The package names no layer; this is the deepest output on a grid of {cells} cells."
    if shared is None:
        return chosen
    times = seen.calls[shared]
    return f"{chosen} Deeper lies that of {shared!r}, which runs {times} times and has no one map."
