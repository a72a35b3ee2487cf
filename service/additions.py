"""What explanations add to a study of the archive, and how much they may.

Every question about an image that is answered by DICOM objects adds series to
the patient's study, one for each format. A note of each job's objects stays
in the store when its explanation is gone, because the objects may lie in a
PACS by then. A note names digests and the job alone. A question asked again
adds no series, but its objects count again: in another style, of other slices
or with other last digits they are other objects.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from service import paths
from service.bags import views_of
from service.domain.canonical import digest_of
from service.domain.catalog import FormatEntry, ModelEntry
from service.domain.inputs import Accept
from service.domain.request import MOST_SLICES, DicomChoice, ExplanationRequest
from service.domain.study import Instance
from service.domain.target import ABOVE_THRESHOLD
from service.domain.trust import source_digest
from service.errors.requests import StudyFull
from service.settings import LimitSettings
from service.store.base import BlobStore

DICOM: Final = "application/dicom"
CAPTURE: Final = "dicom_sc"
"""The format that makes an object for each slice on request."""


@dataclass(frozen=True, slots=True)
class Addition:
    """The series that a request may add to its study, at most."""

    study: str
    """SHA-256 of the Study Instance UID."""

    series: Mapping[str, int]
    """Its DICOM objects, by the name of each: the question's digest, the format and the view."""


def addition(
    request: ExplanationRequest,
    instances: Sequence[Instance],
    model: ModelEntry,
    formats: Sequence[FormatEntry],
    beside: Sequence[Instance] = (),
) -> Addition:
    """Return what a request may add; which targets it has is known only by its scores.

    Parameters
    ----------
    instances
        The object that is explained, or all of a volume or a bag, or one of each view.
    beside
        Those that targets are made of beside it.
    """
    written = {each.name for each in formats if each.media_type == DICOM}
    source = source_digest([each.sha256 for each in instances])
    asked = [model.package, source, request.frame, request.question()]
    asked += [each.sha256 for each in beside]
    question = digest_of([version("whylight"), *asked])  # each version has series of its own
    classes = len(model.classes)
    targets = sum(classes if each.of == ABOVE_THRESHOLD else 1 for each in request.targets)
    maps = len(request.methods) * targets
    volume = Accept.model_validate(model.accept).volume is not None
    captures = _captures(request.dicom, instances) if volume else 1
    return Addition(
        study=digest_of(instances[0].study_instance_uid),
        series={
            f"{question}.{name}{view}": maps * (captures if name == CAPTURE else 1)
            for name in written.intersection(request.artifacts)
            for view in _views(model, instances)
        },
    )


def _views(model: ModelEntry, instances: Sequence[Instance]) -> tuple[str, ...]:
    """Return what the names of series end with: those of each view are series of their own."""
    views = model.views if model.images is None else views_of(instances)
    return tuple(f".{each.key}" for each in views) or ("",)


def _captures(choice: DicomChoice, instances: Sequence[Instance]) -> int:
    """Return how many captures the picture of a volume is."""
    slices = sum(each.number_of_frames for each in instances)
    if choice.objects == "multi_frame":
        return 1
    return slices if choice.slices == "all" else min(slices, MOST_SLICES)


class Additions:
    """The notes of all tenants.

    Parameters
    ----------
    store
        Where they lie.
    limits
        How many series and objects one study may be given.
    """

    def __init__(self, store: BlobStore, limits: LimitSettings) -> None:
        self._store = store
        self._limits = limits

    def demand_room(self, tenant: str, asked: Addition) -> None:
        """Refuse what would add too much; two requests at one moment may both find room.

        Raises
        ------
        StudyFull
            The study would be given more series or objects than allowed.
        """
        if not asked.series:
            return
        added = [*self._noted(tenant, asked.study), *asked.series.items()]
        series, objects = len({name for name, _ in added}), sum(count for _, count in added)
        if series > self._limits.study_series or objects > self._limits.study_objects:
            raise StudyFull(
                "Explanations would add more series or objects to the study than is allowed; ask"
                " for fewer DICOM formats, methods or targets, or for arrays and PNG, which are no"
                " part of it.",
                series=series,
                series_limit=self._limits.study_series,
                objects=objects,
                objects_limit=self._limits.study_objects,
            )

    def note(self, tenant: str, job: str, asked: Addition) -> None:
        """Note what a job may add."""
        for path in _notes(tenant, job, asked):
            self._store.put(path, b"")

    def forget(self, tenant: str, job: str, asked: Addition) -> None:
        """Remove the notes of a job that was not queued."""
        for path in _notes(tenant, job, asked):
            self._store.delete(path)

    def _noted(self, tenant: str, study: str) -> Iterable[tuple[str, int]]:
        """Yield the series that were noted, with the objects that a job adds to it."""
        for blob in self._store.list(paths.additions(tenant, study)):
            name, _, objects = blob.path.rpartition("/")[2].rsplit(".", 2)
            yield name, int(objects)


def _notes(tenant: str, job: str, asked: Addition) -> Iterable[str]:
    for name, objects in asked.series.items():
        yield paths.addition(tenant, asked.study, name, job, objects)
