"""What of patient and study is more than one plain element: whole sequences, whole modules.

Each is carried over whole, or not at all: half of a code, or an identifier without its type, would
say something else. Where the standard makes an element depend on others, they go together.
"""

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from pydicom.dataset import Dataset

from service.dicom.dataset import items_of, value_of
from workers.formats.items import are_whole

SEQUENCES: Final = (
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence",
    "PatientSpeciesCodeSequence",
)
"""Of identifiers and codes of the patient, each by itself."""

STUDY: Final = (
    "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianIdentificationSequence",
    "ConsultingPhysicianName",
    "ConsultingPhysicianIdentificationSequence",
    "PhysiciansOfRecord",
    "PhysiciansOfRecordIdentificationSequence",
    "NameOfPhysiciansReadingStudy",
    "PhysiciansReadingStudyIdentificationSequence",
    "RequestingServiceCodeSequence",
    "ReferencedStudySequence",
    "ProcedureCodeSequence",
    "ReasonForPerformedProcedureCodeSequence",
)
"""The rest of the General Study module (PS3.3 C.7.2.1), each by itself."""

VISIT: Final = (
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    "ServiceEpisodeID",
    "IssuerOfServiceEpisodeIDSequence",
    "ServiceEpisodeDescription",
)
"""What of the Patient Study module (PS3.3 C.7.2.2) identifies the visit, each by itself."""

SPECIES: Final = ("PatientSpeciesDescription", "PatientSpeciesCodeSequence")
OF_ANIMALS: Final = (
    "PatientSexNeutered",
    "PatientBreedDescription",
    "PatientBreedCodeSequence",
    "BreedRegistrationSequence",
    "ResponsiblePerson",
    "ResponsibleOrganization",
)
"""Type 2C: present, if maybe empty, of every animal (PS3.3 C.7.1.1, C.7.2.2), and of no other."""

TRIAL: Final = ("ClinicalTrialSponsorName", "ClinicalTrialProtocolID")
SUBJECT: Final = ("ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID")
TRIAL_EMPTY: Final = ("ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName")
"""Of the Clinical Trial Subject module (PS3.3 C.7.1.3): type 1, one of type 1C, type 2."""
TRIAL_TIME: Final = ("ClinicalTrialTimePointID", "ClinicalTrialTimePointDescription")
"""Of the Clinical Trial Study module (PS3.3 C.7.2.3): type 2, type 3."""

REMOVED, METHOD, METHOD_CODES = (
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
)
ALL: Final = (
    *SEQUENCES,
    *STUDY,
    *VISIT,
    SPECIES[0],
    *OF_ANIMALS,
    "ResponsiblePersonRole",
    *TRIAL,
    *SUBJECT,
    *TRIAL_EMPTY,
    *TRIAL_TIME,
    REMOVED,
    METHOD,
    METHOD_CODES,
)
"""All that may be carried over; what is not, though the source says it, is told."""


class Source(Protocol):
    """An object whose elements are checked as they are read."""

    @property
    def dataset(self) -> Dataset:
        """The object itself."""

    def text(self, keyword: str) -> str:
        """Return the element's one valid text, else nothing."""

    def values(self, keyword: str) -> list[str]:
        """Return all values of the element if every one is valid, else none."""

    def within(self, item: Dataset) -> "Source":
        """Return an item of one of its sequences, to be read likewise."""


def carry(source: Source, ds: Dataset) -> None:
    """Put into a derived object what else is said of patient and study."""
    for keyword in (*SEQUENCES, *STUDY, *VISIT):
        _put(source, ds, keyword)
    _carry_animal(source, ds)
    _carry_trial(source, ds)
    _carry_removal(source, ds)


def _carry_animal(source: Source, ds: Dataset) -> None:
    _put(source, ds, SPECIES[0])
    if not any(keyword in ds for keyword in SPECIES):
        return
    for keyword in OF_ANIMALS:
        if not _put(source, ds, keyword):
            setattr(ds, keyword, [] if keyword.endswith("Sequence") else "")
    if ds.ResponsiblePerson and not _put(source, ds, "ResponsiblePersonRole"):
        ds.ResponsiblePerson = ""  # 1C: whoever is responsible is so in some role


def _carry_trial(source: Source, ds: Dataset) -> None:
    if not all(map(source.text, TRIAL)) or not any(map(source.text, SUBJECT)):
        return
    for keyword in (*TRIAL, *SUBJECT):
        _put(source, ds, keyword)
    for keyword in TRIAL_EMPTY:
        setattr(ds, keyword, source.text(keyword))
    if _put(source, ds, TRIAL_TIME[0]):
        _put(source, ds, TRIAL_TIME[1])


def _carry_removal(source: Source, ds: Dataset) -> None:
    """Say whether the patient's identity was removed; if so, it must say how (PS3.3 C.7.1.1)."""
    removed = source.text(REMOVED)
    how = any((source.values(METHOD), _items(source, METHOD_CODES)))
    if removed == "NO" or (removed == "YES" and how):
        for keyword in (REMOVED, METHOD, METHOD_CODES):
            _put(source, ds, keyword)


def _put(source: Source, ds: Dataset, keyword: str) -> bool:
    """Copy an element or a sequence if it is valid and holds something; tell whether it was."""
    if keyword.endswith("Sequence"):
        found: Sequence[Dataset | str] = _items(source, keyword)
    else:
        found = source.values(keyword)
    if found:
        setattr(ds, keyword, found if len(found) > 1 or _is_item(found[0]) else found[0])
    return bool(found)


def _is_item(value: Dataset | str) -> bool:
    return isinstance(value, Dataset)


def _items(source: Source, keyword: str) -> list[Dataset]:
    """Return copies of a sequence's items if every one is valid throughout, else none."""
    copies = [_copied(source, item) for item in items_of(source.dataset, keyword)]
    whole = [each for each in copies if each]
    return whole if len(whole) == len(copies) and are_whole(keyword, whole) else []


def _copied(source: Source, item: Dataset) -> Dataset | None:
    """Return an item with all that its standard elements say; `None` where one is not valid."""
    inner, copy = source.within(item), Dataset()
    for keyword in _keywords(item):
        said = value_of(item, keyword) not in (None, "", [])
        if said and not _put(inner, copy, keyword):
            return None
    return copy


def _keywords(item: Dataset) -> Iterator[str]:
    """Yield the names of an item's standard elements; private ones have none."""
    return (name for name in item.dir() if name)


def lost(source: Source) -> Iterator[str]:
    """Yield the keywords of what the source says and a derived object will not."""
    kept = Dataset()
    carry(source, kept)
    for keyword in ALL:
        said = value_of(source.dataset, keyword)
        if said not in (None, "", []) and not kept.get(keyword):
            yield keyword
