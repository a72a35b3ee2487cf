"""The training of every demo model: seeded, on one thread, so that it can be done again."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from workers.architectures.base import Architecture

DECAY = 0.02
TOLD = 10
"""How often the loss is printed."""


def unseen(seed: int, count: int) -> range:
    """Return seeds of examples that a training from `seed` on has not seen."""
    return range(seed + 1_000_000, seed + 1_000_000 + count)


def answer(network: nn.Module, given: NDArray[np.float32]) -> Tensor:
    """Return what a network puts out for one input."""
    with torch.no_grad():
        outputs: Tensor = network(torch.from_numpy(given)[None])[0]
    return outputs


class Shuffled:
    """The batches of a training: every example once an epoch, in random order.

    Parameters
    ----------
    count
        How many examples there are.
    batch
        How many a batch has; the last one of an epoch may have fewer.
    epochs
        How often each is seen.
    random
        Draws the order of an epoch when that begins.
    """

    def __init__(self, count: int, batch: int, epochs: int, random: torch.Generator) -> None:
        self._count, self._batch, self._epochs, self._random = count, batch, epochs, random

    def __len__(self) -> int:
        """Return how many batches there are in all."""
        return self._epochs * -(-self._count // self._batch)

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the places of each batch's examples, shape ``(N,)``."""
        for _ in range(self._epochs):
            yield from torch.split(torch.randperm(self._count, generator=self._random), self._batch)


def fit(
    network: nn.Module,
    batches: Shuffled | range,
    loss_of: Callable[[Any], Tensor],
    rate: float,
    rising: float = 0.3,
) -> nn.Module:
    """Return `network` fitted, in evaluation mode: AdamW under one cycle of the learning rate.

    Parameters
    ----------
    batches
        One for each step.
    loss_of
        Gives the loss of the network on a batch.
    rate
        Largest learning rate.
    rising
        Share of the steps after which it is reached.
    """
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=len(batches), pct_start=rising
    )
    started = time.monotonic()
    for step, batch in enumerate(batches, 1):
        loss = loss_of(batch)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        if step % -(-len(batches) // TOLD) == 0:
            seconds = time.monotonic() - started
            print(f"step {step}: loss {loss.item():.4f}, {seconds:.0f} s", flush=True)
    return network.eval()


def fit_drawn(
    built_by: Architecture,
    inputs: Sequence[Tensor],
    loss_of: Callable[[Tensor, list[int]], Tensor],
    *,
    seed: int,
    batch: int,
    epochs: int,
    rate: float,
) -> nn.Module:
    """Return a new network fitted to examples.

    Parameters
    ----------
    inputs
        The network's tensors, each of shape ``(N, ...)``.
    loss_of
        Gives the loss of what it puts out for examples, by their places.
    batch, epochs, rate
        As of `Shuffled` and `fit`.
    """
    torch.manual_seed(seed)
    network = built_by.build()

    def loss(places: Tensor) -> Tensor:
        return loss_of(network(*(each[places] for each in inputs)), places.tolist())

    batches = Shuffled(len(inputs[0]), batch, epochs, torch.Generator().manual_seed(seed))
    return fit(network, batches, loss, rate)


def fit_labels(
    built_by: Architecture,
    inputs: Tensor,
    labels: Tensor,
    *,
    seed: int,
    batch: int,
    epochs: int,
    rate: float,
) -> nn.Module:
    """Return a new network that tells the labels of inputs, fitted to examples of these.

    Parameters
    ----------
    labels
        Of each input, shape ``(N, classes)``, 0 or 1.
    batch, epochs, rate
        As of `Shuffled` and `fit`.
    """

    def loss_of(outputs: Tensor, places: list[int]) -> Tensor:
        return functional.binary_cross_entropy_with_logits(outputs, labels[places])

    return fit_drawn(built_by, (inputs,), loss_of, seed=seed, batch=batch, epochs=epochs, rate=rate)
