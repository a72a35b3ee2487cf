"""Our decoding beside that of every other decoder at hand, transfer syntax by transfer syntax.

    OMP_NUM_THREADS=1 python -m benchmarks.decoding

A 2048 x 2048 12-bit CR from its file to the array of stored values; CPU time on one
thread. Ours checks the header and the code stream before it decodes. The others
are pydicom with each of its plugins, which checks less, and the bare codec on what
pydicom reads, which checks nothing. All begin at the file, and give the same pixels, which is
looked at first.
"""

import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.utils import pixel_array

from benchmarks.datapath import radiograph
from benchmarks.measure import CONTROL, MISSED, ROUNDS, conditions, publish, ratio, rounds, within
from service.dicom.dataset import parsed
from service.dicom.header import header_of
from tests.support.phantom_dicom import (
    HTJ2K,
    JPEG_2000,
    JPEG_LOSSLESS,
    JPEG_LS,
    RLE,
    compress,
    compressed,
    encoded,
    of_pixels,
)
from workers.pixels.stored import read_stored

PACKAGES = ("pydicom", "imagecodecs", "python-gdcm", "pylibjpeg", "pylibjpeg-libjpeg", "pyjpegls")
LIMIT = 1 << 26
BAR = 1.1
"""How many times as long as the fastest other decoder ours may take."""

PLUGINS = {
    RLE: ("pydicom", "gdcm"),
    JPEG_LOSSLESS: ("gdcm", "pylibjpeg"),
    JPEG_LS: ("pyjpegls", "gdcm", "pylibjpeg"),
    JPEG_2000: ("pylibjpeg", "gdcm", "pillow"),
    HTJ2K: ("pylibjpeg",),
}
BARE: dict[str, Callable[[bytes], Any]] = {
    JPEG_LOSSLESS: imagecodecs.jpeg8_decode,
    JPEG_LS: imagecodecs.jpegls_decode,
    JPEG_2000: lambda code: imagecodecs.jpeg2k_decode(code, numthreads=1),
    HTJ2K: imagecodecs.htj2k_decode,
}
NAMES = {
    "": "uncompressed",
    RLE: "RLE",
    JPEG_LOSSLESS: "JPEG lossless",
    JPEG_LS: "JPEG-LS",
    JPEG_2000: "JPEG 2000",
    HTJ2K: "HTJ2K",
}


def ours(file: Path) -> NDArray[Any]:
    """Decode as the decode stage does."""
    with parsed(file, max_samples=LIMIT) as found:
        header = header_of(found, max_samples=LIMIT)
        return read_stored(found, header, 1).values


def plugin(data: bytes, name: str) -> NDArray[Any]:
    """Decode with pydicom and one of its plugins."""
    return pixel_array(io.BytesIO(data), decoding_plugin=name)


def bare(file: Path, codec: Callable[[bytes], Any]) -> NDArray[Any]:
    """Read with pydicom and hand the code stream to a codec, without a check."""
    pixels = pydicom.dcmread(file).PixelData
    decoded: NDArray[Any] = codec(pydicom.encaps.get_frame(pixels, 0, number_of_frames=1))
    return decoded


def competitors(syntax: str, file: Path) -> dict[str, Callable[[], NDArray[Any]]]:
    """Return who decodes `file`, ours first and last."""
    data = file.read_bytes()
    runs: dict[str, Callable[[], NDArray[Any]]] = {"ours": lambda: ours(file)}
    if not syntax:
        runs["pydicom"] = lambda: pydicom.dcmread(file).pixel_array
    for name in PLUGINS.get(syntax, ()):
        runs[name] = lambda name=name: plugin(data, name)  # type: ignore[misc]
    if syntax in BARE:
        runs["bare codec"] = lambda: bare(file, BARE[syntax])
    return {**runs, CONTROL: runs["ours"]}


def measure(syntax: str, pixels: NDArray[Any], folder: Path) -> dict[str, Any]:
    """Time everyone on one syntax."""
    file = folder / "cr.dcm"
    ds = of_pixels(pixels, bits=12)
    file.write_bytes(compressed(ds, syntax, compress(pixels, syntax)) if syntax else encoded(ds))
    runs, absent = {}, {}
    for name, run in competitors(syntax, file).items():
        try:
            assert np.array_equal(run(), pixels), name
        except (AttributeError, NotImplementedError, RuntimeError, ValueError) as error:
            if name in {"ours", CONTROL}:
                raise
            absent[name] = f"{type(error).__name__}: {error}"
            print(f"  {name} does not decode it: {absent[name]}", file=sys.stderr)
            continue
        runs[name] = run
    times = {name: each["cpu"] for name, each in rounds(runs, ROUNDS).items()}
    control = ratio(times.pop(CONTROL), times["ours"])
    peers = {name: times[name] for name in times if name != "ours"}
    fastest = min(peers, key=lambda name: float(np.median(peers[name])))
    against = ratio(times["ours"], peers[fastest])
    return {
        "ms": {name: round(min(each) * 1000, 2) for name, each in times.items()},
        "cannot_decode": absent,
        "fastest_other": fastest,
        "ours_to_fastest": against.median,
        "interval": [against.low, against.high],
        "control_holds": within(control),
    }


def main() -> None:
    """Measure, print and publish."""
    pixels, found = radiograph(), {}
    with tempfile.TemporaryDirectory() as name:
        for syntax, title in NAMES.items():
            found[title] = measure(syntax, pixels, Path(name))
            shown = "  ".join(f"{who} {ms:.1f}" for who, ms in found[title]["ms"].items())
            print(f"{title:14} {found[title]['ours_to_fastest']:5.2f} x fastest other   {shown} ms")
    slow = [title for title, each in found.items() if each["ours_to_fastest"] > BAR]
    print(f"bar {BAR}: {'holds' if not slow else 'FAILS for ' + ', '.join(slow)}")
    result = {
        "what": "2048x2048 12-bit CR, file to stored values; CPU of one thread",
        "conditions": conditions(PACKAGES),
        "bar": BAR,
        "syntaxes": found,
    }
    print(f"written to {publish('decoding', result)}")
    sys.exit(MISSED if slow else 0)


if __name__ == "__main__":
    main()
