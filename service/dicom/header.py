"""What a DICOM object is, by its header; its pixels stay untouched.

Every number is checked for range and multiplicity before anything is done
with it: a real test file declares two rows' counts where one belongs, and the
image they promise is larger than any memory.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.datadict import dictionary_description
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.uid import UID

from service.dicom import syntaxes
from service.dicom.damage import is_damage
from service.dicom.dataset import (
    DOUBLE_FLOAT,
    FLOAT,
    PIXEL_DATA,
    UNDEFINED,
    Parsed,
    fragments,
    items_of,
    parsed,
    value_of,
)
from service.dicom.frames import PER_FRAME, SHARED, described
from service.dicom.intents import intent_of
from service.dicom.patient import patient_of
from service.dicom.photometric import COLOR, GRAY, HALVED, was_defined
from service.dicom.syntaxes import Family
from service.domain.study import MOST_FRAMES, SEGMENTATION, ImageHeader
from service.domain.volume import Orientation, nearest_plane
from service.errors.base import WhylightError
from service.errors.studies import (
    AbsurdDimensions,
    NoPixelData,
    NotDicom,
    TruncatedDicom,
    UnsupportedImage,
    UnsupportedTransferSyntax,
)

_UID = re.compile(r"[0-9][0-9.]{0,63}")
_CODE_STRING = re.compile(r"[A-Z0-9 _]{0,16}")
TYPES = 16
"""Values of Image Type that are looked at; four have a meaning."""

DIRECTORY = "1.2.840.10008.1.3.10"
ALLOCATIONS = (1, 8, 16, 32, 64)
FLOATS = {FLOAT: 32, DOUBLE_FLOAT: 64}
"""Bits of a floating-point sample, by the element that holds them (PS3.3 C.7.6.24, C.7.6.25)."""

SNOMED = frozenset({"SCT", "SRT", "SNM3"})
"""Designators of SNOMED CT, and of what mammography systems keep on writing (CID 4014)."""

VIEWS = {
    "399260004": "ML",
    "399368009": "MLO",
    "399352003": "LM",
    "399099002": "LMO",
    "399162004": "CC",
    "399196006": "FB",
    "399188001": "SIO",
    "441555000": "ISO",
    "399192008": "XCCL",
    "399101009": "XCCM",
    "R-10224": "ML",
    "R-10226": "MLO",
    "R-10228": "LM",
    "R-10230": "LMO",
    "R-10242": "CC",
    "R-10244": "FB",
    "R-102D0": "SIO",
    "R-40AAA": "ISO",
    "R-1024A": "XCCL",
    "R-1024B": "XCCM",
    "Y-X1770": "XCCL",
    "Y-X1771": "XCCM",
}
"""Values of View Position by code, of SNOMED CT and of SNOMED RT (PS3.16 CID 4014)."""


class Header(ImageHeader):
    """An image's header, of which every number was checked."""

    @property
    def samples(self) -> int:
        """Rows x columns x samples of one frame."""
        return self.rows * self.columns * self.samples_per_pixel


def read_header(file: Path, *, max_samples: int) -> Header:
    """Read the header of a DICOM image.

    Parameters
    ----------
    file
        The object as it was sent; preamble and meta information may lack.
    max_samples
        Most samples (rows x columns x samples) one frame may have.

    Returns
    -------
    Header
        Checked numbers and cleaned strings; unknown strings are empty.

    Raises
    ------
    NotDicom
        Not a DICOM object, or one without the identifiers every object has.
    TruncatedDicom
        The object, or its pixel data, ends too early.
    NoPixelData
        A DICOM object that is no image (a report, a plan, a directory).
    AbsurdDimensions
        A number is missing, multiple, impossible or over the limit.
    UnsupportedTransferSyntax
        The pixels are compressed in a way that is not read.
    UnsupportedImage
        Samples of one or 64 bits, signed color, compressed floating-point
        numbers, or a photometric interpretation that does not fit the samples.
    """
    try:
        with parsed(file, max_samples=max_samples) as found:
            return header_of(found, max_samples=max_samples)
    except WhylightError:
        raise
    except Exception as error:
        if not is_damage(error):
            raise
        raise TruncatedDicom("The object's elements cannot be read: it is damaged.") from error


def header_of(found: Parsed, *, max_samples: int, identified: bool = True) -> Header:
    """Check a parsed object and return its header; errors as `read_header`.

    With ``identified=False`` missing UIDs are let pass as empty strings: the
    pixels can be read without them, though nothing can be filed beside them.
    """
    dataset = found.dataset
    _require_image(found)
    if found.transfer_syntax_uid not in syntaxes.FAMILIES:
        name = syntaxes.title(found.transfer_syntax_uid)
        raise UnsupportedTransferSyntax(
            f"The pixels are encoded in a transfer syntax that is not read: {name}. Send the image"
            " uncompressed or in a lossless JPEG family syntax.",
            transfer_syntax=name,
        )
    uids = identifiers(dataset, identified)
    fields = {**uids, **_strings(dataset), **_numbers(dataset)}
    fields["patient"] = patient_of(dataset, uids["study_instance_uid"])
    header = Header.model_validate({"transfer_syntax_uid": found.transfer_syntax_uid, **fields})
    _require_sane(header, max_samples)
    _require_supported(found, header)
    _require_whole(found, header)
    return header


def _require_image(found: Parsed) -> None:
    if found.pixels is None or _sop_class(found.dataset) == DIRECTORY:
        raise NoPixelData(f"The object holds no image: it is {_kind(found.dataset)}.")


def _sop_class(dataset: Dataset) -> str:
    """Return the SOP Class UID; a directory has one in its file meta information alone."""
    meta = dataset.file_meta if hasattr(dataset, "file_meta") else Dataset()
    return _text(dataset, "SOPClassUID") or _text(meta, "MediaStorageSOPClassUID")


def _kind(dataset: Dataset) -> str:
    """Name what an object is by the standard's word; never by the object's own text."""
    uid = _sop_class(dataset)
    name = UID(uid).name
    article = "an" if name[:1] in "AEIOU" or name.startswith("RT ") else "a"
    return "of a private or unknown kind" if name == uid else f"{article} {name}"


def identifiers(dataset: Dataset, required: bool) -> dict[str, str]:
    """Return the object's UIDs by field; empty where invalid, if they may be.

    Raises
    ------
    NotDicom
        One is `required` and not valid.
    """
    keywords = {
        "sop_class_uid": ("SOPClassUID", "MediaStorageSOPClassUID"),
        "sop_instance_uid": ("SOPInstanceUID", "MediaStorageSOPInstanceUID"),
        "series_instance_uid": ("SeriesInstanceUID", ""),
        "study_instance_uid": ("StudyInstanceUID", ""),
    }
    meta = dataset.file_meta if hasattr(dataset, "file_meta") else Dataset()
    uids = {}
    for field, (keyword, fallback) in keywords.items():
        uid = _text(dataset, keyword) or _text(meta, fallback)
        valid = _UID.fullmatch(uid) is not None
        if required and not valid:
            raise NotDicom(
                f"The object is DICOM but has no valid {_in_words(keyword)}, which every image has;"
                " send it with one."
            )
        uids[field] = uid if valid else ""
    return uids


def _in_words(keyword: str) -> str:
    """Return an element's name and tag as the standard writes them."""
    tag = Tag(keyword)
    return f"{dictionary_description(tag)} ({tag.group:04X},{tag.element:04X})"


def _strings(dataset: Dataset) -> dict[str, Any]:
    image_type = _image_type(dataset)
    return {
        "modality": code_string(dataset, "Modality"),
        "body_part_examined": code_string(dataset, "BodyPartExamined"),
        "view_position": code_string(dataset, "ViewPosition") or _view(dataset),
        "laterality": _laterality(dataset),
        "view_modified": _modified(dataset),
        "localizer": "LOCALIZER" in image_type,
        "image_type": image_type,
        "presentation_intent": intent_of(
            code_string(dataset, "PresentationIntentType"), _sop_class(dataset)
        ),
        "plane": _plane(dataset),
        "photometric_interpretation": code_string(dataset, "PhotometricInterpretation"),
    }


def _view(dataset: Dataset) -> str:
    """Return the view that View Code Sequence names, as View Position would (CID 4014)."""
    item = _first(dataset, "ViewCodeSequence")
    known = _text(item, "CodingSchemeDesignator") in SNOMED
    return VIEWS.get(_text(item, "CodeValue"), "") if known else ""


def _modified(dataset: Dataset) -> bool:
    """Tell whether View Modifier Code Sequence says that it is no plain view (CID 4015)."""
    holders = (_first(dataset, "ViewCodeSequence"), dataset)
    return any(_first(each, "ViewModifierCodeSequence") != Dataset() for each in holders)


def _laterality(dataset: Dataset) -> str:
    """Return the side: of the image, of its (first) frame, or of the series."""
    holders = (_first(dataset, group) for group in (PER_FRAME, SHARED))
    frames = [_first(holder, "FrameAnatomySequence") for holder in holders]
    said = (
        code_string(dataset, "ImageLaterality"),
        *(code_string(frame, "FrameLaterality") for frame in frames),
        code_string(dataset, "Laterality"),
    )
    return next(filter(None, said), "")


def _first(dataset: Dataset, sequence: str) -> Dataset:
    """Return a sequence's first item; an empty one where there is none that can be read."""
    return next(iter(items_of(dataset, sequence)), Dataset())


def _image_type(dataset: Dataset) -> tuple[str, ...]:
    """Return the values of Image Type; ``LOCALIZER`` is one of them (PS3.3 C.8.2.1.1.1)."""
    value = value_of(dataset, "ImageType") or []
    values = value if isinstance(value, list | MultiValue) else [value]
    texts = (str(each).strip(" \0").upper() for each in values[:TYPES])
    return tuple(text if _CODE_STRING.fullmatch(text) else "" for text in texts)


def _plane(dataset: Dataset) -> Orientation | None:
    """Return the plane of the body nearest to the (first) image, where it says how it lies."""
    try:
        said = value_of(described(dataset, 1), "ImageOrientationPatient")
        cosines = np.array(said or value_of(dataset, "ImageOrientationPatient"), float)
        row, column = cosines.reshape(2, 3)
    except (TypeError, ValueError):
        return None
    return nearest_plane(np.cross(row, column)) if np.isfinite(cosines).all() else None


def _numbers(dataset: Dataset) -> dict[str, int | None]:
    allocated = number(dataset, "BitsAllocated", 1, 64)
    return {
        "series_number": _label(dataset, "SeriesNumber"),
        "instance_number": _label(dataset, "InstanceNumber"),
        "rows": number(dataset, "Rows", 1, 65535),
        "columns": number(dataset, "Columns", 1, 65535),
        "number_of_frames": number(dataset, "NumberOfFrames", 1, MOST_FRAMES, default=1),
        "samples_per_pixel": number(dataset, "SamplesPerPixel", 1, 3, default=1),
        "bits_allocated": allocated,
        "bits_stored": number(dataset, "BitsStored", 1, allocated, default=allocated),
        "pixel_representation": number(dataset, "PixelRepresentation", 0, 1, default=0),
    }


def _label(dataset: Dataset, keyword: str) -> int | None:
    """Return a number by which people call a thing, where it is a valid one (IS, PS3.5 6.2)."""
    try:
        return number(dataset, keyword, -(1 << 31), (1 << 31) - 1)
    except AbsurdDimensions:
        return None


def number(
    dataset: Dataset, keyword: str, low: int, high: int, *, default: int | None = None
) -> int:
    """Return one integer of the data set, checked for multiplicity and range.

    Raises
    ------
    AbsurdDimensions
        The element is missing without a default, has several values, is no
        whole number, or lies outside ``[low, high]``.
    """
    value = value_of(dataset, keyword)
    try:
        empty = value is None or value == ""
        whole = default if empty else int(value)
        exact = empty or float(value) == whole
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        whole, exact = None, False
    if whole is None or not exact or not low <= whole <= high:
        raise AbsurdDimensions(
            f"{keyword} is missing, has several values or is out of range.", low=low, high=high
        )
    return whole


def code_string(dataset: Dataset, keyword: str) -> str:
    """Return a code string (CS) in upper case, or nothing where it is no valid one."""
    text = _text(dataset, keyword).upper()
    return text if _CODE_STRING.fullmatch(text) else ""


def _text(dataset: Dataset, keyword: str) -> str:
    """Return a single text value without its padding; empty where there is none."""
    value = value_of(dataset, keyword)
    return value.strip(" \0") if isinstance(value, str) else ""


def _require_sane(header: Header, max_samples: int) -> None:
    if header.bits_allocated not in ALLOCATIONS or header.samples_per_pixel not in {1, 3}:
        raise AbsurdDimensions("BitsAllocated or SamplesPerPixel is none that images have.")
    if header.samples > max_samples:
        raise AbsurdDimensions(
            "A frame of the image has more samples than is allowed.",
            samples=header.samples,
            limit=max_samples,
        )


def _require_supported(found: Parsed, header: Header) -> None:
    """Refuse forms of pixels that are not read, by name."""
    kind = PIXEL_DATA if found.pixels is None else found.pixels.tag
    if kind in FLOATS:
        native = syntaxes.FAMILIES[header.transfer_syntax_uid] is Family.NATIVE
        plain = header.photometric_interpretation == "MONOCHROME2" and native
        if not plain or header.bits_allocated != FLOATS[kind]:
            raise UnsupportedImage("Floating-point pixels of this form are not read.")
        return
    marks = header.sop_class_uid == SEGMENTATION and header.bits_allocated == 1
    if header.bits_allocated not in {8, 16, 32} and not marks:
        raise UnsupportedImage(
            "Samples of this size are not read; one bit has a segmentation alone.",
            bits_allocated=header.bits_allocated,
        )
    fitting = GRAY if header.samples_per_pixel == 1 else COLOR
    if header.photometric_interpretation not in fitting:
        raise UnsupportedImage("The photometric interpretation is missing or does not fit.")
    if header.samples_per_pixel > 1 and header.pixel_representation:
        raise UnsupportedImage("Signed color is not read.")
    family = syntaxes.FAMILIES[header.transfer_syntax_uid]
    if not was_defined(header.photometric_interpretation, family, header.bits_allocated):
        raise UnsupportedImage(
            "Color in the range of video (YBR_PARTIAL) is read as uncompressed YBR_PARTIAL_422 of"
            " 8 bits, and of a JPEG, which says its color itself; send the image as RGB."
        )


def _require_whole(found: Parsed, header: Header) -> None:
    """Refuse pixel data shorter than the header's numbers promise."""
    element = found.pixels
    if element is None:
        return
    if syntaxes.FAMILIES[header.transfer_syntax_uid] is not Family.NATIVE:
        if element.length != UNDEFINED:
            raise TruncatedDicom("The compressed pixel data is not in the encapsulated form.")
        filled = [each for each in fragments(found.stream, element, found.size) if each[1]]
        if len(filled) < header.number_of_frames:
            raise TruncatedDicom("The compressed pixel data holds fewer fragments than frames.")
        return
    expected = -(-native_bits(header) * header.number_of_frames // 8)
    available = min(element.length, found.size - element.offset)
    if element.length == UNDEFINED or available < expected:
        raise TruncatedDicom(
            "The pixel data is shorter than the image's numbers say; send it again, whole.",
            expected_bytes=expected,
        )


def surplus_bytes(found: Parsed, header: Header) -> int:
    """Return how many bytes uncompressed pixel data has beyond its frames and their padding."""
    if found.pixels is None or found.pixels.length == UNDEFINED:
        return 0
    needed = -(-native_bits(header) * header.number_of_frames // 8)
    return max(0, found.pixels.length - needed - needed % 2)


def native_bits(header: Header) -> int:
    """Return the bits that one uncompressed frame takes."""
    bits = header.samples * header.bits_allocated
    if header.photometric_interpretation in HALVED:
        return bits * 2 // 3  # two of three chroma samples are left out
    return bits
