"""Whose image an object is, as far as it takes to tell patients of one study apart."""

import re
import unicodedata
from typing import Final

from pydicom.dataset import Dataset
from pydicom.tag import Tag

from service.dicom.dataset import value_of
from service.dicom.texts import UNKNOWN, texts_of
from service.domain.canonical import digest_of
from service.domain.patient import Patient

NAMING: Final = (
    "SpecificCharacterSet",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
)
PARTS: Final = 3
"""Of a name: family, given, middle; titles come and go."""

DIGITS: Final = 16
"""Of a digest that is compared within one study alone."""

ACCENTS: Final = re.compile("[\u0300-\u036f]")


def patient_of(dataset: Dataset, study_instance_uid: str) -> Patient:
    """Return digests of what the data set says of its patient, of use within its study alone.

    Names are compared by their words: case, padding, accents and titles do not count. What
    its character set cannot tell is not said, except of Patient ID, where other bytes are
    another patient.
    """
    said = _copied(dataset)

    def digest(text: str) -> str:
        return digest_of([study_instance_uid, text])[:DIGITS] if text else ""

    patient_id = str(value_of(said, "PatientID") or "").strip(" \0")
    writings = (_words(writing) for writing in _one(said, "PatientName").split("=")[:3])
    birth_date = _one(said, "PatientBirthDate").replace(".", "")  # the form before 1993
    sex = _one(said, "PatientSex").upper()
    return Patient(
        id=digest_of([study_instance_uid, patient_id]) if patient_id else "",
        issuer=digest(_one(said, "IssuerOfPatientID").casefold()) if patient_id else "",
        name=tuple(tuple(map(digest, words)) for words in writings),
        birth_date=digest(birth_date if re.fullmatch(r"(?!0+$)\d{8}", birth_date) else ""),
        sex=digest(sex if sex in {"M", "F"} else ""),
    )


def _copied(dataset: Dataset) -> Dataset:
    """Return the elements apart, as pydicom writes those that it has read otherwise than they came.

    Bytes that are no text in their character set would be lost to what is copied later.
    """
    said = Dataset()
    for keyword in NAMING:
        if (element := dataset.get_item(Tag(keyword))) is not None:
            said[Tag(keyword)] = element
    implicit, little = dataset.original_encoding
    said.set_original_encoding(implicit, little, dataset.original_character_set)
    return said


def _one(dataset: Dataset, keyword: str) -> str:
    """Return an element's text; empty where it is not said in one value, or not readably."""
    values = texts_of(dataset, keyword)
    return values[0] if len(values) == 1 and UNKNOWN not in values[0] else ""


def _words(writing: str) -> tuple[str, ...]:
    """Return all words of a name's writing, and its parts; nothing of an empty one."""
    folded = ACCENTS.sub("", unicodedata.normalize("NFKD", writing.casefold()))
    parts = [" ".join(part.split()) for part in folded.split("^")[:PARTS]]
    whole = " ".join(filter(None, parts))
    return (whole, *parts) if whole else ()
