"""``python -m workers.main``: one worker process, configured by ``WHYLIGHT_*``."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

import torch

from service.settings import settings_or_exit
from service.telemetry import Log, configure, serve_metrics
from workers.wiring import assembled


def main() -> None:
    """Run a worker until a signal drains it."""
    settings = settings_or_exit()
    configure(settings.log_level, "worker")
    _tell_no_texts(Log())
    torch.set_num_threads(settings.worker.threads)
    torch.set_num_interop_threads(1)
    stop_metrics = serve_metrics(settings.worker.metrics_port, settings.worker.metrics_host)
    with assembled(settings) as worker:
        _on_signals(worker.drain)
        worker.run()
    stop_metrics()


def _on_signals(call: Callable[[], None]) -> None:
    """Call once told to end, on a thread: the main one owns the device and may be in a long call.

    Python runs a signal's handler only between two steps of the main thread; the byte that
    tells of the signal is written at once.
    """
    told, teller = os.pipe()
    os.set_blocking(teller, False)
    signal.set_wakeup_fd(teller, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _nothing_more)

    def wait() -> None:
        os.read(told, 1)
        call()

    threading.Thread(target=wait, name="signals", daemon=True).start()


def _nothing_more(number: int, frame: FrameType | None) -> None:
    """Handle a signal whose byte was written; without a handler none is."""


def _tell_no_texts(log: Log) -> None:
    """Log exceptions that nobody caught by type and place: their texts may name patients."""

    def of_process(
        kind: type[BaseException],  # noqa: ARG001 - the hook's call
        error: BaseException,
        trace: TracebackType | None,  # noqa: ARG001 - the hook's call
    ) -> None:
        log.bug(error)

    def of_thread(unhandled: threading.ExceptHookArgs) -> None:
        if unhandled.exc_value is not None:
            log.bug(unhandled.exc_value)

    sys.excepthook = of_process
    threading.excepthook = of_thread


if __name__ == "__main__":
    main()
