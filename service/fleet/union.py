"""The union of workers' catalogs."""

from collections.abc import Callable, Hashable, Iterable
from itertools import chain
from typing import TypeVar

from service.domain.catalog import Catalog, ModelEntry
from service.domain.value import version_order

T = TypeVar("T")


def union(catalogs: Iterable[Catalog], before: Iterable[Catalog] = ()) -> Catalog:
    """Return everything that at least one of the catalogs' workers can do.

    Of entries with the same name the first counts; of the entries of one
    model package, the one that is ready and knows most certificates.

    Parameters
    ----------
    before
        Catalogs of workers that are gone. They count for the models that none of
        `catalogs` tells of, and for all else only where there are none.
    """
    last = tuple(before)
    every = tuple(catalogs) or last
    methods = _first((m for each in every for m in each.methods), lambda m: m.name)
    formats = _first((f for each in every for f in each.formats), lambda f: f.name)
    measures = _first((m for each in every for m in each.measures), lambda m: m.name)
    told = (_by_readiness(m for each in some for m in each.models) for some in (every, last))
    models = _by_readiness(_first(chain.from_iterable(told), lambda m: m.package))
    able = {m.name for m in methods} | {f.name for f in formats} | {m.name for m in measures}
    missing = {name: why for each in every for name, why in each.unavailable.items()}
    return Catalog(
        methods=methods,
        formats=formats,
        measures=measures,
        models=models,
        unavailable={name: why for name, why in sorted(missing.items()) if name not in able},
    )


def _by_readiness(models: Iterable[ModelEntry]) -> tuple[ModelEntry, ...]:
    return tuple(sorted(models, key=_readiness))


def _readiness(model: ModelEntry) -> tuple[str, tuple[int, ...], bool, int]:
    unknown = ("pending", "not_certifiable")  # the latter perhaps for want of memory
    measured = sum(each.outcome not in unknown for each in model.certificates)
    return (model.name, version_order(model.version), model.state != "ready", -measured)


def _first(entries: Iterable[T], key: Callable[[T], Hashable]) -> tuple[T, ...]:
    """Return the first entry of each key, in order."""
    kept: dict[Hashable, T] = {}
    for entry in entries:
        kept.setdefault(key(entry), entry)
    return tuple(kept.values())
