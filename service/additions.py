"""What explanations add to a study of the archive, and how much they may.

Every question about an image that is answered by DICOM objects adds series to
the patient's study, one for each format. A note of each series stays in the
store when its explanation is gone, because the objects may lie in a PACS by
then. A note names digests alone, and a question asked again adds no series.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from service import paths
from service.domain.canonical import digest_of
from service.domain.catalog import FormatEntry, ModelEntry
from service.domain.request import ExplanationRequest
from service.domain.study import Instance
from service.domain.target import ABOVE_THRESHOLD
from service.domain.trust import source_digest
from service.errors import StudyFull
from service.settings import LimitSettings
from service.store.base import BlobStore

DICOM: Final = "application/dicom"


@dataclass(frozen=True, slots=True)
class Addition:
    """The series that a request may add to its study, at most."""

    study: str
    """SHA-256 of the Study Instance UID."""

    series: frozenset[str]
    """Name of each: the question's digest and the format."""

    objects: int
    """DICOM objects in each series: a map for each method and target."""


def addition(
    request: ExplanationRequest,
    instances: Sequence[Instance],
    model: ModelEntry,
    formats: Sequence[FormatEntry],
) -> Addition:
    """Return what a request may add; which targets it has is known only by its scores.

    Parameters
    ----------
    instances
        The object that is explained, or all objects of a volume.
    """
    written = {each.name for each in formats if each.media_type == DICOM}
    source = source_digest([each.sha256 for each in instances])
    question = digest_of([model.package, source, request.frame, request.question()])
    classes = len(model.classes)
    targets = sum(classes if each.of == ABOVE_THRESHOLD else 1 for each in request.targets)
    return Addition(
        study=digest_of(instances[0].study_instance_uid),
        series=frozenset(f"{question}.{name}" for name in written.intersection(request.artifacts)),
        objects=len(request.methods) * targets,
    )


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
        noted = dict(self._noted(tenant, asked.study))
        noted.update(dict.fromkeys(asked.series - noted.keys(), asked.objects))
        series, objects = len(noted), sum(noted.values())
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

    def note(self, tenant: str, asked: Addition) -> None:
        """Note what was asked for."""
        for name in asked.series:
            self._store.put(paths.addition(tenant, asked.study, name, asked.objects), b"")

    def _noted(self, tenant: str, study: str) -> Iterable[tuple[str, int]]:
        """Yield the series that were noted, with the objects of each."""
        for blob in self._store.list(paths.additions(tenant, study)):
            name, _, objects = blob.path.rpartition("/")[2].rpartition(".")
            yield name, int(objects)
