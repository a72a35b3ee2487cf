"""CPU time from a 2048 x 2048 12-bit CR to its overlay, without the model.

    OMP_NUM_THREADS=1 python -m benchmarks.datapath

Decode, prepare, render and encode run in this process, on one thread, as they
do inside a slot; each is the least of several runs, in CPU time. Beside them
stands the way most programs take: pydicom's pixel array, NumPy percentiles,
a matplotlib figure, and highdicom's Secondary Capture of our picture; and the overlay
in floating-point NumPy, from which ours should be ten times away. The ratios are of
our time to theirs. Pydicom's pixel array is less than our decoding makes: no padding,
no display, no file for the next stage.
"""

import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from benchmarks.measure import MISSED, conditions, publish
from service.domain.grid import Grid
from service.domain.inputs import StepChoice
from tests.support.phantom_dicom import encoded, of_pixels
from tests.support.sheets import sheet
from workers.drawing.overlay import Scale, overlay
from workers.drawing.palettes import sequential, weights
from workers.drawing.resample import resampling
from workers.formats.derived import REQUIRED
from workers.formats.sheet import Sheet
from workers.pixels.decode import decode_file
from workers.sheets import write
from workers.stages.prepare import prepare_files

PACKAGES = ("numpy", "pydicom", "highdicom", "imagecodecs", "pillow", "matplotlib")
SIDE = 2048
RUNS = 25
BAR = 60.0
"""Milliseconds of CPU that decode, prepare, render and encode may take together."""

STEPS = (
    StepChoice(name="invert_monochrome1"),
    StepChoice(name="window", parameters={"kind": "percentile", "low": 1.0, "high": 99.0}),
    StepChoice(name="resize", parameters={"size": [224, 224]}),
    StepChoice(name="normalize", parameters={"mean": [0.5], "std": [0.3]}),
)


def radiograph() -> NDArray[np.uint16]:
    """Draw something smooth with noise, 12 bit."""
    row, column = np.mgrid[:SIDE, :SIDE] / SIDE
    scene = 1800 + 1400 * np.sin(5 * column) * np.cos(4 * row)
    noise = np.random.default_rng(0).normal(0, 12, scene.shape)
    return np.asarray(np.clip(scene + noise, 0, 4095), np.uint16)


def best(work: Callable[[Path], object]) -> float:
    """Return the least CPU time of several runs, in milliseconds, each in a new folder.

    A job writes its files once; writing over old ones would time their removal.
    """
    times = []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as name:
            start = time.process_time()
            work(Path(name))
            times.append(time.process_time() - start)
    return min(times) * 1000


def undrawn(drawn: Sheet) -> Sheet:
    """Return the same sheet with nothing read or drawn yet."""
    return Sheet(drawn.record, drawn.map_file, drawn.display_file, drawn.header_file)


def measure(folder: Path) -> dict[str, float]:
    """Time each part of the way."""
    file = folder / "cr.dcm"
    window = {"WindowCenter": "2048", "WindowWidth": "4096"}
    file.write_bytes(encoded(of_pixels(radiograph(), bits=12, **window)))
    files = decode_file(file, folder)
    cam = np.random.default_rng(1).random((1, 14, 14)).astype(np.float32)
    drawn = sheet(file, folder, cam)
    _ = drawn.picture
    return {
        "decode": best(lambda new: decode_file(file, new)),
        "prepare": best(lambda _: prepare_files(files.pixels, files.padding, files.facts, STEPS)),
        "render": best(lambda _: undrawn(drawn).picture),
        "encode_dicom": best(lambda new: write(drawn, ["dicom_sc"], new)),
        "encode_png": best(lambda new: write(drawn, ["png"], new)),
        "encode_json": best(lambda new: write(drawn, ["json"], new)),
    }


def in_floats(display: NDArray[np.uint8], cam: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draw the overlay with NumPy's floating-point arithmetic, step by step."""
    rows, columns = resampling(Grid.partition(cam.shape, display.shape), display.shape)
    level = np.clip(rows @ cam @ columns.T / cam.max(), 0, 1).astype(float)
    index = (level * 255).astype(int)
    color = sequential()[index] / 255.0
    alpha = (weights(signed=False)[index] / 256.0)[..., None]
    mixed = color * alpha + (display / 255.0)[..., None] * (1 - alpha)
    return np.asarray(np.clip(mixed * 255 + 0.5, 0, 255), np.uint8)


def measure_overlay(folder: Path) -> dict[str, float]:
    """Time the overlay alone, ours and in floating point; both draw the same."""
    display = np.load(folder / "display.npy")
    cam = np.load(folder / "map.npy")[0]
    ours = np.empty((*display.shape, 3), np.uint8)
    grid, scale = Grid.partition(cam.shape, display.shape), Scale(float(cam.max()), signed=False)
    overlay(display, cam, grid, scale, ours)
    floats = in_floats(display, cam)
    assert np.abs(ours.astype(int) - floats).max() <= 3
    return {
        "overlay": best(lambda _: overlay(display, cam, grid, scale, ours)),
        "overlay_in_floats": best(lambda _: in_floats(display, cam)),
    }


def measure_usual(folder: Path) -> dict[str, float]:
    """Time the usual way of the same: pydicom, NumPy, matplotlib, highdicom."""
    import highdicom  # noqa: PLC0415 - volumes and decoding need none
    from matplotlib.figure import Figure  # noqa: PLC0415

    source = pydicom.dcmread(folder / "cr.dcm")
    for keyword in REQUIRED:
        setattr(source, keyword, source.get(keyword) or "")
    picture = sheet(folder / "cr.dcm", folder / "usual", np.load(folder / "map.npy")).picture
    pixels = pydicom.dcmread(folder / "cr.dcm").pixel_array
    cam = np.load(folder / "map.npy")[0]

    def draw(_: Path) -> None:
        figure = Figure(figsize=(SIDE / 100, SIDE / 100), dpi=100)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.imshow(pixels, cmap="gray")
        axes.imshow(cam, cmap="jet", alpha=0.4, extent=(0, SIDE, SIDE, 0), interpolation="bilinear")
        figure.savefig(io.BytesIO(), format="raw")

    def window(_: Path) -> None:
        low, high = np.percentile(pixels, (1, 99))
        np.clip((pixels.astype(np.float32) - low) / (high - low), 0, 1)

    def capture(new: Path) -> None:
        made = highdicom.sc.SCImage.from_ref_dataset(
            ref_dataset=source,
            pixel_array=picture,
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            series_instance_uid="2.25.9",
            series_number=1,
            sop_instance_uid="2.25.10",
            instance_number=1,
            manufacturer="-",
            patient_orientation=("L", "F"),
        )
        made.save_as(new / "sc.dcm", enforce_file_format=True)

    return {
        "decode": best(lambda _: pydicom.dcmread(folder / "cr.dcm").pixel_array),
        "window": best(window),
        "render": best(draw),
        "encode_dicom": best(capture),
    }


def main() -> None:
    """Measure, print and publish."""
    with tempfile.TemporaryDirectory() as name:
        ours = measure(Path(name))
        usual = measure_usual(Path(name))
        alone = measure_overlay(Path(name))
    total = sum(ours[part] for part in ("decode", "prepare", "render", "encode_dicom"))
    for part, milliseconds in ours.items():
        print(f"{part:14} {milliseconds:7.1f} ms")
    for part, milliseconds in usual.items():
        print(f"usual {part:8} {milliseconds:7.1f} ms")
    ratios = {
        "decode to pydicom": ours["decode"] / usual["decode"],
        "render to matplotlib": ours["render"] / usual["render"],
        "encode_dicom to highdicom": ours["encode_dicom"] / usual["encode_dicom"],
        "overlay to floating point": alone["overlay"] / alone["overlay_in_floats"],
        "total to the usual way": total / sum(usual.values()),
    }
    for of, ratio in ratios.items():
        print(f"{of:26} {ratio:6.3f}")
    verdict = "holds" if total <= BAR else "FAILS"
    print(f"{'together':14} {total:7.1f} ms CPU (bar {BAR:.0f}) {verdict}")
    result = {
        "what": "2048x2048 12-bit CR: decode + prepare + render + encode_dicom;"
        f" CPU ms, least of {RUNS} runs of each",
        "conditions": conditions(PACKAGES),
        "total": round(total, 1),
        "bar": BAR,
        "overlay": {part: round(value, 2) for part, value in alone.items()},
        "parts": {part: round(value, 2) for part, value in ours.items()},
        "usual": {part: round(value, 2) for part, value in usual.items()},
        "ratios": {of: round(ratio, 3) for of, ratio in ratios.items()},
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
    }
    print(f"written to {publish('datapath', result)}")
    sys.exit(MISSED if total > BAR else 0)


if __name__ == "__main__":
    main()
