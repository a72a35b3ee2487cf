"""The raw map as a NumPy archive: the values with all that a program needs to place them."""

import io
import zipfile
from functools import reduce
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
import orjson
from numpy.lib import format as npy_format
from numpy.typing import NDArray
from typing_extensions import override

from workers.formats.base import FORMATS, Format
from workers.formats.derived import Source
from workers.formats.plane import patient_affine
from workers.formats.record import MapRecord
from workers.formats.sheet import Sheet


@FORMATS.register("npz")
class Npz(Format):
    """Raw signed values, their place in image and patient, and what they are of.

    Arrays: ``values`` as of the format ``npy``; ``affine``, homogeneous, cell
    (row, column) to source pixel; ``patient_affine``, source pixel
    (row, column, slice) to LPS millimeters, only where the image has a plane;
    of a volume both are of (slice, row, column); ``regions``, top, left, bottom and
    right of each part of the image that the map was kept to, only where it was;
    and one array without axes for each fact. Nothing in it is pickled, and
    nothing names the patient.
    """

    title = "Raw map with its geometry as NPZ"
    media_type = "application/x-npz"
    extension = "npz"

    @override
    def write(self, sheet: Sheet, to: Path) -> None:
        values, grid = sheet.array
        arrays: dict[str, NDArray[Any]] = {
            "values": np.ascontiguousarray(values, np.float32),
            "affine": grid.affine,
            **{name: np.array(fact) for name, fact in _facts(sheet.record).items()},
        }
        affine = patient_affine(Source.read(sheet.header_file), sheet.record)
        if affine is not None:
            arrays["patient_affine"] = affine
        if sheet.record.restriction is not None:
            arrays["regions"] = np.array(sheet.record.regions)
        with to.open("wb") as stream, zipfile.ZipFile(stream, "w") as archive:
            for name, array in arrays.items():
                _store(archive, stream, f"{name}.npy", array)


def _store(archive: zipfile.ZipFile, stream: BinaryIO, name: str, array: NDArray[Any]) -> None:
    """Write an array as a stored entry.

    NumPy's own writer copies arrays and dates them; the library's CRC alone takes as long
    as writing.
    """
    head = io.BytesIO()
    npy_format.write_array_header_1_0(head, npy_format.header_data_from_array_1_0(array))
    pieces: tuple[Any, ...] = (head.getvalue(), np.ascontiguousarray(array).data.cast("B"))
    entry = zipfile.ZipInfo(name)
    entry.CRC = reduce(lambda crc, piece: imagecodecs.deflate_crc32(piece, crc), pieces, 0)
    entry.file_size = entry.compress_size = sum(map(len, pieces))
    entry.header_offset = stream.tell()
    stream.write(entry.FileHeader(zip64=True))
    stream.writelines(pieces)
    archive.filelist.append(entry)
    archive.start_dir = stream.tell()


def _facts(record: MapRecord) -> dict[str, str | bool | int | float]:
    target = record.target
    return {
        "grid": "source" if record.on_source_grid else "native",
        "axes": " ".join(("channel", *record.axes)),
        "method": record.method,
        "method_version": record.method_version,
        "parameters": orjson.dumps(record.parameters).decode(),
        "target": target.key,
        "score": target.score,
        "probability": np.nan if target.probability is None else target.probability,
        "signed": record.signed,
        "degenerate": record.degenerate,
        "partial": record.partial,
        "grade": record.trust.grade.value,
        "model": f"{record.model.name}@{record.model.version}",
        "weights": record.model.weights or record.model.weights_in_words,
        **({} if record.facts.slices is None else {"slices": record.facts.slices}),
        "rows": record.facts.rows,
        "columns": record.facts.columns,
        "software": f"whylight {record.software}",
        "notice": "Research use only. Not for diagnosis.",
    }
