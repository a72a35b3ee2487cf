"""What the queue and the fleet look like at the moment somebody asks."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from service.errors.base import WhylightError
from service.fleet.base import Fleet
from service.queue.base import JobQueue
from service.telemetry import REGISTRY


class QueueGauges(Collector):
    """Gauges of what waits and who works; only ``whylight_queue_up`` when Redis is silent.

    Parameters
    ----------
    queue, fleet
        Asked once at each scrape.
    """

    def __init__(self, queue: JobQueue, fleet: Fleet) -> None:
        self._queue = queue
        self._fleet = fleet

    def describe(self) -> Iterable[Metric]:
        """Name nothing in advance, so that registering asks no Redis."""
        return []

    @override
    def collect(self) -> Iterator[Metric]:
        """Ask queue and fleet; a failure is a gauge, never an error of the scrape."""
        up = GaugeMetricFamily("whylight_queue_up", "Whether Redis answers.")
        try:
            found = [*self._depths(), *self._fleet_gauges()]
        except WhylightError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from found

    def _depths(self) -> Iterator[Metric]:
        waiting = _family("queue_depth", "Jobs waiting.", "priority", "class")
        running = _family("queue_running", "Jobs leased.", "class")
        oldest = _family("queue_oldest_age_seconds", "Wait of the oldest job.", "class")
        wait = _family("queue_estimated_wait_seconds", "Device time waiting, by worker.", "class")
        crews = [each.pool for each in self._fleet.workers()]
        for depth in self._queue.depth():
            for priority, count in depth.waiting.items():
                waiting.add_metric([priority.value, depth.pool], count)
            running.add_metric([depth.pool], depth.running)
            oldest.add_metric([depth.pool], depth.oldest_age / 1000)
            crew = max(crews.count(depth.pool), 1)
            wait.add_metric([depth.pool], depth.waiting_cost / 1000 / crew)
        yield from (waiting, running, oldest, wait)

    def _fleet_gauges(self) -> Iterator[Metric]:
        up = _family("worker_up", "Live workers.", "class")
        crews = [each.pool for each in self._fleet.workers()]
        for pool in sorted(set(crews)):
            up.add_metric([pool], crews.count(pool))
        dead = _family("dead_letters", "Jobs that were given up.")
        dead.add_metric([], len(self._queue.dead_letters()))
        yield from (up, dead)


@contextmanager
def watching(queue: JobQueue, fleet: Fleet) -> Iterator[None]:
    """Show the gauges of `queue` and `fleet` on this process's metrics port."""
    gauges = QueueGauges(queue, fleet)
    REGISTRY.register(gauges)
    try:
        yield
    finally:
        REGISTRY.unregister(gauges)


def _family(name: str, meaning: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"whylight_{name}", meaning, labels=labels)
