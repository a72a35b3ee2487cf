"""Damaged DICOM objects: each is drawn from a seed and its number alone."""

import struct
from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator

EDITED = (
    0x00080008,  # Image Type
    0x00080016,  # SOP Class UID
    0x00101030,  # Patient's Weight
    0x00186011,  # Sequence of Ultrasound Regions
    0x00020010,  # Transfer Syntax UID
    0x00280002,  # Samples per Pixel
    0x00280004,  # Photometric Interpretation
    0x00280006,  # Planar Configuration
    0x00280008,  # Number of Frames
    0x00280010,  # Rows
    0x00280011,  # Columns
    0x00280100,  # Bits Allocated
    0x00280101,  # Bits Stored
    0x00280102,  # High Bit
    0x00280103,  # Pixel Representation
    0x00280120,  # Pixel Padding Value
    0x00281050,  # Window Center
    0x00281052,  # Rescale Intercept
    0x00281053,  # Rescale Slope
    0x00281101,  # Red Palette Descriptor
    0x00283000,  # Modality LUT Sequence
    0x00283002,  # LUT Descriptor
    0x00283010,  # VOI LUT Sequence
    0x00540016,  # Radiopharmaceutical Information Sequence
    0x52009229,  # Shared Functional Groups
    0x52009230,  # Per-Frame Functional Groups
    0x7FE00010,  # Pixel Data
)
"""Elements on whose values the way of the pixels hangs."""

ABSURD = (b"\xff", b"\x00", b"\x7f", b"\x01", b"9", b"-", b"\\", b"\xfe\xff")
HEAD = 4096
"""How far into the file most damage is done: there the numbers are."""

VRS = (b"US", b"UL", b"FD", b"DS", b"IS", b"LO", b"PN", b"SQ", b"UN", b"AT", b"ZZ")
LENGTHS = (0, 1, 2, 4, 6, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
Mutation = Callable[[bytearray, Generator], None]


def mutated(data: bytes, seed: int, number: int) -> bytes:
    """Return `data` with one or two kinds of damage."""
    random = np.random.default_rng([seed, number])
    hurt = bytearray(data)
    for _ in range(random.integers(1, 3)):
        KINDS[random.integers(len(KINDS))](hurt, random)
    return bytes(hurt)


def flip(data: bytearray, random: Generator) -> None:
    """Turn single bits over."""
    for _ in range(random.integers(1, 17)):
        data[_place(data, random)] ^= 1 << int(random.integers(8))


def overwrite(data: bytearray, random: Generator) -> None:
    """Write random bytes over a stretch."""
    at, size = _place(data, random), int(random.integers(1, 65))
    data[at : at + size] = random.bytes(size)


def edit(data: bytearray, random: Generator) -> None:
    """Give an element that matters an absurd value of the same length."""
    at = _element(data, random)
    if at < 0:
        return
    piece = ABSURD[random.integers(len(ABSURD))] * 8
    size = int(random.integers(1, 9))
    data[at + 8 : at + 8 + size] = piece[:size]


def stretch(data: bytearray, random: Generator) -> None:
    """Make an element claim another length than it has."""
    at = _element(data, random)
    if at < 0:
        return
    claim = LENGTHS[random.integers(len(LENGTHS))]
    if random.integers(2):
        data[at + 4 : at + 8] = struct.pack("<L", claim)
    else:
        data[at + 6 : at + 8] = struct.pack("<H", claim & 0xFFFF)


def recast(data: bytearray, random: Generator) -> None:
    """Make an element claim to be of another kind."""
    at = _element(data, random)
    if at >= 0 and data[at + 4 : at + 6].isalpha():
        data[at + 4 : at + 6] = VRS[random.integers(len(VRS))]


def remove(data: bytearray, random: Generator) -> None:
    """Take a stretch out."""
    at = _place(data, random)
    del data[at : at + int(random.integers(1, 257))]


def repeat(data: bytearray, random: Generator) -> None:
    """Put a stretch in a second time, somewhere else."""
    at, to = _place(data, random), _place(data, random)
    data[to:to] = data[at : at + int(random.integers(1, 257))]


def cut(data: bytearray, random: Generator) -> None:
    """End the file early."""
    del data[int(random.integers(len(data))) + 1 :]


KINDS: Sequence[Mutation] = (
    *(flip, overwrite, repeat, remove, cut, stretch),
    *(recast,) * 2,
    *(edit,) * 6,
)


def _place(data: bytearray, random: Generator) -> int:
    """Return a place, three times out of four near the start."""
    near = min(len(data), HEAD) if random.integers(4) else len(data)
    return int(random.integers(near))


def _element(data: bytearray, random: Generator) -> int:
    """Return where an element of `EDITED` begins; -1 where it is not found."""
    tag = EDITED[random.integers(len(EDITED))]
    return data.find(struct.pack("<HH", tag >> 16, tag & 0xFFFF))
