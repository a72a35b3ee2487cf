"""One frame of several: where its fragments lie, and what its groups say of it."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from pydicom.dataset import Dataset

from service.dicom.dataset import Parsed, PixelElement, fragments, items_of, value_of
from service.errors.studies import UndecodablePixels

Fragment = tuple[int, int]
"""Offset and length of a fragment's value."""

STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")
"""How a code stream begins: of JPEG and JPEG-LS, of JPEG 2000, and of its file format."""

PER_FRAME, SHARED = "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"
GROUPS = {
    "PixelValueTransformationSequence": (
        "RescaleSlope",
        "RescaleIntercept",
        "RescaleType",
        "ModalityLUTSequence",
    ),
    "FrameVOILUTSequence": (
        "WindowCenter",
        "WindowWidth",
        "WindowCenterWidthExplanation",
        "VOILUTFunction",
        "VOILUTSequence",
    ),
    "PlanePositionSequence": (),
    "PlaneOrientationSequence": (),
    "PixelMeasuresSequence": (),
    "FramePixelDataPropertiesSequence": (),
}
"""Functional groups whose attributes a single-frame image holds itself (PS3.3 C.7.6.16).

With those beside a group that mean something only together: one of them in the group, and none
of the data set's own holds.
"""


def frame_fragments(
    found: Parsed, element: PixelElement, frames: int, frame: int
) -> tuple[Fragment, ...]:
    """Return the fragments of one frame, counted from 1 (PS3.5 A.4).

    Raises
    ------
    TruncatedDicom
        As of `fragments`.
    UndecodablePixels
        Nothing tells where each frame begins.
    """
    pieces = fragments(found.stream, element, found.size)
    if frames == 1:
        return pieces
    starts = _starts(found, element, pieces, frames)
    edges = [*starts, len(pieces)]
    return pieces[edges[frame - 1] : edges[frame]]


def _starts(
    found: Parsed, element: PixelElement, pieces: Sequence[Fragment], frames: int
) -> Sequence[int]:
    """Return each frame's first fragment: by a table, by number, or by how it begins."""
    for table in (_extended(found.dataset), _basic(found, element)):
        if (starts := _pointed(table, pieces, frames)) is not None:
            return starts
    if len(pieces) == frames:
        return range(frames)
    begun = [i for i, (offset, _) in enumerate(pieces) if _head(found, offset).startswith(STARTS)]
    if len(begun) == frames:
        return begun
    raise UndecodablePixels("The pixel data does not tell where each frame begins.")


def _extended(dataset: Dataset) -> Sequence[int]:
    """Return the extended offset table; nothing without one."""
    value = value_of(dataset, "ExtendedOffsetTable")
    if not isinstance(value, bytes):
        return ()
    return struct.unpack(f"<{len(value) // 8}Q", value[: len(value) // 8 * 8])


def _basic(found: Parsed, element: PixelElement) -> Sequence[int]:
    """Return the basic offset table; nothing where it is empty."""
    found.stream.seek(element.offset + 4)
    count = int.from_bytes(found.stream.read(4), "little") // 4
    return struct.unpack(f"<{count}L", found.stream.read(4 * count))


def _pointed(table: Sequence[int], pieces: Sequence[Fragment], frames: int) -> Sequence[int] | None:
    """Return the fragments that a table points at; `None` where it does not hold."""
    if len(table) != frames:
        return None
    first = pieces[0][0]
    places = {offset - first: number for number, (offset, _) in enumerate(pieces)}
    starts = [places.get(each, -1) for each in table]
    rising = all(a < b for a, b in pairwise(starts))
    return starts if rising and starts[0] == 0 else None


def _head(found: Parsed, offset: int) -> bytes:
    found.stream.seek(offset)
    return found.stream.read(8)


def flatten(found: Parsed, frame: int, frames: int) -> Parsed:
    """Put what functional groups say of one frame where a single-frame image has it.

    The groups hold for their frames (PS3.3 C.7.6.16): what the data set itself says of the
    same goes. So does a position that is said once of several frames; it is not this frame's.

    Parameters
    ----------
    found
        Its data set is changed in place: the groups give way to the attributes of
        `GROUPS` for the frame.
    frame
        Counted from 1.
    frames
        How many there are.

    Returns
    -------
    Parsed
        The same, which tells what was changed.
    """
    dataset = found.dataset
    gone = [groups for groups in (PER_FRAME, SHARED) if groups in dataset]
    if frames > 1 and "ImagePositionPatient" in dataset:
        gone.append("ImagePositionPatient")
    said = described(dataset, frame)
    own = [keyword for keyword in _governed(said) if keyword in dataset]
    overruled = any(_differs(dataset, said, keyword) for keyword in own)
    for keyword in {*gone, *own}:
        delattr(dataset, keyword)
    for element in said:
        dataset[element.tag] = element
    return replace(found, flattened=bool(gone), overruled=overruled)


def described(dataset: Dataset, frame: int) -> Dataset:
    """Return what the groups of `GROUPS` say of a frame, as a single-frame image holds it."""
    said = Dataset()
    for holder in _holders(dataset, frame):
        for element in holder:
            if element.tag not in said and not element.is_empty:
                said[element.tag] = element
    return said


def lacks(dataset: Dataset, frame: int, group: str) -> bool:
    """Tell whether a frame lacks a functional group that other frames have (PS3.3 C.7.6.16)."""
    if any(items_of(item, group) for item in items_of(dataset, SHARED)[:1]):
        return False
    having = [bool(items_of(item, group)) for item in items_of(dataset, PER_FRAME)]
    return any(having) and not any(having[frame - 1 : frame])


def _governed(said: Dataset) -> set[str]:
    """Return the attributes for which what is said of a frame stands, and nothing else."""
    named = {element.keyword for element in said if element.keyword}
    return named.union(*(together for together in GROUPS.values() if named & set(together)))


def _differs(dataset: Dataset, said: Dataset, keyword: str) -> bool:
    """Tell whether a data set itself says other than is said of a frame."""
    own = value_of(dataset, keyword)
    return own not in (None, "", b"") and own != value_of(said, keyword)


def _holders(dataset: Dataset, frame: int) -> Iterator[Dataset]:
    """Yield the groups' items that tell of a frame: its own, then those of all frames."""
    places = ((PER_FRAME, frame - 1), (SHARED, 0))
    for sequence, place in places:
        for item in items_of(dataset, sequence)[place : place + 1]:
            for group in GROUPS:
                yield from items_of(item, group)[:1]
