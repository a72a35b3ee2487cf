"""Which models lie in the device's memory: as many as fit, and always those that jobs use.

Each model takes what its two trial runs told, a fixed part and a part for each
row. One that does not fit beside the others has the least recently used leave
that no job uses, and its jobs wait until there is room.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from traceback import clear_frames
from typing import Final, TypeVar

from service.errors.models import DoesNotFit, ModelDoesNotFit
from service.telemetry import MODEL_EVICTIONS, MODEL_LOADED
from workers.device import is_out_of_memory
from workers.model import Model

T = TypeVar("T")

LOOK: Final = 0.2
"""Seconds between two looks at whether a job that waits for room is still wanted."""

PATIENCE: Final = 5.0
"""Seconds for which jobs of models at hand may pass one that waits for room."""


@dataclass(slots=True, eq=False)
class _Place:
    """A model's place in memory."""

    package: str
    reserved: int
    """Bytes, while nothing was measured yet."""

    model: Model | None = None
    """`None` until it is loaded."""

    uses: int = 0
    """Jobs that use the model."""

    removed: bool = False
    """Whether it leaves for good when no job uses it."""

    used: float = field(default_factory=time.monotonic)
    """When a job used it last."""

    @property
    def idle(self) -> bool:
        return self.model is not None and self.uses == 0

    @property
    def taken(self) -> int:
        return self.reserved if self.model is None else self.model.replicas.taken


@dataclass(frozen=True, slots=True, eq=False)
class _Ticket:
    """A job that waits for a model."""

    package: str
    since: float = field(default_factory=time.monotonic)


class Residents:
    """The models in memory; any thread but the device's own may call.

    Parameters
    ----------
    budget
        Bytes of the device's memory for models and batches together.
    load
        Brings a model that left into memory again.
    unload
        Takes a model out of memory.
    """

    def __init__(
        self, budget: int, load: Callable[[Model], None], unload: Callable[[Model], None]
    ) -> None:
        self.budget = budget
        self._load = load
        self._unload = unload
        self._changed = threading.Condition()
        self._places: dict[str, _Place] = {}
        self._waiting: list[_Ticket] = []
        """Jobs whose models are not at hand, oldest first."""

    def left(self) -> int:
        """Return the bytes that a batch may fill; never waits."""
        return max(0, self.budget - sum(each.taken for each in tuple(self._places.values())))

    def models(self) -> tuple[Model, ...]:
        """Return the models in memory."""
        with self._changed:
            return tuple(each.model for each in self._places.values() if each.model is not None)

    # ------------------------------------------------------- when packages come and go

    def reserve(self, package: str, size: int) -> bool:
        """Make room for a model that was never loaded; return whether there is any.

        Parameters
        ----------
        size
            Bytes of its weights.

        Raises
        ------
        ModelDoesNotFit
            There never will be.
        """
        if size > self.budget:
            raise does_not_fit(size, self.budget)
        place = _Place(package, size)
        with self._changed:
            leaving = self._leaving(size)
            if leaving is None:
                return False
            self._take_places(place, leaving)
        self._dismiss(leaving)
        return True

    def settle(self, model: Model) -> None:
        """Let a newly loaded model stay, if it fits beside those in use; else it leaves again.

        Raises
        ------
        ModelDoesNotFit
            It would not fit if it were alone.
        """
        package, needs = model.ref.package, model.replicas
        if needs.least > self.budget:
            raise does_not_fit(needs.least, self.budget, model)
        place = self._places[package]
        with self._changed:
            place.reserved = 0
            leaving = self._leaving(min(needs.wanted, self.budget))
            if leaving is None:
                del self._places[package]
            else:
                self._take_places(place, leaving)
                place.model = model
            self._changed.notify_all()
        self._dismiss([_Place(package, 0, model)] if leaving is None else leaving)
        MODEL_LOADED.labels(model=model.manifest.ref).set(leaving is not None)

    def forget(self, package: str) -> None:
        """Give a place free: its model failed to load, or was found changed."""
        with self._changed:
            self._places.pop(package, None)
            self._changed.notify_all()

    def with_room(self, load: Callable[[], T]) -> T:
        """Load a model; if memory is full all the same, once more when every idle one has left.

        Raises
        ------
        DoesNotFit
            It is full then, too.
        """
        for last in (False, True):
            try:
                return load()
            except Exception as error:  # libraries have errors of their own for full memory
                if not is_out_of_memory(error):
                    raise
                clear_frames(error.__traceback__)
            if not last:
                with self._changed:
                    leaving = [each for each in self._places.values() if each.idle]
                    self._drop(leaving)
                self._dismiss(leaving)
        raise DoesNotFit("There is less memory left on the device than the model takes.")

    def remove(self, model: Model) -> None:
        """Take a model out of memory for good, once the jobs that use it have ended."""
        with self._changed:
            place = self._places.get(model.ref.package)
            if place is None:
                return
            place.removed = True
            if place.uses:
                return
            del self._places[place.package]
            self._changed.notify_all()
        self._unload(model)
        MODEL_LOADED.labels(model=model.manifest.ref).set(0)

    # --------------------------------------------------------------------- for jobs

    @contextmanager
    def lent(
        self, package: str, find: Callable[[], Model], check: Callable[[], None]
    ) -> Iterator[Model]:
        """Have a model in memory, and keep it there, while a job uses it.

        Parameters
        ----------
        find
            Returns the package's model; raises if it is served no longer.
        check
            Called while the job waits; raises to give up.

        Raises
        ------
        ModelUnavailable
            It is served no longer, or cannot be loaded again.
        DoesNotFit
            There is less memory than there should be.
        """
        place, model = self._entered(package, find, check)
        try:
            yield model
        finally:
            with self._changed:
                place.uses -= 1
                place.used = time.monotonic()
                self._changed.notify_all()
            if place.removed:
                self.remove(model)

    def _entered(
        self, package: str, find: Callable[[], Model], check: Callable[[], None]
    ) -> tuple[_Place, Model]:
        """Wait for a place that holds the model, or for room for one."""
        ticket = _Ticket(package)
        with self._changed:
            self._waiting.append(ticket)
        try:
            while True:
                check()
                with self._changed:
                    model = find()
                    place, leaving = self._place(ticket, model)
                    if place is None:
                        self._changed.wait(LOOK)
                        continue
                if place.model is None:
                    self._bring(place, leaving, model)
                return place, model
        finally:
            with self._changed:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def _place(self, ticket: _Ticket, model: Model) -> tuple[_Place | None, list[_Place]]:
        """Return the place that a job may enter now, and who leaves for it."""
        place = self._places.get(ticket.package)
        strangers = [each for each in self._waiting if each.package not in self._places]
        if place is not None:
            late = any(time.monotonic() - each.since > PATIENCE for each in strangers)
            if place.model is None or (late and place.taken):
                return None, []
            place.uses += 1
            return place, []
        leaving = self._leaving(min(model.replicas.wanted, self.budget))
        if strangers[0].package != ticket.package or leaving is None:
            return None, []
        place = _Place(ticket.package, model.replicas.probed.fixed_bytes, uses=1)
        self._take_places(place, leaving)
        return place, leaving

    def _bring(self, place: _Place, leaving: list[_Place], model: Model) -> None:
        """Load a model into its place."""
        try:
            self._dismiss(leaving)
            self.with_room(lambda: self._load(model))
        except BaseException:
            self.forget(place.package)
            raise
        with self._changed:
            place.model = model
            self._changed.notify_all()
        MODEL_LOADED.labels(model=model.manifest.ref).set(1)

    # ---------------------------------------------------------------- who has to leave

    def _leaving(self, size: int) -> list[_Place] | None:
        """Return who leaves so that `size` bytes are left, least recently used first.

        `None` if there would not be so many if everybody left that may.
        """
        leaving: list[_Place] = []
        left = self.budget - sum(each.taken for each in self._places.values())
        idle = sorted((each for each in self._places.values() if each.idle), key=lambda e: e.used)
        for each in idle:
            if left >= size:
                break
            if each.taken:  # a model on a server takes nothing
                leaving.append(each)
                left += each.taken
        return leaving if left >= size else None

    def _take_places(self, place: _Place, leaving: list[_Place]) -> None:
        self._drop(leaving)
        self._places[place.package] = place

    def _drop(self, leaving: list[_Place]) -> None:
        for each in leaving:
            del self._places[each.package]

    def _dismiss(self, leaving: list[_Place]) -> None:
        """Take out of memory who has left."""
        for each in leaving:
            if each.model is not None:
                self._unload(each.model)
                MODEL_LOADED.labels(model=each.model.manifest.ref).set(0)
                MODEL_EVICTIONS.labels(model=each.model.manifest.ref).inc()


def does_not_fit(needed: int, budget: int, model: Model | None = None) -> ModelDoesNotFit:
    """Return what is told of a model that takes more than there is; figures in bytes."""
    probed = None if model is None else model.replicas.probed
    return ModelDoesNotFit(
        "The model takes more memory than this worker may use. Raise WHYLIGHT_WORKER__MEMORY_BYTES,"
        " serve it on a larger device, or give it smaller inputs.",
        needed_bytes=needed,
        budget_bytes=budget,
        fixed_bytes=None if probed is None else probed.fixed_bytes,
        row_bytes=None if probed is None else dict(probed.row_bytes),
    )
