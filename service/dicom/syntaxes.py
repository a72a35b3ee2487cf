"""Transfer syntaxes: which are read, and how the pixels lie in each."""

import re
from enum import StrEnum

from pydicom.uid import UID


class Family(StrEnum):
    """How pixel data is encoded."""

    NATIVE = "native"
    RLE = "rle"
    JPEG_BASELINE = "jpeg_baseline"
    JPEG_EXTENDED = "jpeg_extended"
    JPEG_LOSSLESS = "jpeg_lossless"
    JPEG_LS = "jpeg_ls"
    JPEG_2000 = "jpeg_2000"
    HTJ2K = "htj2k"


IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"

FAMILIES: dict[str, Family] = {
    IMPLICIT_LITTLE: Family.NATIVE,
    EXPLICIT_LITTLE: Family.NATIVE,
    DEFLATED: Family.NATIVE,
    EXPLICIT_BIG: Family.NATIVE,
    "1.2.840.10008.1.2.5": Family.RLE,
    "1.2.840.10008.1.2.4.50": Family.JPEG_BASELINE,
    "1.2.840.10008.1.2.4.51": Family.JPEG_EXTENDED,
    "1.2.840.10008.1.2.4.57": Family.JPEG_LOSSLESS,
    "1.2.840.10008.1.2.4.70": Family.JPEG_LOSSLESS,
    "1.2.840.10008.1.2.4.80": Family.JPEG_LS,
    "1.2.840.10008.1.2.4.81": Family.JPEG_LS,
    "1.2.840.10008.1.2.4.90": Family.JPEG_2000,
    "1.2.840.10008.1.2.4.91": Family.JPEG_2000,
    "1.2.840.10008.1.2.4.201": Family.HTJ2K,
    "1.2.840.10008.1.2.4.202": Family.HTJ2K,
    "1.2.840.10008.1.2.4.203": Family.HTJ2K,
}
"""Every transfer syntax that is read, by UID (PS3.6 table A-1)."""

SEQUENTIAL = frozenset({Family.JPEG_BASELINE, Family.JPEG_EXTENDED})

JPEG_COLOR = SEQUENTIAL | {Family.JPEG_LOSSLESS}
"""Families whose code streams may say whether they hold YCbCr."""

LOSSLESS_ONLY = frozenset(
    {
        "1.2.840.10008.1.2.5",
        "1.2.840.10008.1.2.4.57",
        "1.2.840.10008.1.2.4.70",
        "1.2.840.10008.1.2.4.80",
        "1.2.840.10008.1.2.4.90",
        "1.2.840.10008.1.2.4.201",
        "1.2.840.10008.1.2.4.202",
    }
)
"""Compressed syntaxes that cannot lose anything."""

LOSSY_METHODS: dict[Family, str] = {
    Family.JPEG_BASELINE: "ISO_10918_1",
    Family.JPEG_EXTENDED: "ISO_10918_1",
    Family.JPEG_LS: "ISO_14495_1",
    Family.JPEG_2000: "ISO_15444_1",
    Family.HTJ2K: "ISO_15444_15",
}
"""Defined terms of Lossy Image Compression Method (PS3.3 C.7.6.1.1.5.1)."""

_NEWER = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}  # not in pydicom's dictionary


_STANDARD = re.compile(r"1\.2\.840\.10008\.1\.2(\.\d{1,3}){1,3}")
"""UIDs that the standard alone gives, to transfer syntaxes: they tell of no patient."""


def title(uid: str) -> str:
    """Return the standard's name of a transfer syntax, or its UID if that is the standard's, too.

    Never another UID, whatever it is of.
    """
    name = _NEWER.get(uid, UID(uid).name)
    return name if name != uid or _STANDARD.fullmatch(uid) else "a private one"
