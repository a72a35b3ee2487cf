"""What measures at low priority, model by model, whatever waits.

Its thread sleeps, does small sums and waits for the device's owner thread. It
may be given up at any moment: what was not finished is measured another time.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from service.errors.base import WhylightError
from service.errors.models import DoesNotFit
from service.telemetry import Log
from workers.certify.turns import Turns, Unwanted
from workers.device import is_out_of_memory
from workers.methods.base import Method
from workers.model import Model
from workers.patience import Watch
from workers.replicas import Dismissed

GIVEN_UP: Final = (Unwanted, Dismissed)
"""What ends the measuring of a model until another time."""

TOO_LARGE: Final = DoesNotFit.code
BROKEN: Final = "measuring_failed"
HERE_ALONE: Final = frozenset({TOO_LARGE, BROKEN})
"""Why this worker measured nothing of a method; another may, or its next version."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Rounds(ABC):
    """Goes from model to model until it is stopped.

    Parameters
    ----------
    models
        Tells which models are in memory: one that leaves is measured another time.
    unpacked
        Folder in which packages lie unpacked, by digest.
    stopped
        Ends everything at once.
    """

    every: ClassVar[float]
    """Seconds between two looks for something to measure."""

    models: Callable[[], tuple[Model, ...]]
    unpacked: Path
    turns: Turns
    stopped: threading.Event
    log: Log

    def run(self) -> None:
        """Look for what waits, and measure it, until stopped."""
        watch = Watch(self.log, "store")
        while not self.stopped.wait(self.every):
            for model in self.models():
                try:
                    self.serve(model)
                    watch.up()
                except GIVEN_UP:
                    continue
                except WhylightError as error:  # the store is silent; it waits on
                    watch.down(error)

    def serve(self, model: Model) -> None:
        """Measure everything that waits for one model.

        Raises
        ------
        Unwanted, Dismissed
            The worker drains, or the model is gone.
        StoreUnavailable
            The store does not answer.
        """
        self.turns.wanted = lambda: any(each is model for each in self.models())
        self.measure(model)

    @abstractmethod
    def measure(self, model: Model) -> None:
        """Measure everything that waits for a model, as long as it is wanted."""

    def failed(self, error: Exception, method: Method, model: Model) -> str:
        """Log that a method could not be measured here; return why, as a code."""
        if not (isinstance(error, DoesNotFit) or is_out_of_memory(error)):
            self.log.bug(error, method=method.name)
            return BROKEN
        ref = model.manifest.ref
        self.log.warning("not_measured", model=ref, method=method.name, reason=TOO_LARGE)
        return TOO_LARGE
