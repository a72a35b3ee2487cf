"""Jobs for tests of queues, and a clock that is driven by hand."""

from dataclasses import dataclass
from typing import Any

from service.domain.ids import new_id
from service.domain.job import Job, Priority

PACKAGE = "a" * 64
OTHER_PACKAGE = "b" * 64


@dataclass
class HandClock:
    """Tells the milliseconds that the test says."""

    now: int = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        """Let time pass."""
        self.now += round(seconds * 1000)


@dataclass
class Jobs:
    """Makes jobs that were created now."""

    clock: HandClock

    def __call__(self, tenant: str = "clinic", **changes: Any) -> Job:
        """Return a new job of a tenant."""
        values: dict[str, Any] = {
            "id": new_id("ex"),
            "tenant": tenant,
            "priority": Priority.NORMAL,
            "created": self.clock.now,
            "cost": 100,
            "request": '{"study":"st_1"}',
            "model": "chest@1.0.0",
            "package": PACKAGE,
        }
        return Job(**{**values, **changes})
