"""What items of the sequences that are carried over must hold: without it, no object is valid."""

from collections.abc import Mapping, Sequence
from typing import Final

from pydicom.dataset import Dataset

SINGLE: Final = frozenset(
    {
        "IssuerOfPatientIDQualifiersSequence",
        "IssuerOfAccessionNumberSequence",
        "IssuerOfAdmissionIDSequence",
        "IssuerOfServiceEpisodeIDSequence",
        "PatientSpeciesCodeSequence",
        "BreedRegistryCodeSequence",
        "ReferringPhysicianIdentificationSequence",
        "InstitutionCodeSequence",
    }
)
"""Sequences of one item."""

CODES: Final = ("CodeValue", "LongCodeValue", "URNCodeValue")
"""A code is in one of them (PS3.3 8.8)."""

IDENTIFIED: Final = ("PersonIdentificationCodeSequence",)
NEEDED: Final[Mapping[str, Sequence[str]]] = {
    "OtherPatientIDsSequence": ("PatientID", "TypeOfPatientID"),
    "BreedRegistrationSequence": ("BreedRegistrationNumber", "BreedRegistryCodeSequence"),
    "ReferencedStudySequence": ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID"),
    "ReferringPhysicianIdentificationSequence": IDENTIFIED,
    "ConsultingPhysicianIdentificationSequence": IDENTIFIED,
    "PhysiciansOfRecordIdentificationSequence": IDENTIFIED,
    "PhysiciansReadingStudyIdentificationSequence": IDENTIFIED,
}
"""Type 1 of their items."""

EITHER: Final[Mapping[str, Sequence[str]]] = {
    "IssuerOfAccessionNumberSequence": ("LocalNamespaceEntityID", "UniversalEntityID"),
    "IssuerOfAdmissionIDSequence": ("LocalNamespaceEntityID", "UniversalEntityID"),
    "IssuerOfServiceEpisodeIDSequence": ("LocalNamespaceEntityID", "UniversalEntityID"),
    **{
        keyword: ("InstitutionName", "InstitutionCodeSequence")
        for keyword, needed in NEEDED.items()
        if needed is IDENTIFIED
    },
}
"""Type 1C of their items: one of them."""

TOGETHER: Final = (
    ("UniversalEntityID", "UniversalEntityIDType"),
    ("ContextIdentifier", "MappingResource"),
    ("ContextIdentifier", "ContextGroupVersion"),
)
"""Of any item: where the first is, there must be the other."""


def are_whole(keyword: str, items: Sequence[Dataset]) -> bool:
    """Tell whether a sequence has as many items as it may, each with what it must hold."""
    return (len(items) == 1 or keyword not in SINGLE) and all(
        _is_whole(keyword, each) for each in items
    )


def _is_whole(keyword: str, item: Dataset) -> bool:
    """Judge an item of elements that are valid by themselves; none of them is empty."""
    if keyword.endswith("CodeSequence") and not _is_code(item):
        return False
    either = EITHER.get(keyword)
    return (
        all(needed in item for needed in NEEDED.get(keyword, ()))
        and (either is None or any(each in item for each in either))
        and all(other in item for one, other in TOGETHER if one in item)
    )


def _is_code(item: Dataset) -> bool:
    values = [each for each in CODES if each in item]
    named = "CodingSchemeDesignator" in item or values == ["URNCodeValue"]
    return len(values) == 1 and named and "CodeMeaning" in item
