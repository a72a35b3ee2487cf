"""Studies: taken in object by object, kept in the store, purged whole."""

import hashlib
import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

from pydantic import JsonValue

from service import paths
from service.dicom.bounds import together
from service.dicom.header import read_header
from service.domain.canonical import digest_of
from service.domain.ids import ALPHABET, LENGTH, new_id
from service.domain.study import Instance, Skipped, Study
from service.errors.base import Kind, WhylightError
from service.errors.requests import InvalidRequest, NotFound, TooLarge
from service.errors.studies import (
    ContradictoryObjects,
    NothingUsable,
    SeveralPatients,
    SeveralStudies,
    StudyContradicted,
)
from service.redis_server import Clock
from service.settings import Settings
from service.store.base import Blob, BlobStore

PREFIX = "st"
SKIPPED_SHOWN = 50
_ID = re.compile(rf"{PREFIX}_[{ALPHABET}]{{{LENGTH}}}")
_CURSOR = re.compile(rf"(\d{{1,15}})-({PREFIX}_[{ALPHABET}]{{{LENGTH}}})")


@dataclass(frozen=True, slots=True)
class Part:
    """One object of an upload, lying in a file of ours."""

    number: int
    """Its place in the request, counted from 1."""

    file: Path


@dataclass(frozen=True, slots=True)
class StudyPage:
    """One page of a listing, newest first."""

    studies: tuple[Study, ...]
    cursor: str | None
    """Hand it in to get the next page; `None` at the end."""


class Studies:
    """The studies of all tenants.

    Parameters
    ----------
    store
        Where objects and records lie.
    settings
        Limits, and how long a study stays.
    clock
        Milliseconds since the epoch.
    """

    def __init__(self, store: BlobStore, settings: Settings, clock: Clock) -> None:
        self._store = store
        self._limits = settings.limits
        self._inputs_for = settings.store.inputs_for
        self._clock = clock

    def take_in(self, tenant: str, parts: Iterable[Part]) -> Study:
        """Keep the images among `parts`; what is none is skipped with the reason.

        Whatever fails, nothing of the study stays in the store.

        Raises
        ------
        WhylightError
            The one object's own failure, when nothing else was sent.
        NothingUsable
            Not one of several objects is an image that is read.
        SeveralStudies, SeveralPatients
            Images of two studies, or of two patients, came together.
        ContradictoryObjects
            Two objects bear one SOP Instance UID and are not the same.
        StudyContradicted
            The tenant holds the study with another patient, or with other
            objects of the same identity.
        InvalidRequest
            Nothing was sent.
        TooLarge
            More objects than allowed, or more elements in them.
        """
        study_id = new_id(PREFIX)
        try:
            with together():
                return self._take_in(tenant, study_id, parts)
        except BaseException:
            self._store.purge(paths.study(tenant, study_id))
            raise

    def _take_in(self, tenant: str, study_id: str, parts: Iterable[Part]) -> Study:
        kept: dict[str, Instance] = {}
        skipped: list[Skipped] = []
        failure: WhylightError | None = None
        for count, part in enumerate(parts, 1):
            if count > self._limits.instances:
                raise TooLarge(
                    "The upload has more objects than allowed.", limit=self._limits.instances
                )
            try:
                instance = self._instance(tenant, study_id, part, len(kept) + 1)
            except WhylightError as error:
                if error.kind is not Kind.DATA:
                    raise
                failure = error
                skipped.append(_skip(part, error.code, error.detail))
                continue
            _require_one_study(instance, kept.values(), part)
            if instance.sop_instance_uid in kept:
                _require_same(instance, kept[instance.sop_instance_uid], part)
                skipped.append(_skip(part, "duplicate", "An object with its UID came before it."))
                continue
            self._store.put(instance.path, part.file)
            kept[instance.sop_instance_uid] = instance
        if not kept:
            raise _nothing_kept(skipped, failure)
        now = datetime.fromtimestamp(self._clock() / 1000, UTC)
        study = Study(
            id=study_id,
            tenant=tenant,
            created=now,
            expires=now + self._inputs_for,
            instances=tuple(kept.values()),
            skipped=tuple(skipped),
        )
        self._keep(study)
        return study

    def _keep(self, study: Study) -> None:
        """Write the study's record, unless another upload contradicts it.

        What is held is looked at before and after: of two uploads at one moment
        at least one sees the other.
        """
        self._demand_agreement(study)
        note = _holding(study)
        record = paths.study_record(study.tenant, study.id)
        self._store.put(record, study.model_dump_json().encode())
        try:
            self._store.put(note, b"")
            self._demand_agreement(study)
        except BaseException:
            self._store.delete(note)
            raise

    def _demand_agreement(self, study: Study) -> None:
        """Refuse a study that the tenant holds otherwise; uploads of equal contents agree."""
        folder, _, note = _holding(study).rpartition("/")
        own, _, _ = note.partition(".")
        for blob in self._store.list(folder):
            contents, _, study_id = blob.path.rpartition("/")[2].partition(".")
            held = None if contents == own else self._read(study.tenant, study_id)
            if held is not None:
                _require_agreement(study, held)

    def _instance(self, tenant: str, study_id: str, part: Part, number: int) -> Instance:
        """Read one object's header; the object itself is not stored yet."""
        header = read_header(part.file, max_samples=self._limits.pixels)
        instance_id = f"in_{number:04d}"
        with part.file.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Instance(
            id=instance_id,
            part=part.number,
            path=paths.instance(tenant, study_id, instance_id),
            bytes=part.file.stat().st_size,
            sha256=digest,
            **header.model_dump(),
        )

    def get(self, tenant: str, study_id: str) -> Study:
        """Return a study's record; `NotFound` if there is none or it is another's."""
        if not _ID.fullmatch(study_id):
            raise _no_study()
        try:
            data = self._store.get(paths.study_record(tenant, study_id))
        except FileNotFoundError:
            raise _no_study() from None
        return Study.model_validate_json(data)

    def list(self, tenant: str, *, limit: int = 50, cursor: str | None = None) -> StudyPage:
        """List a tenant's studies, newest first.

        Raises
        ------
        InvalidRequest
            The cursor is none that a listing gave.
        """
        records = sorted((_key(each) for each in self.records(tenant)), reverse=True)
        if cursor is not None:
            before = _parsed(cursor)
            records = [each for each in records if each < before]
        page = records[:limit]
        more = len(records) > limit
        found = (self._read(tenant, study_id) for _, study_id in page)
        return StudyPage(
            studies=tuple(each for each in found if each is not None),
            cursor=f"{page[-1][0]}-{page[-1][1]}" if more else None,
        )

    def records(self, tenant: str) -> Iterable[Blob]:
        """Tell of every study record of a tenant."""
        objects = self._store.list(paths.studies(tenant))
        return (each for each in objects if each.path.endswith(f"/{paths.STUDY_NAME}"))

    def purge(self, tenant: str, study_id: str) -> int:
        """Remove a study; return how many objects it had. Errors as of `get`."""
        self.get(tenant, study_id)
        return self.remove(tenant, study_id)

    def remove(self, tenant: str, study_id: str) -> int:
        """Remove what there is of a study, with a record or without; return how many objects."""
        with suppress(NotFound, ValueError):  # an upload that was cut off, a damaged record
            self._store.delete(_holding(self.get(tenant, study_id)))
        return self._store.purge(paths.study(tenant, study_id))

    def _read(self, tenant: str, study_id: str) -> Study | None:
        """Return a record, or `None` when it was purged meanwhile."""
        try:
            return self.get(tenant, study_id)
        except NotFound:
            return None


def _require_one_study(instance: Instance, before: Collection[Instance], part: Part) -> None:
    """Refuse an image of another study: two patients' images must not become one study."""
    if any(each.study_instance_uid != instance.study_instance_uid for each in before):
        raise SeveralStudies(
            "An object is of another study than those before it; send each study by itself.",
            part=part.number,
        )
    if differing := _contradictions([instance], before):
        raise SeveralPatients(
            "An object is of another patient than those before it, though of the same study;"
            " 'differing' names the attributes. Find out whose images they are before sending"
            " them.",
            part=part.number,
            differing=[*differing],
        )


def _contradictions(some: Iterable[Instance], others: Iterable[Instance]) -> tuple[str, ...]:
    """Return by which attributes two of the instances' patients contradict each other."""
    pairs = product({each.patient for each in some}, {each.patient for each in others})
    return next(filter(None, (one.contradictions(other) for one, other in pairs)), ())


def _require_same(instance: Instance, kept: Instance, part: Part) -> None:
    """Refuse other bytes under an identity: nobody could tell which of the two was meant."""
    if instance.sha256 != kept.sha256:
        raise ContradictoryObjects(
            "An object has the SOP Instance UID of one before it and is not the same; send the one"
            " that is meant.",
            part=part.number,
        )


def _require_agreement(study: Study, held: Study) -> None:
    """Refuse a study that is held with another patient, or with other bytes of one identity."""
    if differing := _contradictions(study.instances, held.instances):
        raise StudyContradicted(
            "The study is held already, with images of another patient; 'differing' names the"
            " attributes. Find out whose images they are; if those that are held are wrong, delete"
            " them first.",
            study=held.id,
            differs="patient",
            differing=[*differing],
        )
    known = {each.sop_instance_uid: each.sha256 for each in held.instances}
    if any(
        known.get(each.sop_instance_uid, each.sha256) != each.sha256 for each in study.instances
    ):
        raise StudyContradicted(
            "The study is held already, with another object of the same SOP Instance UID. Send the"
            " object that is held, or delete the study first.",
            study=held.id,
            differs="object",
        )


def _holding(study: Study) -> str:
    """Return the path of the note that the tenant holds what is in a study."""
    of = digest_of(study.instances[0].study_instance_uid)
    contents = sorted((each.sop_instance_uid, each.sha256) for each in study.instances)
    return paths.holding(study.tenant, of, digest_of(contents), study.id)


def _skip(part: Part, code: str, detail: str) -> Skipped:
    return Skipped(part=part.number, code=code, detail=detail)


def _nothing_kept(skipped: list[Skipped], failure: WhylightError | None) -> WhylightError:
    """Return the failure of an upload of which nothing was kept."""
    if failure is None:
        return InvalidRequest("The upload holds no object; send at least one DICOM image.")
    if len(skipped) == 1:
        return failure
    shown: list[JsonValue] = [each.model_dump(mode="json") for each in skipped[:SKIPPED_SHOWN]]
    return NothingUsable(
        "Not one of the objects is an image that is read; 'skipped' says why.",
        objects=len(skipped),
        skipped=shown,
    )


def _key(blob: Blob) -> tuple[int, str]:
    """Return when a record was written, in milliseconds, and its study."""
    return int(blob.modified * 1000), blob.path.split("/")[-2]


def _parsed(cursor: str) -> tuple[int, str]:
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise InvalidRequest("A cursor must be one that the service gave.", pointer="/cursor")
    return int(found[1]), found[2]


def _no_study() -> NotFound:
    return NotFound("There is no such study.")
