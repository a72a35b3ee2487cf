"""The binding: one digest that holds a map to the image, model and job it was made of.

No statistic tells another patient's map from the right one when the disease
lies in the same place. So each map is bound where it is made, and held against
its binding right before it is drawn.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.domain.canonical import canonical, digest_of
from service.domain.explanation import ModelRef
from service.domain.job import Job
from service.domain.resolved import ResolvedTarget
from service.domain.target import EmbeddingTarget, Segment, SegmentationTarget
from service.domain.trust import Binding, source_digest
from service.domain.value import Sha256
from service.errors.jobs import ResultDamaged
from workers.parcels import Attribution, Fetched, Prepared

REMEMBERED: Final = 4096
"""Maps against which later ones are held."""


def array_digest(values: NDArray[Any]) -> str:
    """Return the SHA-256 of an array: its shape as a JSON list, then its float32 values.

    Values are little-endian and in C order, whatever the array's own layout is.
    """
    digest = hashlib.sha256(canonical(list(values.shape)))
    digest.update(np.ascontiguousarray(values, "<f4").data)
    return digest.hexdigest()


def bound(
    prepared: Prepared, model: ModelRef, attributions: Sequence[Attribution]
) -> tuple[Attribution, ...]:
    """Return the attributions of one job, each map with its binding."""
    origin = _origin(prepared, model)
    fetched = prepared.decoded.fetched
    return tuple(
        each
        if each.values is None
        else replace(
            each,
            binding=Binding.of(
                map=array_digest(each.values), source=_source(each, fetched), **origin
            ),
        )
        for each in attributions
    )


def demand_bound(attribution: Attribution, prepared: Prepared, model: ModelRef) -> Binding:
    """Return the binding of a map that is this job's own.

    Raises
    ------
    ResultDamaged
        The map was made in another job or attempt, of another image, by other
        weights, or for another request.
    """
    binding, source = attribution.binding, _source(attribution, prepared.decoded.fetched)
    if binding is None or binding != Binding.of(
        map=binding.map, source=source, **_origin(prepared, model)
    ):
        raise ResultDamaged("A map is not bound to this job, so nothing was drawn.")
    return binding


def demand_same(values: NDArray[np.float32], digest: str) -> None:
    """Hold a map that was read back against the digest in its binding.

    Raises
    ------
    ResultDamaged
        It is another map.
    """
    if array_digest(values) != digest:
        raise ResultDamaged("A map is no longer what the method made, so nothing was drawn.")


def request_digest(job: Job) -> str:
    """Return the SHA-256 of a job's request, which is canonical JSON as it was queued."""
    return hashlib.sha256(job.request.encode()).hexdigest()


class Seen:
    """The maps that one worker made lately: equal maps of different images are suspect.

    Parameters
    ----------
    limit
        Most maps that are remembered; the least recently met is forgotten first.

    Notes
    -----
    Thread-safe.
    """

    def __init__(self, limit: int = REMEMBERED) -> None:
        self._limit = limit
        self._inputs: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def is_duplicate(self, binding: Binding, *, degenerate: bool) -> bool:
        """Remember a map; tell whether the very same one was made of another input.

        Degenerate maps do not count: blank ones are all alike.
        """
        if degenerate:
            return False
        with self._lock:
            first = self._inputs.setdefault(binding.map, binding.input)
            self._inputs.move_to_end(binding.map)
            if len(self._inputs) > self._limit:
                self._inputs.popitem(last=False)
        return first != binding.input


def _input_digest(prepared: Prepared) -> str:
    """Return the SHA-256 of the model's input; with values beside the image, of both."""
    image = array_digest(prepared.tensor)
    if not prepared.variables:
        return image
    return digest_of([image, [each.value for each in prepared.variables]])


def _source(attribution: Attribution, fetched: Fetched) -> Sha256:
    """Return the digest of what was sent, and of the object that the target was made of beside."""
    named = _beside(attribution.target)
    held = (each.sha256 for each in fetched.beside if each.id == named)
    return source_digest([each.sha256 for each in fetched.instances], next(held, None))


def _beside(target: ResolvedTarget | None) -> str | None:
    """Return the name of the object that a target was made of beside the image."""
    match target and target.again:
        case (
            EmbeddingTarget(similarity_to=name) | SegmentationTarget(region=Segment(instance=name))
        ):
            return name
        case _:
            return None


def _origin(prepared: Prepared, model: ModelRef) -> dict[str, Any]:
    """Return what all maps of one job have in common."""
    fetched = prepared.decoded.fetched
    job = fetched.lease.job
    return {
        "input": _input_digest(prepared),
        "weights": model.weights,
        "precision": fetched.request.precision,
        "request": request_digest(job),
        "job": job.id,
        "attempt": job.attempt,
    }
