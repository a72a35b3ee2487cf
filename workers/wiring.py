"""What a worker is made of, put together in one place."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final, NoReturn

from service.backends import Backends, open_backends
from service.certificates import MethodRecords
from service.domain.catalog import Catalog, ModelEntry
from service.fleet.base import WorkerRecord
from service.packages import ModelPackages
from service.precisions import PrecisionRecords, Wishes
from service.settings import Settings
from service.telemetry import Log
from workers import device
from workers.binding import Seen
from workers.catalog import catalog
from workers.certify.certifier import Certifier
from workers.certify.surveyor import Surveyor
from workers.certify.turns import Turns
from workers.held import Held
from workers.herald import Herald
from workers.line import Line
from workers.loading import Loader
from workers.loads import Loads
from workers.loop import LEASE_WAIT, Loop
from workers.meter import Meter
from workers.prober import Prober
from workers.runtimes.base import Runtime
from workers.scheduler import Scheduler
from workers.scratch import scratch
from workers.shelf import Shelf
from workers.slots import Slots

CLOSE_WITHIN: Final = 3.0
"""Seconds for the slots to become idle at the end."""

LET_GO_WITHIN: Final = 2.0
"""Seconds for the device's owner to end what it is at, once no job is in hand any more."""


class Worker:
    """One worker process and its threads.

    The thread that calls `run` owns the device. Beside it run the leaser and
    the keeper (:mod:`workers.loop`), a line for each job in hand, the shelf and
    the herald; they only sleep and talk to Redis, the store and the slots.

    Parameters
    ----------
    own
        A private folder that is removed when the process ends.
    leave
        Ends the process although a thread of it is in a call that nothing interrupts.
    """

    def __init__(
        self,
        settings: Settings,
        backends: Backends,
        slots: Slots,
        own: Path,
        leave: Callable[[], NoReturn],
    ) -> None:
        self._settings = settings
        self._leave = leave
        self._let_go = threading.Event()
        self._published: tuple[Mapping[str, ModelEntry], Catalog] | None = None
        self._started = int(time.time() * 1000)
        self._loaded = threading.Event()
        self._device = device.choose(settings.worker.device)
        device.forbid_tf32()
        self.name = settings.worker.name or own.name  # `whylight check worker` looks for it
        self._log = Log(worker=self.name)
        self._meter = Meter(self._device)
        budget = settings.worker.memory_bytes or device.memory_budget(self._device)
        self._scheduler = Scheduler(
            slice_seconds=settings.worker.slice.total_seconds(),
            on_lost=self._reload,
            on_bug=self._tell_bug,
            on_batch=self._meter.batch,
            memory=self._left,
        )
        fixed_rows = settings.worker.fixed_rows
        measured = PrecisionRecords(backends.store)
        loader = Loader(
            self._scheduler,
            self._device,
            slots,
            own,
            fixed_rows=fixed_rows,
            find=measured.find,
            remote=settings.remote,
            limit=settings.worker.load_limit.total_seconds(),
        )
        packages = ModelPackages(backends.store, scratch=own)
        unpacked = own / "packages"
        loads = Loads(backends.fleet, self.name, self._log)
        self._shelf = Shelf(packages, loader, unpacked, self._log, budget, noted=loads.noted)
        self._loop = Loop(
            name=self.name,
            queue=backends.queue,
            packages=self._shelf.ready,
            at_hand=self._shelf.at_hand,
            lead=self._lead,
            settings=settings,
            log=self._log,
        )
        self._line = Line(
            queue=backends.queue,
            store=backends.store,
            shelf=self._shelf,
            scheduler=self._scheduler,
            slots=slots,
            scratch=own,
            settings=settings,
            log=self._log,
            seen=Seen(),
            given_up=self._loop.ended,
        )
        self._herald = Herald(backends.fleet, self._record, self._catalog, self._log)
        self._prober = Prober(
            name=self.name,
            pool=settings.worker.pool,
            queue=backends.queue,
            shelf=self._shelf,
            hand=self._loop.hand,
            publish=self._herald.publish,
            draining=self._loop.draining,
            ended=self._loop.ended,
            log=self._log,
        )
        draining = self._loop.draining
        self._certifier = Certifier(
            models=self._shelf.residents.models,
            unpacked=unpacked,
            store=MethodRecords(backends.store),
            turns=Turns(self._scheduler, draining, lambda: bool(self._loop.hand.all())),
            stopped=draining,
            log=self._log,
        )

        self._surveyor = Surveyor(
            models=self._shelf.residents.models,
            unpacked=unpacked,
            wishes=Wishes(backends.store),
            store=measured,
            turns=Turns(
                self._scheduler, draining, lambda: bool(self._loop.hand.all()), "precision"
            ),
            stopped=draining,
            log=self._log,
        )

    def run(self) -> None:
        """Work until drained; the calling thread owns the device.

        Raises
        ------
        Exception
            What broke the device loop. The process must end then: its leases
            end by themselves and count as attempts.
        """
        self._log.info("started", device=str(self._device))
        following = _daemon(self._follow_store)
        _daemon(self._end_with_loop)
        self._loop.start()
        try:
            self._scheduler.run_forever()
        finally:
            self._let_go.set()
            self._loop.drain()
            self._loop.ended.set()
            self._herald.tell()
            following.join(2 * LEASE_WAIT)  # it asks the queue, which is closed next
        self._retire(abandoned=following.is_alive())

    def _retire(self, *, abandoned: bool) -> None:
        """Say goodbye; leave at once if a thread is in a call, as of a load, that is abandoned."""
        if abandoned:
            self._log.warning("call_abandoned")
        self._herald.retire()  # a load that the drain cuts off is no crash
        self._log.info("stopped")
        if abandoned:
            self._leave()

    def drain(self) -> None:
        """Lease no more, and end once the jobs in hand have; any thread may ask."""
        self._loop.drain()

    def _follow_store(self) -> None:
        """Load what is registered, and follow it; the fleet is told from the start."""
        ended = self._loop.ended
        herald = threading.Thread(target=self._herald.run, args=(ended,), name="herald")
        herald.start()
        self._shelf.open(ended, self._prober.lead_waiting)
        if not ended.is_set():  # else it was cut off, and its catalog is not whole
            self._loaded.set()
            self._herald.tell()
        # daemons: what they were measuring must not keep a drained process alive
        threading.Thread(target=self._certifier.run, name="certifier", daemon=True).start()
        threading.Thread(target=self._surveyor.run, name="surveyor", daemon=True).start()
        self._shelf.follow(ended, self._herald.tell, self._prober.wait)
        herald.join()

    def _end_with_loop(self) -> None:
        """Let go of the device once the last job has ended or the grace is over."""
        self._loop.draining.wait()
        self._log.info("draining", jobs=len(self._loop.hand.all()))
        self._herald.tell()
        self._loop.join()
        self._herald.tell()
        self._scheduler.stop(drain=False)
        if not self._let_go.wait(LET_GO_WITHIN):
            self._retire(abandoned=True)

    def _lead(self, held: Held) -> None:
        self._line.lead(held)

    def _reload(self, runtime: Runtime) -> None:
        self._shelf.reload(runtime)

    def _left(self) -> int:
        return self._shelf.residents.left()

    def _tell_bug(self, error: Exception, _token: str) -> None:
        self._log.bug(error)

    def _record(self) -> WorkerRecord:
        self._meter.look(self._shelf.residents)
        return WorkerRecord(
            id=self.name,
            pool=self._settings.worker.pool,
            device=str(self._device),
            started=self._started,
            version=version("whylight"),
            packages=self._shelf.ready(),
            running=len(self._loop.hand.all()),
            slots=self._settings.worker.jobs,
            draining=self._loop.draining.is_set(),
            loading=not self._loaded.is_set(),
        )

    def _catalog(self) -> Catalog:
        """Return the catalog, made anew only when the shelf has changed."""
        entries = self._shelf.entries()
        if self._published is None or self._published[0] != entries:
            self._published = (entries, catalog(entries.values()))
        return self._published[1]


@contextmanager
def assembled(settings: Settings) -> Iterator[Worker]:
    """Put a worker together, and take it apart at the end."""
    with ExitStack() as rooms:
        backends = open_backends(settings)
        rooms.callback(backends.close)
        own = rooms.enter_context(scratch(settings.worker.scratch))
        slots = Slots(
            settings.worker.slots,
            address_space_bytes=settings.worker.decode_bytes,
        )
        rooms.callback(_close, slots)
        yield Worker(settings, backends, slots, own, partial(_leave, rooms))


def _leave(rooms: ExitStack) -> NoReturn:
    """Clean up and end well, whatever other threads are at."""
    try:
        rooms.close()
    finally:
        os._exit(0)


def _daemon(target: Callable[[], None]) -> threading.Thread:
    """Start a thread that does not keep a drained process alive."""
    thread = threading.Thread(target=target, name=target.__name__, daemon=True)
    thread.start()
    return thread


def _close(slots: Slots) -> None:
    """Close the slots; one that is still busy ends with this process."""
    closing = threading.Thread(target=slots.close, daemon=True)
    closing.start()
    closing.join(CLOSE_WITHIN)
