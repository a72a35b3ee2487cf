"""A model's replicas by precision: the one that was loaded, and others made at first wish."""

import torch

from service.domain.precision import Precision
from workers.runtimes.base import Probe, Runtime


class Dismissed(Exception):
    """The model is not in the device's memory at this moment."""


class Replicas:
    """Replicas of one model, of the same weights; what is known of them outlives them.

    A replica beside the loaded one is made when a job, or a measurement, first
    asks for its precision. All leave the device's memory together, when another
    model needs it, and the first comes back when a job asks for the model.
    """

    def __init__(self, loaded: Runtime) -> None:
        self.device: torch.device = loaded.device
        self.dtype: torch.dtype = loaded.dtype
        self.shape: tuple[int, ...] = loaded.shape
        self.fixed_rows: int | None = loaded.fixed_rows
        self.probed: Probe = loaded.probed
        self._by_precision: dict[Precision, Runtime] = {"float32": loaded}

    def at(self, precision: Precision) -> Runtime:
        """Return the replica of a precision; for the owner thread alone, where it may be made.

        Raises
        ------
        UnservablePass
            The runtime has no model to copy.
        Dismissed
            The model is not in memory.
        """
        if precision not in self._by_precision:
            self._by_precision[precision] = self.loaded.recast(getattr(torch, precision))
        return self._by_precision[precision]

    @property
    def loaded(self) -> Runtime:
        """The replica that was loaded; raises `Dismissed` while it is not in memory."""
        try:
            return self._by_precision["float32"]
        except KeyError:
            raise Dismissed from None

    def all(self) -> tuple[Runtime, ...]:
        """Return the replicas that are in memory; any thread may ask."""
        return tuple(self._by_precision.values())

    def dismiss(self) -> tuple[Runtime, ...]:
        """Let go of all replicas and return them."""
        gone, self._by_precision = self.all(), {}
        return gone

    def restore(self, loaded: Runtime) -> None:
        """Take in a replica that was loaded anew."""
        self._by_precision = {"float32": loaded}

    @property
    def slowest(self) -> float:
        """Seconds that the smallest batch of the dearest kind took when the model was probed."""
        return (self.fixed_rows or 1) * max(self.probed.row_seconds.values(), default=0.0)

    @property
    def taken(self) -> int:
        """Bytes of the device's memory that the replicas take while no batch runs.

        Those that were made of the loaded one, for a precision or to be measured, are counted by
        their own weights.
        """
        loaded = self._by_precision.get("float32")
        return 0 if loaded is None else self.probed.fixed_bytes + loaded.extra_bytes

    @property
    def least(self) -> int:
        """Bytes without which nothing can be computed: the smallest forward batch's too."""
        return self._with(self.probed.row_bytes["forward"])

    @property
    def wanted(self) -> int:
        """Bytes with which everything can be computed: the smallest batch's of any kind too."""
        return self._with(max(self.probed.row_bytes.values()))

    def _with(self, row: int) -> int:
        return self.probed.fixed_bytes + (self.fixed_rows or 1) * row
