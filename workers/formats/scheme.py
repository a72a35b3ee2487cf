"""Codes: of the standard where it has one, else of a scheme of our own."""

import re
from typing import Final

from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset

from workers.formats.record import MapRecord

SCHEME: Final = "99WHYLIGHT"
LONGEST: Final = 64
"""Characters of a code's meaning and of other long strings (LO)."""


def own(value: str, meaning: str) -> CodedConcept:
    """Return a concept of our own scheme."""
    return CodedConcept(value, SCHEME, plain(meaning))


def finding_of(record: MapRecord) -> CodedConcept:
    """Return the concept of what is explained: the manifest's, else the class key in our scheme."""
    code = record.finding
    if code is None:
        return own(record.target.key, record.target.label)
    return CodedConcept(code.value, code.system, plain(code.meaning))


def plain(text: str) -> str:
    """Return `text` as a long string (LO) may hold it: one line, no backslash, not too long."""
    return re.sub(r"[\\\x00-\x1f\x7f]+", " ", text).strip()[:LONGEST].strip() or "-"


def describe_scheme(ds: Dataset, software: str) -> None:
    """Say whose the private codes of `ds` are (PS3.3 C.12.1, Coding Scheme Identification)."""
    item = Dataset()
    item.CodingSchemeDesignator = SCHEME
    item.CodingSchemeName = "Whylight private codes: class keys of models, trust, relevance"
    item.CodingSchemeVersion = software
    item.CodingSchemeResponsibleOrganization = "Whylight"
    ds.CodingSchemeIdentificationSequence = [item]
