"""The shelf: the models that this worker serves, and what came of each package.

The shelf follows the store: a package that appears is unpacked, its digests
checked, loaded, tested and probed; one that disappears is let go. A package
that fails stands on the shelf as unavailable, with the reason, and is tried again
only if it is registered anew, its model runs on a server or it was given up; the others
are served. Not all of them need be in memory at once, see :mod:`workers.residents`.

Between two looks the shelf waits for probes (:mod:`workers.prober`): the worker that leases
one need not wait for its next look. All others find the package at theirs.
"""

import math
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

from service.domain.catalog import ModelEntry
from service.domain.manifest import Manifest
from service.errors.base import Failure, WhylightError
from service.errors.jobs import StoreUnavailable
from service.errors.models import DoesNotFit, ModelCrashed, ModelUnavailable
from service.packages import ModelPackages, PackageRecord
from service.telemetry import Log
from workers.catalog import certified, unavailable_model
from workers.loading import Loader
from workers.model import Model
from workers.patience import Watch
from workers.residents import Residents, does_not_fit
from workers.runtimes.base import Runtime

EVERY: Final = 2.0
"""Seconds between two looks into the store."""

AGAIN: Final = 15.0
"""Seconds until a model is tried again that runs on a server, or that ended workers:
what is wrong there may be mended, and another worker's load may have ended well."""


class Shelf:
    """Models by package digest; `get` and `entries` may be called by any thread.

    Parameters
    ----------
    packages
        Where packages are registered.
    loader
        Makes a model of an unpacked package.
    cache
        A private folder for unpacked packages.
    budget
        Bytes of the device's memory for models and batches.
    noted
        Notes that a package is loaded, and tells whether it may be now (:mod:`workers.loads`).
    """

    def __init__(
        self,
        packages: ModelPackages,
        loader: Loader,
        cache: Path,
        log: Log,
        budget: int,
        *,
        noted: Callable[[str], AbstractContextManager[bool]] = lambda _: nullcontext(True),
    ) -> None:
        self._packages = packages
        self._loader = loader
        self._cache = cache
        self.residents = Residents(budget, self._restore, self._let_go)
        self._log = log
        self._noted = noted
        self._watch = Watch(log, "store")
        self._lock = threading.Lock()
        self._models: dict[str, Model] = {}
        self._entries: dict[str, ModelEntry] = {}
        self._records: dict[str, PackageRecord] = {}
        """What was registered at the last look, by package digest."""

        self._tried: dict[str, int] = {}
        """When a package was registered, as it was tried last; milliseconds since the epoch."""

        self._again: dict[str, float] = {}
        """Of an unavailable package that may be mended: when to try it, `time.monotonic`."""

        self._shown: dict[str, tuple[int, int]] = {}
        """Changes of a model's records that its entry shows."""

    def get(self, package: str) -> Model:
        """Return a model that is ready, though perhaps not in memory.

        Raises
        ------
        ModelUnavailable
            The package is not on the shelf (any more), or is not fit to serve.
        """
        with self._lock:
            if package in self._models:
                return self._models[package]
        raise ModelUnavailable("The model is no longer served by this worker.")

    def lent(self, package: str, check: Callable[[], None]) -> AbstractContextManager[Model]:
        """Have a model in memory while a job uses it, as of :meth:`Residents.lent`."""
        return self.residents.lent(package, lambda: self.get(package), check)

    def ready(self) -> tuple[str, ...]:
        """Return the digests of the packages that can be served."""
        with self._lock:
            return tuple(sorted(self._models))

    def at_hand(self) -> tuple[str, ...]:
        """Return the digests of the packages whose models are in memory."""
        return tuple(model.ref.package for model in self.residents.models())

    def entries(self) -> Mapping[str, ModelEntry]:
        """Return the catalog's entries, by package digest, with what was measured so far."""
        with self._lock:
            for package, model in self._models.items():
                changes = (model.records.changes, model.precisions.changes)
                if changes != self._shown.get(package):
                    self._shown[package] = changes
                    self._entries[package] = certified(
                        model.entry, model.records, model.precisions, model.facts
                    )
            given = {package: each.tenants for package, each in self._records.items()}
            return {
                package: entry.model_copy(update={"tenants": given.get(package, ())})
                for package, entry in self._entries.items()
            }

    def open(self, ended: threading.Event, between: Callable[[], None]) -> None:
        """Load what is registered at start; a silent store is waited for.

        `between` is called after each package, and may call `probe`.
        """
        while not ended.is_set() and not self._look(ended, between):
            ended.wait(EVERY)

    def follow(
        self,
        ended: threading.Event,
        changed: Callable[[], None],
        wait: Callable[[float], None],
    ) -> None:
        """Follow the store until the worker has ended; call `changed` after changes.

        `wait` lets seconds pass until the next look, and may call `probe` meanwhile.
        """
        while not ended.is_set():
            wait(EVERY)
            before = self.entries()
            self._look(ended)
            if self.entries() != before:
                changed()

    def _look(self, ended: threading.Event, between: Callable[[], None] = lambda: None) -> bool:
        """Bring the shelf up to date; return whether the store answered."""
        try:
            self.sync(ended, between)
            self._watch.up()
        except WhylightError as error:
            self._watch.down(error)
            return False
        except Exception as error:  # noqa: BLE001 - the shelf must outlive its bugs
            self._log.bug(error)
        return True

    def sync(
        self, ended: threading.Event | None = None, between: Callable[[], None] = lambda: None
    ) -> None:
        """Take in new packages and let removed ones go; `between` as of `open`.

        Of a model's versions the newest comes first: a request that names none gets it.

        Raises
        ------
        StoreUnavailable
            The store does not answer; what is on the shelf stays there.
        """
        records = self._registered()
        for package in self.entries().keys() - records.keys():
            self._remove(package)
        for package in reversed(records):
            if ended is not None and ended.is_set():
                return
            record = self._records.get(package)  # a probe in between looks anew
            if record is not None and self._due(record):
                self._take_in(record)
                between()

    def probe(self, package: str) -> ModelEntry | None:
        """Take a package in now, unless that was done since it was registered.

        For the thread that follows the store.

        Returns
        -------
        Its entry; `None` if it has to wait, for memory or another worker's load.

        Raises
        ------
        ModelUnavailable
            It is registered no longer.
        StoreUnavailable
            The store does not answer.
        """
        record = self._registered().get(package)
        if record is None:
            raise ModelUnavailable("The model is no longer registered.")
        if self._due(record):
            self._take_in(record)
        entry = self.entries().get(package)
        return entry if self._tried.get(package) == record.registered else None

    def _registered(self) -> dict[str, PackageRecord]:
        """Return what is registered, by digest, and note it."""
        records = {each.package: each for each in self._packages.list()}
        with self._lock:
            self._records = records
        return records

    def _due(self, record: PackageRecord) -> bool:
        """Tell whether a package is to be tried now."""
        with self._lock:
            if record.package in self._models:
                return False
            late = time.monotonic() >= self._again.get(record.package, math.inf)
            return late or self._tried.get(record.package) != record.registered

    def reload(self, runtime: Runtime) -> None:
        """Let go of a model that was changed while it ran; the next look loads it anew."""
        dropped: list[str] = []
        with self._lock:
            for package, model in tuple(self._models.items()):
                if runtime in model.replicas.all():
                    del self._models[package], self._entries[package], self._tried[package]
                    self._log.warning("replica_dropped", package=package)
                    dropped.append(package)
        for package in dropped:
            self.residents.forget(package)

    def _take_in(self, record: PackageRecord) -> None:
        """Load one package once there is room; whatever is wrong with it becomes its entry."""
        folder = self._cache / record.package
        manifest = None
        try:
            manifest = self._packages.manifest(record.package)
            with self._noted(record.package) as may:
                if not may or not self.residents.reserve(record.package, manifest.weight_bytes):
                    return
                self._packages.unpack(record.package, folder)
                self._again.pop(record.package, None)
                model = self._loaded(manifest, record.package, folder)
        except StoreUnavailable:  # no fault of the package
            raise
        except WhylightError as error:
            failure = _with_field(error)
        except Exception as error:  # noqa: BLE001 - a package must not end the worker
            self._log.bug(error, package=record.package)
            failure = ModelUnavailable("The model cannot be loaded by this worker.").failure()
        else:
            with self._lock:
                self._models[record.package] = model
                self._entries[record.package] = model.entry
                self._tried[record.package] = record.registered
                self._shown.pop(record.package, None)
            self._log.info("model_loaded", model=model.manifest.ref, package=record.package)
            return
        self.residents.forget(record.package)
        shutil.rmtree(folder, ignore_errors=True)
        with self._lock:
            known = self._entries.get(record.package)
            self._entries[record.package] = unavailable_model(record, manifest, failure)
            self._tried[record.package] = record.registered
            remote = manifest is not None and manifest.runtime == "remote"
            if remote or failure.code == ModelCrashed.code:
                self._again[record.package] = time.monotonic() + AGAIN
        if known is None or known.failure != failure:
            self._log.warning("model_unavailable", package=record.package, code=failure.code)

    def _loaded(self, manifest: Manifest, package: str, folder: Path) -> Model:
        """Load a package, and keep its model in memory if it fits beside those in use."""
        try:
            model = self.residents.with_room(lambda: self._loader.load(manifest, package, folder))
        except DoesNotFit:
            raise does_not_fit(manifest.weight_bytes, self.residents.budget) from None
        self.residents.settle(model)
        return model

    def _restore(self, model: Model) -> None:
        """Bring a model into memory again."""
        self._loader.restore(model, self._cache / model.ref.package)
        self._log.info("model_loaded", model=model.manifest.ref, package=model.ref.package)

    def _let_go(self, model: Model) -> None:
        """Take a model out of memory."""
        self._loader.unload(model)
        self._log.info("model_evicted", model=model.manifest.ref, package=model.ref.package)

    def _remove(self, package: str) -> None:
        """Let a model go; jobs that use it now keep it until they end."""
        with self._lock:
            self._entries.pop(package)
            self._tried.pop(package)
            model = self._models.pop(package, None)
        if model is not None:
            self.residents.remove(model)
        shutil.rmtree(self._cache / package, ignore_errors=True)


def _with_field(error: WhylightError) -> Failure:
    """Return a failure as a record that names the field of the manifest to mend."""
    failure = error.failure()
    if error.pointer is None:
        return failure
    return failure.model_copy(update={"facts": {"field": error.pointer, **failure.facts}})
