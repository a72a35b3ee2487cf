"""The raw map as NIfTI-1: for programs of neuroimaging and for volume viewers."""

import struct
from pathlib import Path
from typing import Any, BinaryIO, Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from service.domain.grid import Grid
from service.domain.volume import Geometry
from workers.formats.base import FORMATS, Format
from workers.formats.derived import Source
from workers.formats.plane import patient_affine
from workers.formats.sheet import Sheet

HEAD: Final = 348
DATA_AT: Final = 352
"""Header and four bytes that say that there is no extension."""

FLOAT32, BITS = 16, 32
VECTOR: Final = 1007
SCANNER, ALIGNED = 1, 2
"""Coordinates of the patient; coordinates of another file, here the source image's pixels."""

MILLIMETER, UNKNOWN = 2, 0
GZIP: Final = bytes((0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 4, 255))
"""Head of a gzip member: without name and date, compressed fast, of no system."""

FAST: Final = 1
"""Compression level; float maps are too noisy for more to pay."""

RAS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From DICOM's LPS."""

COLUMN_FIRST: Final = np.eye(4)[:, [1, 0, 2, 3]]
"""NIfTI counts columns before rows."""

VOLUME: Final = 3
"""Axes of a volume."""

COLUMN_ROW_SLICE: Final = np.eye(4)[:, [2, 1, 0, 3]]
"""And these before slices, which come first in a volume's arrays."""


@FORMATS.register("nifti")
class Nifti(Format):
    """One slice or a volume, float32, axes (column, row, slice), gzip-compressed.

    Several channels lie along the fifth axis. An image with a plane in the
    patient gives coordinates in millimeters, right-anterior-superior; any
    other gives pixels of the source image, (column, row), without a unit.

    The sform leads to exactly where cells are. A qform can hold axes at right
    angles alone, and some programs (ITK) read no others: where axes are off by
    what the tolerance of a regular volume allows, it has the nearest ones, which
    are exact in the middle. A sheared volume has none, and such programs refuse it.

    References
    ----------
    Cox et al. (2004). A (sort of) new image data format standard: NIfTI-1.
    """

    title = "Raw map as NIfTI"
    media_type = "application/x-nifti"
    extension = "nii.gz"

    @override
    def write(self, sheet: Sheet, to: Path) -> None:
        values, grid = sheet.array
        lps = patient_affine(Source.read(sheet.header_file), sheet.record)
        affine = _affine(grid, lps)
        described = f"{sheet.record.mark}whylight {sheet.record.software} {sheet.record.method}"
        volume = sheet.record.volume
        upright = volume is None or volume.geometry is Geometry.REGULAR
        straight = _straightened(affine, values.shape) if upright and lps is not None else None
        head = _header(values.shape, affine, described, straight, placed=lps is not None)
        with to.open("wb") as stream:
            _compress(head, np.ascontiguousarray(values, "<f4"), stream)


def _compress(head: bytes, values: NDArray[np.float32], stream: BinaryIO) -> None:
    """Write header and values as one gzip member (RFC 1951, 1952), without laying them together.

    The header is a stored block, which ends at a byte: the values' own blocks follow it.
    """
    data: Any = values.data.cast("B")
    room = bytearray(len(data) + len(data) // 1000 + 4096)  # more than noise can swell to
    stream.write(GZIP + struct.pack("<BHH", 0, len(head), len(head) ^ 0xFFFF) + head)
    stream.write(imagecodecs.deflate_encode(data, level=FAST, raw=True, out=room))
    crc = imagecodecs.deflate_crc32(data, imagecodecs.deflate_crc32(head))
    stream.write(struct.pack("<LL", crc, (len(head) + len(data)) % (1 << 32)))


def _affine(grid: Grid, lps: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Return voxel (column, row, slice) to coordinates, shape ``(4, 4)``."""
    if len(grid.shape) == VOLUME and lps is not None:
        return np.asarray(RAS @ lps @ grid.affine @ COLUMN_ROW_SLICE)
    cells = np.eye(4)
    cells[np.ix_([0, 1, 3], [0, 1, 3])] = grid.affine
    if lps is None:
        return COLUMN_FIRST.T @ cells @ COLUMN_FIRST
    return np.asarray(RAS @ lps @ cells @ COLUMN_FIRST)


def _straightened(affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the affine with axes at right angles, of the same middle."""
    turned, edges = np.linalg.qr(affine[:3, :3])
    straight = affine.copy()
    straight[:3, :3] = turned * np.diag(edges)
    *_, slices, rows, columns = (1, *shape[1:])[-3:]
    middle = np.array((columns - 1, rows - 1, slices - 1)) / 2
    straight[:3, 3] += (affine - straight)[:3, :3] @ middle
    return straight


def _quaternion(affine: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return axes at right angles as the rotation ``b, c, d``, and -1 where they are mirrored."""
    turn = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    side = 1.0 if np.linalg.det(turn) > 0 else -1.0
    turn[:, 2] *= side
    (x, p, q), (r, y, s), (t, u, z) = turn
    products = np.array(  # four times those of a, b, c, d with each other
        (
            (1 + x + y + z, u - s, q - t, r - p),
            (u - s, 1 + x - y - z, p + r, q + t),
            (q - t, p + r, 1 - x + y - z, s + u),
            (r - p, q + t, s + u, 1 - x - y + z),
        )
    )
    row = products[np.diag(products).argmax()]
    turned = row / np.linalg.norm(row)
    return turned[1:] * (1.0 if turned[0] >= 0 else -1.0), side


def _header(
    shape: tuple[int, ...],
    affine: NDArray[np.float64],
    described: str,
    straight: NDArray[np.float64] | None,
    *,
    placed: bool,
) -> bytes:
    channels, *_, rows, columns = shape
    slices = shape[1] if len(shape) > VOLUME else 1
    several = channels > 1
    head = bytearray(DATA_AT)
    sizes = (5 if several else 3, columns, rows, slices, 1, channels if several else 1, 1, 1)
    edges = (1.0, *np.linalg.norm(affine[:3, :3], axis=0), 1.0, 1.0, 1.0, 1.0)
    struct.pack_into("<i", head, 0, HEAD)
    struct.pack_into("<8h", head, 40, *sizes)
    struct.pack_into("<3h", head, 68, VECTOR if several else 0, FLOAT32, BITS)
    struct.pack_into("<8f", head, 76, *edges)
    struct.pack_into("<3f", head, 108, DATA_AT, 1.0, 0.0)
    head[123] = MILLIMETER if placed else UNKNOWN
    struct.pack_into("<80s", head, 148, described.encode("ascii", "replace")[:79])
    struct.pack_into("<2h", head, 252, 0, SCANNER if placed else ALIGNED)
    if straight is not None:
        turned, side = _quaternion(straight)
        struct.pack_into("<f", head, 76, side)
        struct.pack_into("<h", head, 252, SCANNER)
        struct.pack_into("<6f", head, 256, *turned, *straight[:3, 3])
    struct.pack_into("<12f", head, 280, *affine[:3].ravel())
    struct.pack_into("<16s4s", head, 328, b"attribution", b"n+1\0")
    return bytes(head)
