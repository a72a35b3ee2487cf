"""DICOM objects of one map before programs of others: what each says of every object."""

import io
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from service.domain.artifact import Artifact
from tests.support.dciodvfy import complaints, ill_formed_uids, ours
from tests.support.iod_tables import missing
from tests.support.orthanc import Orthanc

PROGRAMS = ("dciodvfy", "storescu", "dcmdump", "dsrdump", "dcml2pnm")
PROPOSED = {JPEGLSLossless: "-xt", JPEG2000Lossless: "-xv", RLELossless: "-xr"}
"""How `storescu` is told to propose a syntax."""

PICTURES = ("dicom_sc", "dicom_sc_word", "dicom_seg")
DOCUMENTS = ("dicom_sr", "dicom_ko")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one object; `None` where a program has no way to do it."""

    kind: str
    """The format, and how the pixels are compressed if they are."""

    errors: tuple[str, ...]
    """Of `dciodvfy`, without those that are the source's."""

    lacking: tuple[str, ...]
    """Attributes of type 1 and 2 that the standard's tables want."""

    stow: bool
    """Orthanc stored it by STOW-RS and gave it back equal."""

    c_store: bool
    """The same by C-STORE."""

    dumped: bool
    """DCMTK reads it: any object with `dcmdump`, a document with `dsrdump` too."""

    shown: bool | None
    """DCMTK shows its first and its last frame, and they are its pixels."""

    rendered: bool | None
    """Orthanc renders it; a picture of one frame equal to its pixels."""

    @property
    def good(self) -> bool:
        """Whether nothing was found wrong."""
        asked = (self.stow, self.c_store, self.dumped, self.shown, self.rendered)
        return not self.errors and not self.lacking and False not in asked


def verdicts(
    made: Sequence[tuple[Artifact, Path]], sources: Sequence[Path], pacs: Orthanc
) -> Iterator[Verdict]:
    """Yield what is found of every object of one map that was made of `sources`."""
    objects = [pydicom.dcmread(file) for _, file in made]
    stowed = _stowed(pacs, made, objects)
    rendered = [_rendered(pacs, each[0].format, ds) for each, ds in zip(made, objects, strict=True)]
    for ds in objects:
        pacs.delete(ds.SOPInstanceUID)
    sent = _sent(pacs, made, objects)
    for number, ((artifact, file), ds) in enumerate(zip(made, objects, strict=True)):
        syntax = ds.file_meta.TransferSyntaxUID
        yield Verdict(
            kind=f"`{artifact.format}`" + (f", {syntax.name}" if syntax in PROPOSED else ""),
            errors=tuple(ours(complaints(artifact.format, file), *sources)),
            lacking=tuple(missing(ds)),
            stow=stowed[number],
            c_store=sent[number],
            dumped=_dumped(artifact.format, file, sources),
            shown=_shown(artifact.format, file, ds),
            rendered=rendered[number],
        )
        pacs.delete(ds.SOPInstanceUID)


def _stowed(
    pacs: Orthanc, made: Sequence[tuple[Artifact, Path]], objects: Sequence[Dataset]
) -> list[bool]:
    answer = pacs.store(*(file.read_bytes() for _, file in made))
    assert answer.status_code == 200, answer.text
    return [_kept(pacs, ds) for ds in objects]


def _sent(
    pacs: Orthanc, made: Sequence[tuple[Artifact, Path]], objects: Sequence[Dataset]
) -> list[bool]:
    """Send all objects of a syntax in one association."""
    options = [PROPOSED.get(ds.file_meta.TransferSyntaxUID, "-xe") for ds in objects]
    for option in set(options):
        files = [file for (_, file), its in zip(made, options, strict=True) if its == option]
        pacs.send(*files, option=option)
    return [_kept(pacs, ds) for ds in objects]


def _kept(pacs: Orthanc, ds: Dataset) -> bool:
    """Tell whether an object came back as it was sent, element by element."""
    return bool(pydicom.dcmread(io.BytesIO(pacs.file(ds.SOPInstanceUID))) == ds)


def _rendered(pacs: Orthanc, format_: str, ds: Dataset) -> bool | None:
    """Ask for the picture; Orthanc has no decoder of JPEG 2000 and none of floats."""
    if format_ not in PICTURES or ds.file_meta.TransferSyntaxUID == JPEG2000Lossless:
        return None
    if format_ == "dicom_seg" and ds.Columns % 8:
        return None  # it demands rows of whole bytes
    picture = pacs.rendered(ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)
    if picture.status_code != 200 or format_ != "dicom_sc" or "NumberOfFrames" in ds:
        return picture.status_code == 200
    found = np.asarray(Image.open(io.BytesIO(picture.content)))
    return bool(np.array_equal(found, ds.pixel_array))


UNKNOWN_CLASS = b"Invalid or unknown image SOP class referenced"
"""What DCMTK says of a document about an image of a retired or private class, or about a dose."""


def _dumped(format_: str, file: Path, sources: Sequence[Path]) -> bool:
    """Dump an object; a document names its source, whether DCMTK likes the name or not."""
    dumped = subprocess.run(["dcmdump", "-q", file], capture_output=True, timeout=300, check=False)
    if dumped.returncode or not dumped.stdout or format_ not in DOCUMENTS:
        return dumped.returncode == 0
    command = ["dsrdump", "+Pl", file]
    read = subprocess.run(command, capture_output=True, timeout=300, check=False)
    forgiven = UNKNOWN_CLASS in read.stderr or any(map(ill_formed_uids, sources))
    return read.returncode == 0 or forgiven


def _shown(format_: str, file: Path, ds: Dataset) -> bool | None:
    """Let DCMTK draw the first and the last frame; it has no free decoder of JPEG 2000.

    It is told to leave the rescale be: it would round relevance to whole numbers.
    """
    if format_ not in PICTURES or ds.file_meta.TransferSyntaxUID == JPEG2000Lossless:
        return None
    frames = int(ds.get("NumberOfFrames") or 1)
    pixels = ds.pixel_array.reshape(frames, ds.Rows, ds.Columns, -1)
    into = file.with_suffix(".pnm")
    for number in {1, frames}:
        command = ["dcml2pnm", "-q", "+F", str(number), "-M", "+Wm", file, into]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        found = np.asarray(Image.open(into)).reshape(pixels.shape[1:])
        if np.abs(found.astype(int) - _bright(pixels[number - 1])).max() > (format_ != "dicom_sc"):
            return False
    return True


def _bright(pixels: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return bytes as they are, and others between their least (black) and greatest (white)."""
    values = pixels.astype(np.float64)
    if pixels.shape[-1] == 3:
        return values.astype(int)
    low, high = values.min(), values.max()
    return np.rint((values - low) * (255 / max(high - low, 1))).astype(int)
