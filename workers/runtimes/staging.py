"""Numbers on their way from the device: one copy a batch, behind it and ahead of the next."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from workers.runtimes.base import Served

SCORES, OUTPUTS = "scores", "outputs"


class Staged:
    """What is looked at of a batch, copied into pinned memory once the device has made it.

    To look at the tensors themselves would wait for all that the device was given since.

    Parameters
    ----------
    values
        On a CUDA device, at least one; by the answer's number and its field.
    """

    def __init__(self, values: Mapping[tuple[int, str], Tensor]) -> None:
        flat = torch.cat([value.flatten() for value in values.values()])
        host = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True)
        host.copy_(flat, non_blocking=True)
        self._done = torch.cuda.Event()
        self._done.record(torch.cuda.current_stream(flat.device))
        parts = host.split([value.numel() for value in values.values()])
        self._parts = {
            name: part.view(value.shape)
            for (name, value), part in zip(values.items(), parts, strict=True)
        }

    def read(self, number: int) -> tuple[Tensor | None, Tensor | None]:
        """Wait for the copy; return one answer's scores and outputs."""
        self._done.synchronize()
        return self._parts.get((number, SCORES)), self._parts.get((number, OUTPUTS))


def staged(answers: Sequence[Served | Exception]) -> list[Served | Exception]:
    """Have what is looked at of a CUDA device's batch copied to the host."""
    values = {
        (number, field): value
        for number, answer in enumerate(answers)
        if isinstance(answer, Served)
        for field, value in ((SCORES, answer.scores), (OUTPUTS, answer.outputs))
        if value is not None
    }
    if not values:
        return list(answers)
    read = Staged(values).read
    return [
        replace(answer, read=partial(read, number)) if isinstance(answer, Served) else answer
        for number, answer in enumerate(answers)
    ]
