"""``python -m workers.main``: one worker process, configured by ``WHYLIGHT_*``."""

import signal
import sys
import threading
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

        def drain(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal's call
            worker.drain()

        signal.signal(signal.SIGTERM, drain)
        signal.signal(signal.SIGINT, drain)
        worker.run()
    stop_metrics()


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
