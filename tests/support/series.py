"""Maps on real series and on series drawn by us, ready to be written."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from service.domain.grid import Grid
from service.domain.inputs import VolumeRules
from tests.support import corpus
from tests.support.phantom_dicom import encoded
from tests.support.sheets import record
from tests.support.volumes import SAGITTAL, Series, blob, enhanced
from workers.formats.sheet import Sheet
from workers.volumes.decode import decode_series

ANY = VolumeRules(least_slices=2, sheared=True)
CELLS = (6, 8, 5)
FOLDERS = {
    "CT, 28 slices": "dcm_qa_ct/In_Philips_S21570_S2010",
    "MR, 16 slices": "dcm4che/dcm4che-assembly_src_etc_testdata_dicom",
    "MR, JPEG-LS": "dicom2nifti/tests_data_generic_compressed_jpegls_001",
    "MR, enhanced": "dicom2nifti/s_data_siemens_multiframe_anatomical_001",
}
"""Series of the corpus, by what they are."""


def _drawn(series: Series) -> Callable[[Path], list[Path]]:
    def write(folder: Path) -> list[Path]:
        return _kept(series.files(), folder)

    return write


def _enhanced(folder: Path) -> list[Path]:
    return _kept([encoded(enhanced(Series()))], folder)


def _kept(objects: Sequence[bytes], folder: Path) -> list[Path]:
    files = [folder / f"{number}.dcm" for number in range(len(objects))]
    for file, data in zip(files, objects, strict=True):
        file.write_bytes(data)
    return files


DRAWN: dict[str, Callable[[Path], list[Path]]] = {
    "axial": _drawn(Series()),
    "sheared": _drawn(Series(tilt=15.0)),
    "sagittal": _drawn(Series(orientation=SAGITTAL)),
    "enhanced": _enhanced,
}
"""Writes a series of ours into a folder, by what it is."""


def every() -> dict[str, list[Path]]:
    """Return the corpus's files that could be a volume: several of a series, or of several frames.

    Which of them are one is for the volume builder to say.
    """
    found: dict[str, list[Path]] = {}
    for path in corpus.FILES:
        header = corpus.header(path)
        if header is not None and header.number_of_frames > 1:
            found[corpus.name(path)] = [path]
        elif header is not None:
            found.setdefault(header.series_instance_uid, []).append(path)
    return {corpus.name(files[0]): files for files in found.values() if not _single(files)}


def _single(files: Sequence[Path]) -> bool:
    header = corpus.header(files[0])
    return len(files) == 1 and header is not None and header.number_of_frames == 1


def real(folder: str) -> list[Path]:
    """Return the files of a series of the corpus."""
    return [each for each in corpus.FILES if folder in str(each)]


def series_sheet(files: Sequence[Path], folder: Path, **changes: Any) -> Sheet:
    """Decode a series and lay a signed map over it; `changes` are to the record."""
    folder.mkdir(parents=True, exist_ok=True)
    decoded, volume = decode_series(files, folder, ANY)
    np.save(folder / "map.npy", blob(CELLS, signed=True))
    place = Grid.partition(CELLS, volume.shape)
    made = record(decoded.facts, place, **{"volume": volume, "signed": True, **changes})
    return Sheet(made, folder / "map.npy", decoded.display, decoded.header)
