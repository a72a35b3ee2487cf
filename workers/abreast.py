"""Plans side by side: of one image's views, or of parts of it, each a plan of its own."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from itertools import chain, islice
from typing import Any, TypeVar

from workers.passes import Pass, Plan, TimeUp

R = TypeVar("R")


def abreast(plans: Sequence[Plan[R]]) -> Plan[tuple[R, ...]]:
    """Return plans as one, which asks for the passes of all of them at a time.

    So a pass that several of them ask for is made once, and all are begun before one is done.
    When time is up, every one is told; what each has by then is returned, if all have something.

    Raises
    ------
    TimeUp
        One of them has nothing to return.
    """
    found: dict[int, R] = {}
    heard: dict[int, Any] = dict.fromkeys(range(len(plans)))
    late: TimeUp | None = None
    with ExitStack() as open_plans:
        for plan in plans:
            open_plans.enter_context(closing(plan))
        while True:
            asked: dict[int, Pass | tuple[Pass, ...]] = {}
            for k, answer in heard.items():
                try:
                    asked[k] = plans[k].send(answer) if late is None else plans[k].throw(late)
                except StopIteration as end:
                    found[k] = end.value
            if not asked:
                break
            every = chain.from_iterable(map(_several, asked.values()))
            try:
                said = iter((yield tuple(every)))
            except TimeUp as error:
                late, heard = error, dict.fromkeys(asked)
                continue
            late = None
            heard = {
                k: tuple(islice(said, len(each))) if isinstance(each, tuple) else next(said)
                for k, each in asked.items()
            }
    return tuple(found[k] for k in range(len(plans)))


def _several(asked: Pass | tuple[Pass, ...]) -> tuple[Pass, ...]:
    return asked if isinstance(asked, tuple) else (asked,)
