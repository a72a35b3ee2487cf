"""Text of a data set, as far as its character set tells what it is."""

import re
from typing import Final

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from service.dicom.dataset import value_of

UNKNOWN: Final = "\N{REPLACEMENT CHARACTER}"
"""Stands for bytes that are no text in the character set that the data set names."""

DEFAULT: Final = {"iso8859"}
"""What pydicom reads by where no set is named, or none that it knows: Latin-1, which is a guess."""

TO_GB_2312: Final = "\x1b$)A"


def texts_of(dataset: Dataset, keyword: str) -> list[str]:
    """Return an element's values as text without padding; none where it lacks.

    `UNKNOWN` stands for every character that nothing tells: bytes that the declared set does
    not have, and all but ASCII where no set is declared (PS3.5 6.1.2.1), or one in which the
    patient's name is no text.
    """
    value = value_of(dataset, keyword)
    if value is None:
        return []
    several = list(value) if isinstance(value, list | tuple | MultiValue) else [value]
    texts = ["" if each is None else _plain(str(each)).strip(" \0") for each in several]
    return [_ascii(text) for text in texts] if _is_guessed(dataset) else texts


def _plain(text: str) -> str:
    """Take out the escape to GB 2312 (PS3.5 K.2), which pydicom leaves in its text."""
    return text.replace(TO_GB_2312, "")


def _ascii(text: str) -> str:
    return re.sub(r"[^\x00-\x7f]", UNKNOWN, text)


def _is_guessed(dataset: Dataset) -> bool:
    """Tell whether pydicom reads text by a set that the data set does not name, or misnames."""
    read_by = dataset.original_character_set
    named = not set([read_by] if isinstance(read_by, str) else read_by) <= DEFAULT
    return not named or UNKNOWN in str(value_of(dataset, "PatientName"))
