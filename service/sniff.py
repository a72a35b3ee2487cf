"""What a file of a model package really is: contents are looked at, names are not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

LARGEST_HEADER = 100 * 1000 * 1000  # as the safetensors format sets it
HEADER_LENGTH = 8
GRAPH = 7  # field number of ModelProto.graph in onnx.proto
VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers
TELLING = ("safetensors", "onnx", "dicom", "npy")
"""Formats that a file's content alone makes known."""

ZIP = b"PK\x03\x04"
CONVERT = "convert it with `whylight models convert`."
PICKLE = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))


def contradiction(path: Path, format_: str) -> str | None:
    """Return why a file is not what the manifest calls it, or `None`.

    Parameters
    ----------
    path
        The file.
    format_
        One of the manifest's formats.
    """
    with path.open("rb") as file:
        if file.read(2) in PICKLE:
            return f"The file is a Python pickle, which could run code; {CONVERT}"
        if _fits(file, format_):
            return None
        file.seek(0)
        if file.read(len(ZIP)) == ZIP:
            return f"The file is a zip archive, as torch writes checkpoints; {CONVERT}"
        other = next((each for each in TELLING if _fits(file, each)), None)
    told = f"it is {other}: correct 'format', or the file" if other else "write it again"
    return f"The file's content is not {format_}; {told}."


def _fits(file: BinaryIO, format_: str) -> bool:
    file.seek(0)
    return CHECKS[format_](file, Path(file.name).stat().st_size)


def is_document(path: Path) -> bool:
    """Tell whether a file is UTF-8 text, or a PNG image as its name says."""
    data = path.read_bytes()
    if path.suffix == ".png":
        return data.startswith(b"\x89PNG\r\n\x1a\n")
    try:
        return "\0" not in data.decode()
    except UnicodeDecodeError:
        return False


def _is_safetensors(file: BinaryIO, size: int) -> bool:
    length = int.from_bytes(file.read(HEADER_LENGTH), "little")
    room = size - HEADER_LENGTH - length
    if room < 0 or length > LARGEST_HEADER:
        return False
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError):
        return False
    if not isinstance(header, dict):
        return False
    return all(_is_tensor(each, room) for name, each in header.items() if name != "__metadata__")


def _is_tensor(entry: object, room: int) -> bool:
    match entry:
        case {"dtype": str(), "shape": list(shape), "data_offsets": [int(start), int(end)]}:
            return 0 <= start <= end <= room and all(isinstance(each, int) for each in shape)
        case _:
            return False


def _is_onnx(file: BinaryIO, size: int) -> bool:
    """Walk the outer fields of a ModelProto; its graph must be among them."""
    fields: set[int] = set()
    while (at := file.tell()) < size:
        key = _varint(file)
        if key is None or not _skip(file, key & 7) or file.tell() <= at:
            return False
        fields.add(key >> 3)
    return file.tell() == size and GRAPH in fields


def _skip(file: BinaryIO, wire_type: int) -> bool:
    """Pass over one value; false when there is none of this type."""
    if wire_type == VARINT:
        return _varint(file) is not None
    length = {FIXED64: 8, FIXED32: 4}.get(wire_type)
    if wire_type == DELIMITED:
        length = _varint(file)
    if length is None:
        return False
    file.seek(length, 1)
    return True


def _varint(file: BinaryIO) -> int | None:
    value = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:  # noqa: PLR2004 - the top bit says that more follows
            return value
    return None


def _is_dicom(file: BinaryIO, _: int) -> bool:
    return file.read(132)[128:] == b"DICM"  # PS3.10 section 7.1


def _is_npy(file: BinaryIO, _: int) -> bool:
    try:
        np.load(file.name, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError):
        return False
    return True


def _is_json(file: BinaryIO, _: int) -> bool:
    try:
        json.load(file)
    except (ValueError, RecursionError):
        return False
    return True


def _is_any(_: BinaryIO, __: int) -> bool:
    """Tell nothing: external data of ONNX is bare numbers, its places stand in the model."""
    return True


CHECKS: dict[str, Callable[[BinaryIO, int], bool]] = {
    "safetensors": _is_safetensors,
    "onnx": _is_onnx,
    "onnx_data": _is_any,
    "dicom": _is_dicom,
    "npy": _is_npy,
    "json": _is_json,
}
