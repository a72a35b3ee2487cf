"""Logs and metrics that cannot carry patient data.

A log line is an event out of a closed list with fields out of a closed list;
free text does not exist. Values are numbers or short words of a harmless
alphabet; what looks like a DICOM UID, a path or a sentence is not written.
Lines of libraries are reduced to who spoke and how loudly, because their texts
may quote what they choked on. Metrics have no tenant, no identifier and no
path among their labels.
"""

import json
import logging
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from typing_extensions import override

Field = str | int | float | bool | None
"""What a field's value may be."""

EVENTS = frozenset(
    {
        # every process
        "started",
        "draining",
        "stopped",
        "unexpected_error",
        "library_message",
        # gateway
        "http_request",
        "study_taken_in",
        "study_purged",
        "job_submitted",
        "job_cancelled",
        "job_purged",
        "result_damaged",
        "package_added",
        "package_removed",
        "swept",
        # worker
        "published",
        "leased",
        "stage_ended",
        "settled",
        "released",
        "lease_lost",
        "lease_expired",
        "reclaimed",
        "model_loaded",
        "call_abandoned",
        "model_unavailable",
        "model_evicted",
        "replica_dropped",
        "certified",
        "precision_measured",
        "not_measured",
        "batch_halved",
        "part_unavailable",
        "slot_restarted",
        "dependency_down",
        "dependency_back",
    }
)
"""Everything that may be said."""

FIELDS = frozenset(
    {
        "attempt",
        "batch",
        "bytes",
        "code",
        "component",
        "cost",
        "count",
        "dependency",
        "device",
        "duplicate",
        "error",
        "host",
        "instances",
        "job",
        "jobs",
        "key",
        "kind",
        "library",
        "location",
        "method",
        "model",
        "objects",
        "package",
        "part",
        "pass",
        "pid",
        "pool",
        "port",
        "priority",
        "reason",
        "request",
        "route",
        "rows",
        "seconds",
        "skipped",
        "slot",
        "stage",
        "state",
        "status",
        "studies",
        "study",
        "tenant",
        "verb",
        "version",
        "worker",
    }
)
"""Everything that may be told of an event. Identifiers are ours, never DICOM's."""

_WORD = re.compile(r"[A-Za-z0-9_.:@/{}<>+-]{1,128}")
_UID = re.compile(r"\d+(\.\d+){3,}")
_DROPPED = "dropped"
_LOGGER = "whylight"
_FIELDS = "whylight_fields"


class Undeclared(Exception):
    """An event, a field or a value that the lists above do not allow."""


class _Discipline:
    """Whether a breach of the lists is raised (tests) or dropped (service)."""

    strict = False


def be_strict() -> None:
    """Raise `Undeclared` from now on, instead of dropping what is not declared."""
    _Discipline.strict = True


class Log:
    """Writes declared events.

    Parameters
    ----------
    **bound
        Fields that every line carries.

    Raises
    ------
    Undeclared
        From every method, when `be_strict` was called and the event, a field
        or a value is not allowed. Without it the offender is left out.
    """

    def __init__(self, **bound: Field) -> None:
        self._bound = bound
        self._logger = logging.getLogger(_LOGGER)

    def info(self, event: str, **fields: Field) -> None:
        """Tell of something ordinary."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Field) -> None:
        """Tell of something that somebody should look at."""
        self._write(logging.WARNING, event, fields)

    def bug(self, error: BaseException, **fields: Field) -> None:
        """Tell of an exception nobody foresaw: its type and place, never its text."""
        where: dict[str, Field] = {"error": type(error).__name__, "location": location(error)}
        self._write(logging.ERROR, "unexpected_error", where | fields)

    def _write(self, level: int, event: str, fields: dict[str, Field]) -> None:
        if not self._logger.isEnabledFor(level):
            return
        allowed = _allowed(event, self._bound | fields)
        if allowed is not None:
            self._logger.log(level, event, extra={_FIELDS: allowed})


def location(error: BaseException) -> str:
    """Return ``module:line`` of the frame that raised."""
    trace: TracebackType | None = error.__traceback__
    if trace is None:
        return "unknown"
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_globals.get('__name__', 'unknown')}:{trace.tb_lineno}"


def _allowed(event: str, fields: dict[str, Field]) -> dict[str, Field] | None:
    """Return the fields that may be written, or `None` when the event may not."""
    breaches = [name for name in fields if name not in FIELDS]
    breaches += [name for name, value in fields.items() if not _harmless(value)]
    if event not in EVENTS:
        breaches.append(event)
    if breaches and _Discipline.strict:
        raise Undeclared(f"not declared in service/telemetry.py: {sorted(set(breaches))}")
    if event not in EVENTS:
        return None
    return {
        name: value if _harmless(value) else _DROPPED
        for name, value in fields.items()
        if name in FIELDS
    }


def _harmless(value: object) -> bool:
    """Whether a value is a number or a word that cannot name a patient's object."""
    if value is None or isinstance(value, bool | int | float):
        return True
    return (
        isinstance(value, str)
        and _WORD.fullmatch(value) is not None
        and _UID.fullmatch(value) is None
    )


class _Json(logging.Formatter):
    """One JSON object a line; a library's text is not among its fields."""

    def __init__(self, component: str) -> None:
        super().__init__()
        self._component = component

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Return the line; never the record's own message unless the event is ours."""
        fields: dict[str, Field] | None = getattr(record, _FIELDS, None)
        if fields is None:
            error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
            fields = {"library": record.name.partition(".")[0], "error": error}
            event = "library_message"
        else:
            event = record.msg
        line = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "component": self._component,
            "event": event,
        }
        return json.dumps(line | {k: v for k, v in fields.items() if v is not None})


class _Stderr(logging.Handler):
    """Writes to standard error, whatever that is at the time."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        """Write one line at once; a closed pipe stops nothing."""
        with suppress(OSError, ValueError):
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()


def configure(level: str, component: str) -> None:
    """Send every log line of this process to standard error, as JSON.

    Parameters
    ----------
    level
        ``DEBUG``, ``INFO``, ``WARNING`` or ``ERROR``; libraries are heard from
        ``WARNING`` on.
    component
        Name of the process: ``gateway``, ``worker``.
    """
    handler = _Stderr()
    handler.setFormatter(_Json(component))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(_LOGGER).setLevel(level.upper())
    logging.captureWarnings(capture=True)


# ------------------------------------------------------------------- metrics

# a gauge beside every counter, which nobody reads
disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry()
"""Everything that the metrics port shows."""

ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

_SHORT = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_LONG = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
_BYTES = (1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def _counter(name: str, meaning: str, *labels: str) -> Counter:
    return Counter(f"whylight_{name}", meaning, labels, registry=REGISTRY)


def _histogram(name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(f"whylight_{name}", meaning, labels, buckets=buckets, registry=REGISTRY)


def _gauge(name: str, meaning: str, *labels: str) -> Gauge:
    return Gauge(f"whylight_{name}", meaning, labels, registry=REGISTRY)


HTTP_REQUESTS = _counter("http_requests_total", "Requests answered.", "verb", "route", "status")
HTTP_SECONDS = _histogram(
    "http_request_duration_seconds", "Time to a complete answer.", _SHORT, "verb", "route"
)
HTTP_BODY_BYTES = _histogram(
    "http_request_body_bytes", "Size of request bodies.", _BYTES, "verb", "route"
)
ADMISSION_REJECTED = _counter(
    "admission_rejected_total", "Explanation requests that were refused.", "reason"
)
JOBS_SUBMITTED = _counter(
    "jobs_submitted_total", "Explanations queued.", "model", "method", "priority"
)
JOBS_FINISHED = _counter("jobs_finished_total", "Explanations that ended.", "state", "error_type")
STAGE_SECONDS = _histogram(
    "job_stage_duration_seconds", "Time of one stage of one job.", _LONG, "stage"
)
BATCH_ROWS = _histogram("batch_size", "Rows in a device batch.", _ROWS, "kind")
BATCH_WAIT = _histogram(
    "batch_wait_seconds", "Time from a pass's request to its first batch.", _SHORT
)
LEASES_EXPIRED = _counter("lease_expired_total", "Leases whose worker fell silent.")
JOBS_REDELIVERED = _counter("jobs_redelivered_total", "Explanations leased for another attempt.")
MODEL_LOADED = _gauge("model_loaded", "Models in this worker's memory.", "model")
MODEL_EVICTIONS = _counter("model_evictions_total", "Models that left memory for others.", "model")
MODEL_LOAD_SECONDS = _gauge(
    "model_load_seconds", "Time to read, test and probe a model, when it was loaded last.", "model"
)
MODEL_MEMORY = _gauge(
    "model_memory_bytes",
    "Measured memory of a model: fixed, and of a row by pass.",
    "model",
    "part",
)
WORKER_MEMORY = _gauge(
    "worker_memory_bytes", "Device memory for models and batches: budget, and models' part.", "kind"
)
DEVICE_MEMORY = _gauge("gpu_memory_bytes", "Device memory by kind.", "kind")
DEVICE_BUSY = _gauge("gpu_busy_ratio", "Share of time the device loop was computing.")
MEMORY_RETRIES = _counter("oom_retries_total", "Batches halved for want of device memory.")
OBJECTS_PURGED = _counter("objects_purged_total", "Stored objects removed.", "kind")


def serve_metrics(port: int, host: str = "127.0.0.1") -> Callable[[], None]:
    """Serve ``/metrics`` on a port of its own; return what stops it.

    Port 0 serves nothing. The listener has no key: bind it where only the
    monitoring can reach it.
    """
    if port == 0:
        return lambda: None
    server, thread = start_http_server(port, addr=host, registry=REGISTRY)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(timeout=2)

    return stop
