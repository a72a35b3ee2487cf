"""Target layers of a model whose package names none: found by a trial run."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
        gradient of the outputs passes.
    """
    seen, batch = _Seen(), pair[:1]
    with torch.enable_grad(), _watched(model, seen):
        outputs = model(batch.detach().requires_grad_())
    if not isinstance(outputs, Tensor) or not outputs.requires_grad:
        return {}
    placement = Placement(model, pair) if tokens is None else None
    grids: dict[tuple[int, ...], str] = {}
    shared: dict[tuple[int, ...], str] = {}
    for name, output in reversed(seen.outputs.items()):
        grid = _grid(output, batch, tokens)
        new = math.prod(grid) > 1 and grid not in grids and output is not outputs
        if len(grids) == MOST or not new:
            continue
        if seen.calls[name] > 1 and _passes(outputs, output, tokens):
            shared.setdefault(grid, name)
        # where tokens lie is known beforehand
        elif (placement is None or placement.holds(name)) and _passes(outputs, output, tokens):
            grids[grid] = name
    return {name: _reason(grid, shared.get(grid), seen) for grid, name in grids.items()}


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


def _grid(output: Tensor, batch: Tensor, tokens: Tokens | None) -> tuple[int, ...]:
    """Return the spatial shape of a module's output; empty without one."""
    if tokens is not None:
        return tokens.grid_of(output)
    return tuple(output.shape[2:]) if output.dim() == batch.dim() else ()


def _passes(outputs: Tensor, output: Tensor, tokens: Tokens | None) -> bool:
    """Tell whether some gradient of the model's outputs passes through a grid's cells."""
    if not output.requires_grad:
        return False
    weights = torch.linspace(1, 2, outputs.numel()).to(outputs).view_as(outputs)
    mixed = (outputs * weights).sum()
    found: tuple[Tensor | None, ...] = torch.autograd.grad(
        mixed, [output], retain_graph=True, allow_unused=True
    )
    gradients = [each for each in found if each is not None]
    cells = [each if tokens is None else tokens.on_grid(each) for each in gradients]
    return any(bool(each.ne(0).any()) for each in cells)


def _reason(grid: tuple[int, ...], shared: str | None, seen: _Seen) -> str:
    cells = " x ".join(map(str, grid))
    chosen = f"The package names no layer; this is the deepest output on a grid of {cells} cells."
    if shared is None:
        return chosen
    times = seen.calls[shared]
    return f"{chosen} Deeper lies that of {shared!r}, which runs {times} times and has no one map."
