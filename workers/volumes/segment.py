"""One segment of a DICOM segmentation, read at the cells of a grid (PS3.3 A.51, C.8.20).

A segmentation lies where it says: in the frame of reference that it shares with
the image. Where the two share none, it lies on the frames that it names, pixel by
pixel. Cells are read at their centers; a frame that lacks is empty.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from service.dicom import syntaxes
from service.dicom.damage import is_damage
from service.dicom.dataset import Parsed, items_of, parsed, value_of
from service.dicom.frames import PER_FRAME, SHARED
from service.dicom.header import Header, header_of
from service.domain.grid import Grid, apply
from service.domain.study import LABEL_MAP
from service.domain.value import Value
from service.domain.volume import Row
from service.errors.base import WhylightError
from service.errors.requests import InvalidTarget
from service.errors.studies import UndecodablePixels, UnsupportedImage
from workers.pixels.stored import read_stored
from workers.volumes.planes import Plane, planes_of

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SLAB: Final = 1 << 20
"""Cells that are looked up at a time."""

EDGE: Final = 1e-3
"""Share of a slice by which a cell may lie past the slice's end: rounding."""

SAME: Final = 1e-3
"""How far the direction cosines of frames that lie parallel may differ."""

PARTED: Final = 1.5
"""Slice thicknesses from which on a gap between two frames means that one lacks."""


class Subject(Value):
    """The image or volume that is explained, as a segmentation may refer to it."""

    frame_of_reference_uid: str
    """Empty where it names none."""

    affine: tuple[Row, Row, Row, Row] | None
    """Source pixel ``(slice, row, column, 1)`` to patient, of one image slice 0; `None` where
    it does not say how it lies."""

    frames: tuple[tuple[str, int | None], ...]
    """SOP Instance UID and frame of each slice; the frame is `None` of an object of one."""

    rows: int
    columns: int


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One frame of a segment, and where it lies."""

    inside: Mask
    """Shape ``(rows, columns)``."""

    plane: Plane
    sources: frozenset[tuple[str, int | None]]
    """Frames that it was made of, as in `Subject.frames`."""


def read_segment(
    file: Path, segment: int | str | None, subject: Subject, grid: Grid, *, max_voxels: int
) -> tuple[int, Mask]:
    """Return a segment's number, and which cells of a grid it holds, shape ``grid.shape``.

    Parameters
    ----------
    segment
        Its number or label; `None` for the only one.
    grid
        Cells in the source image or volume.
    max_voxels
        Most pixels that all frames of the segment may have.

    Raises
    ------
    InvalidTarget
        There is no such segment; it is not one of this image, or marks none of the grid's cells.
    UnsupportedImage, UndecodablePixels
        The segmentation cannot be read.
    """
    try:
        with parsed(file, max_samples=max_voxels) as found:
            header = header_of(found, max_samples=max_voxels)
            number = _number(found.dataset, segment)
            chosen = _frames_of(found.dataset, header, number)
            _demand_size(len(chosen) * header.samples, max_voxels)
            mask = _laid(found, header, (number, chosen), subject, grid)
    except (WhylightError, MemoryError):
        raise
    except Exception as error:
        if not is_damage(error):
            raise
        raise UndecodablePixels("The segmentation, or its description, is damaged.") from error
    if not mask.any():
        raise InvalidTarget(
            "The segment marks no pixel of what the model was given.", reason="empty_segment"
        )
    return number, mask


def _demand_size(count: int, most: int) -> None:
    if count > most:
        raise UnsupportedImage("The segment has more pixels than are allowed.", limit=most)


def _number(dataset: Dataset, segment: int | str | None) -> int:
    """Return the number of the segment that is meant."""
    labels = {
        number: str(value_of(each, "SegmentLabel") or "").strip()
        for each in items_of(dataset, "SegmentSequence")
        if isinstance(number := value_of(each, "SegmentNumber"), int)
    }
    meant = [number for number, label in labels.items() if segment in (None, number, label)]
    if len(meant) != 1:
        raise InvalidTarget(
            "The segmentation has no such segment, or several of that label, or none was named of"
            " several; give one of the numbers in 'segments'.",
            reason="no_such_segment",
            segments=[*sorted(labels)[:100]],
        )
    return meant[0]


def _frames_of(dataset: Dataset, header: Header, number: int) -> tuple[int, ...]:
    """Return the frames that may hold pixels of a segment, counted from 1."""
    every = range(1, header.number_of_frames + 1)
    if header.sop_class_uid == LABEL_MAP:
        return tuple(every)
    named = "SegmentIdentificationSequence"
    return tuple(
        frame
        for frame in every
        for item in _group(dataset, frame, named)
        if value_of(item, "ReferencedSegmentNumber") == number
    )


def _group(dataset: Dataset, frame: int, keyword: str) -> Sequence[Dataset]:
    """Return a functional group's items of a frame: its own, else those of all frames."""
    for holder, place in ((PER_FRAME, frame - 1), (SHARED, 0)):
        for item in items_of(dataset, holder)[place : place + 1]:
            if found := items_of(item, keyword):
                return found
    return ()


# ------------------------------------------------------------------------ its pixels


def _inside(found: Parsed, header: Header, frame: int, number: int) -> Mask:
    """Return where a frame shows a segment, shape ``(rows, columns)``."""
    if header.bits_allocated == 1:
        return _bits(found, header, frame)
    plain = header.model_copy(update={"photometric_interpretation": "MONOCHROME2"})
    values = read_stored(found, plain, frame).values  # a label map may bring a palette
    if header.sop_class_uid == LABEL_MAP:
        return np.asarray(values == number, np.bool_)
    full = int(value_of(found.dataset, "MaximumFractionalValue") or 255)
    return np.asarray(2 * values.astype(int) >= full, np.bool_)


def _bits(found: Parsed, header: Header, frame: int) -> Mask:
    """Return a frame of one-bit pixels: frames follow each other with no bit between them."""
    element = found.pixels
    if element is None or syntaxes.FAMILIES[header.transfer_syntax_uid] is not (
        syntaxes.Family.NATIVE
    ):
        raise UnsupportedImage("One-bit pixels are read uncompressed alone.")
    if header.transfer_syntax_uid == syntaxes.EXPLICIT_BIG:
        raise UnsupportedImage("One-bit pixels are read in little endian alone.")
    first = (frame - 1) * header.samples
    start, stop = first // 8, -(-(first + header.samples) // 8)
    found.stream.seek(element.offset + start)
    data = np.frombuffer(found.stream.read(stop - start), np.uint8)
    bits = np.unpackbits(data, bitorder="little")[first % 8 :][: header.samples]
    return np.asarray(bits.reshape(header.rows, header.columns), np.bool_)


# --------------------------------------------------------------------- where they lie


def _laid(
    found: Parsed, header: Header, which: tuple[int, Sequence[int]], subject: Subject, grid: Grid
) -> Mask:
    """Return the cells that hold a segment, by the frame of reference or by what it refers to."""
    number, chosen = which
    planes = tuple(planes_of(found, header))
    frames = tuple(
        Frame(
            _inside(found, header, frame, number),
            planes[frame - 1],
            _sources(found.dataset, frame, alone=len(chosen) == 1),
        )
        for frame in chosen
    )
    if not frames:
        return np.zeros(grid.shape, np.bool_)
    shared = planes[0].frame_of_reference_uid
    placed = subject.affine is not None and all(each.plane.placed for each in frames)
    if shared and shared == subject.frame_of_reference_uid and placed:
        return _by_place(frames, _reach(found, planes), subject, grid)
    return _by_reference(frames, subject, grid)


def _sources(dataset: Dataset, frame: int, *, alone: bool) -> frozenset[tuple[str, int | None]]:
    """Return the frames that a frame was made of; an only one may say so for the whole object."""
    said = [
        source
        for item in _group(dataset, frame, "DerivationImageSequence")
        for source in items_of(item, "SourceImageSequence")
    ]
    if not said and alone:
        said = [
            instance
            for series in items_of(dataset, "ReferencedSeriesSequence")
            for instance in items_of(series, "ReferencedInstanceSequence")
        ]
        said = said if len(said) == 1 else []
    return frozenset(_reference(each) for each in said)


def _reference(item: Dataset) -> tuple[str, int | None]:
    frame = value_of(item, "ReferencedFrameNumber")
    uid = str(value_of(item, "ReferencedSOPInstanceUID") or "")
    return uid, int(frame) if isinstance(frame, int) else None


def _reach(found: Parsed, planes: Sequence[Plane]) -> float:
    """Return the mm that a frame reaches to each side of its plane.

    Half of the spacing between slices, where it is said. Else the frames tell, of
    all segments; unless they stand so far apart that one between them lacks.
    """
    for item in _group(found.dataset, 1, "PixelMeasuresSequence"):
        spacing = value_of(item, "SpacingBetweenSlices")
        if spacing is not None and float(spacing) > 0:
            return float(spacing) / 2
    thickness = planes[0].thickness or 1.0
    places = np.unique(np.round(_along([each for each in planes if each.placed]), 3))
    gap = float(np.diff(places).min()) if len(places) > 1 else thickness
    return (gap if gap <= PARTED * thickness else thickness) / 2


def _along(planes: Sequence[Plane]) -> Array:
    """Return where planes lie along their common normal, in mm."""
    row, column = np.reshape(planes[0].orientation, (2, 3))
    places: Array = np.array([plane.position for plane in planes]) @ np.cross(row, column)
    return places


def _by_place(frames: Sequence[Frame], reach: float, subject: Subject, grid: Grid) -> Mask:
    """Return the cells whose centers lie in a segment's pixels, in patient coordinates."""
    planes = [each.plane for each in frames]
    if np.ptp([plane.orientation for plane in planes], axis=0).max() > SAME:
        raise UnsupportedImage("The frames of the segment do not lie parallel.")
    row, column = np.reshape(planes[0].orientation, (2, 3))
    along, spacing = _along(planes), np.array(planes[0].spacing)
    order = np.argsort(along)
    origins = np.array([plane.position for plane in planes])
    stack = np.stack([each.inside for each in frames])
    to_patient = np.array(subject.affine)

    def looked_up(source: Array) -> Mask:
        points = apply(to_patient, source)
        depth = points @ np.cross(row, column)
        near = order[_nearest(along[order], depth)]
        aside = points - origins[near]
        cells = np.stack([aside @ column, aside @ row], -1) / spacing
        within = np.abs(depth - along[near]) <= reach * (1 + EDGE)
        return within & _read(stack, near, cells)

    return _mapped(looked_up, grid)


def _by_reference(frames: Sequence[Frame], subject: Subject, grid: Grid) -> Mask:
    """Return the cells whose centers lie in a segment's pixels, on the frames that it names."""
    size = (subject.rows, subject.columns)
    held = {
        place: number
        for place, source in enumerate(subject.frames)
        for number, frame in enumerate(frames)
        if source in _named(frame.sources) and frame.inside.shape == size
    }
    if not held:
        raise InvalidTarget(
            "The segmentation does not belong to what is explained: it shares no frame of"
            " reference with it, and refers to none of its images pixel by pixel.",
            reason="not_of_this_image",
        )
    stack = np.stack([each.inside for each in frames])
    of_slice = np.array([held.get(place, -1) for place in range(len(subject.frames))])

    def looked_up(source: Array) -> Mask:
        slices = np.rint(source[:, 0]).astype(int)
        inside = (slices >= 0) & (slices < len(of_slice))
        number = np.where(inside, of_slice[np.where(inside, slices, 0)], -1)
        return (number >= 0) & _read(stack, number, source[:, 1:])

    return _mapped(looked_up, grid)


def _named(sources: frozenset[tuple[str, int | None]]) -> frozenset[tuple[str, int | None]]:
    """Return sources, each also as an object of one frame is named."""
    return sources | {(uid, None) for uid, frame in sources if frame == 1}


def _nearest(sorted_: Array, values: Array) -> NDArray[np.intp]:
    """Return the index of the nearest of sorted numbers to each of `values`."""
    right = np.clip(np.searchsorted(sorted_, values), 0, len(sorted_) - 1)
    left = np.maximum(right - 1, 0)
    nearer = np.abs(values - sorted_[left]) <= np.abs(sorted_[right] - values)
    return np.where(nearer, left, right)


def _read(stack: Mask, frames: NDArray[np.intp], places: Array) -> Mask:
    """Return the pixels of frames at places ``(row, column)``; false beyond the edges."""
    pixels = np.rint(places).astype(int)
    inside: Mask = np.all((pixels >= 0) & (pixels < stack.shape[1:]), axis=-1)
    rows, columns = np.where(inside[:, None], pixels, 0).T
    marked: Mask = stack[frames, rows, columns]
    return inside & marked


def _mapped(look: Callable[[Array], Mask], grid: Grid) -> Mask:
    """Return what `look` says of every cell's center in the source, ``(slice, row, column)``."""
    mask = np.zeros(int(np.prod(grid.shape)), np.bool_)
    for start, cells in _cells(grid.shape):
        source = grid.to_source(cells)
        flat = np.zeros((len(source), 1))  # of one image, slice 0
        whole = source if source.shape[1] == 3 else np.hstack([flat, source])  # noqa: PLR2004 - axes
        mask[start : start + len(cells)] = look(whole)
    return mask.reshape(grid.shape)


def _cells(shape: Sequence[int]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Yield the indices of all cells in C order, some at a time, with the number of the first."""
    count = int(np.prod(shape))
    for start in range(0, count, SLAB):
        numbers = np.arange(start, min(start + SLAB, count))
        yield start, np.stack(np.unravel_index(numbers, tuple(shape)), -1)
