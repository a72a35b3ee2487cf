"""Small DICOM images of known pixels, in every form that tests want."""

import io
import zlib
from collections.abc import Sequence
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian

EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
RLE = "1.2.840.10008.1.2.5"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
HTJ2K = "1.2.840.10008.1.2.4.201"
LOSSLESS = (RLE, JPEG_LOSSLESS, JPEG_LS, JPEG_2000, HTJ2K)


def image(**changes: object) -> Dataset:
    """A small CR image of a patient who must never be seen; `None` deletes an element."""
    ds = Dataset()
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID = "2.25.1", "2.25.2", "2.25.3"
    ds.Modality, ds.BodyPartExamined, ds.ViewPosition = "CR", "chest ", "PA"
    ds.PatientName, ds.PatientID = "Canary^Patient", "CANARY-1"
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns, ds.SamplesPerPixel = 8, 6, 1
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = np.arange(48, dtype="<u2").tobytes()
    for keyword, value in changes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def of_pixels(pixels: NDArray[Any], *, bits: int | None = None, **changes: object) -> Dataset:
    """An image of these stored values, ``(rows, columns[, 3])``, in `bits` bits."""
    allocated = pixels.dtype.itemsize * 8
    stored = bits or allocated
    color = pixels.ndim == 3
    return image(
        Rows=pixels.shape[0],
        Columns=pixels.shape[1],
        SamplesPerPixel=3 if color else 1,
        PhotometricInterpretation="RGB" if color else "MONOCHROME2",
        **({"PlanarConfiguration": 0} if color else {}),
        BitsAllocated=allocated,
        BitsStored=stored,
        HighBit=stored - 1,
        PixelRepresentation=int(pixels.dtype.kind == "i"),
        PixelData=np.ascontiguousarray(pixels).tobytes(),
        **changes,
    )


def noise(
    dtype: Any, bits: int, shape: tuple[int, ...] = (64, 48), *, signed: bool = False
) -> NDArray[Any]:
    """Stored values of all that `bits` bits can hold, always the same."""
    low, high = (-(1 << bits - 1), (1 << bits - 1)) if signed else (0, 1 << bits)
    return np.random.default_rng(1).integers(low, high, shape).astype(dtype)


def encoded(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """The bytes of `ds` as a Part 10 file that claims `syntax`; pixels as they are."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", "")
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", "")
    buffer = io.BytesIO()
    ds.save_as(
        buffer,
        enforce_file_format=True,
        implicit_vr=syntax == "1.2.840.10008.1.2",
        little_endian=syntax != EXPLICIT_BIG,
    )
    return buffer.getvalue()


def misnamed(data: bytes, syntax: str) -> bytes:
    """The same object, whose file meta information names another transfer syntax than it has."""
    body = data[_body(data) :]
    if syntax == DEFLATED:
        squeezer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        body = squeezer.compress(body) + squeezer.flush()
    other = encoded(image(PixelData=None), syntax)
    return other[: _body(other)] + body


def _body(data: bytes) -> int:
    """Where the data set begins, behind the meta information."""
    return 144 + int.from_bytes(data[140:144], "little")


def compressed(ds: Dataset, syntax: str, code: bytes, *, pieces: int = 1) -> bytes:
    """The bytes of `ds` with `code` as its pixels, in `pieces` fragments."""
    ds.PixelData = encapsulate([code], fragments_per_frame=pieces, has_bot=False)
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return encoded(ds, syntax)


def compress(pixels: NDArray[Any], syntax: str) -> bytes:
    """A code stream of `pixels`; lossless unless the syntax is not."""
    if syntax == RLE:
        return rle(pixels)
    encoders = {
        JPEG_BASELINE: lambda: imagecodecs.jpeg8_encode(pixels, level=95),
        JPEG_LOSSLESS: lambda: imagecodecs.jpeg8_encode(pixels, lossless=True),
        JPEG_LS: lambda: imagecodecs.jpegls_encode(pixels),
        JPEG_2000: lambda: imagecodecs.jpeg2k_encode(
            pixels, level=0, reversible=True, codecformat="j2k"
        ),
        HTJ2K: lambda: imagecodecs.htj2k_encode(pixels, reversible=True),
    }
    return bytes(encoders[syntax]())


def rle(pixels: NDArray[Any]) -> bytes:
    """PackBits planes, high bytes first, behind their header (PS3.5 G)."""
    planes: Sequence[NDArray[Any]] = (
        [pixels[..., i] for i in range(pixels.shape[2])] if pixels.ndim == 3 else [pixels]
    )
    segments = []
    for plane in planes:
        octets = np.ascontiguousarray(plane).astype(plane.dtype.newbyteorder(">")).view(np.uint8)
        octets = octets.reshape(plane.size, plane.dtype.itemsize)
        segments += [
            bytes(imagecodecs.packbits_encode(np.ascontiguousarray(octets[:, i])))
            for i in range(plane.dtype.itemsize)
        ]
    segments = [each + b"\0" * (len(each) % 2) for each in segments]
    offsets = np.cumsum([64, *map(len, segments)])[:-1]
    head = np.zeros(16, "<u4")
    head[0], head[1 : len(segments) + 1] = len(segments), offsets
    return head.tobytes() + b"".join(segments)
