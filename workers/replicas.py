"""A model's replicas by precision: the one that was loaded, and others made at first wish."""

import torch

from service.domain.precision import Precision
from workers.runtimes.base import Runtime


class Replicas:
    """Replicas of one model, of the same weights; what they take of memory is the device's.

    A replica beside the loaded one is made when a job, or a measurement, first
    asks for its precision, and stays as long as the model does.
    """

    def __init__(self, loaded: Runtime) -> None:
        self._by_precision: dict[Precision, Runtime] = {"float32": loaded}

    def at(self, precision: Precision) -> Runtime:
        """Return the replica of a precision; for the owner thread alone.

        Raises
        ------
        UnservablePass
            The runtime has no model to copy.
        """
        if precision not in self._by_precision:
            loaded = self._by_precision["float32"]
            self._by_precision[precision] = loaded.recast(getattr(torch, precision))
        return self._by_precision[precision]

    def all(self) -> tuple[Runtime, ...]:
        """Return the replicas that there are; any thread may ask."""
        return tuple(self._by_precision.values())
