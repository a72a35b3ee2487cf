"""The meter: what the device does, as metrics."""

import time

import torch

from service.telemetry import (
    BATCH_ROWS,
    BATCH_WAIT,
    DEVICE_BUSY,
    DEVICE_MEMORY,
    MEMORY_RETRIES,
    WORKER_MEMORY,
)
from workers.batches import Batched
from workers.residents import Residents


class Meter:
    """Counts batches in the owner thread; `look` may be called by another."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._busy = 0.0
        self._seen = 0.0
        self._looked = time.perf_counter()

    def batch(self, batched: Batched) -> None:
        """Take in one batch."""
        BATCH_ROWS.labels(kind=batched.kind).observe(batched.rows)
        for wait in batched.waits:
            BATCH_WAIT.observe(wait)
        if batched.halved:
            MEMORY_RETRIES.inc()
        self._busy += batched.seconds

    def look(self, residents: Residents) -> None:
        """Set what is told as of now: the device's load since the last look, its memory."""
        WORKER_MEMORY.labels(kind="budget").set(residents.budget)
        WORKER_MEMORY.labels(kind="models").set(residents.budget - residents.left())
        now, busy = time.perf_counter(), self._busy
        DEVICE_BUSY.set(min(1.0, (busy - self._seen) / max(now - self._looked, 1e-9)))
        self._looked, self._seen = now, busy
        if self._device.type == "cuda":
            DEVICE_MEMORY.labels(kind="used").set(torch.cuda.memory_allocated(self._device))
            DEVICE_MEMORY.labels(kind="reserved").set(torch.cuda.memory_reserved(self._device))
