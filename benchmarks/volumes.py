"""CPU time and memory of writing a map of 512 x 512 x 300 voxels.

    OMP_NUM_THREADS=1 python -m benchmarks.volumes

Each format is written in a process of its own that has written a small map before, as
a slot has, from the map's file to the file with its digest; the figure is the least of
several. Memory is what the process grew by.
Beside them stand NumPy's `savez` and highdicom's Parametric Map of the same values.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import MISSED, conditions, publish
from tests.support.volumes import Series, volume_sheet
from workers.formats.derived import REQUIRED
from workers.formats.record import MapRecord
from workers.formats.sheet import Sheet
from workers.sheets import write

PACKAGES = ("numpy", "pydicom", "highdicom", "imagecodecs")
SHAPE = (300, 512, 512)
VOLUME = 4 * 300 * 512 * 512
RUNS = 3
FORMATS = ("npz", "dicom_pm", "dicom_sc", "dicom_sc_word", "dicom_seg", "dicom_sr", "nifti")
BARS = {"npz": 0.5, "dicom_pm": 1.5}
"""Seconds of CPU."""

MEMORY = 3.0
"""Times the volume that a process may grow by, for every format."""

USUAL = {"npz": "savez", "dicom_pm": "highdicom"}
"""What writes the same values as most programs do."""


def prepare(folder: Path) -> None:
    """Write what a slot is given: the map, the display, the header and the record."""
    values = np.random.default_rng(0).standard_normal((1, *SHAPE)).astype(np.float32)
    made = volume_sheet(folder, Series(shape=SHAPE), values, signed=True)
    (folder / "record.json").write_text(made.record.model_dump_json())


def child(name: str, folder: Path) -> None:
    """Write one format and say what it took."""
    record = MapRecord.model_validate_json((folder / "record.json").read_text())
    files = (folder / "map.npy", folder / "display.npy", folder / "header.dcm")
    with tempfile.TemporaryDirectory(dir=folder) as out:
        if name in FORMATS:  # a slot has written before, and read highdicom's tables
            write(volume_sheet(Path(out) / "small"), [name], Path(out))
        before, start = _peak(), time.process_time()
        if name in USUAL.values():
            usual(name, files[0], Path(out))
        else:
            write(Sheet(record, *files), [name], Path(out))
        spent = time.process_time() - start
        print(json.dumps({"seconds": spent, "bytes": (_peak() - before) * 1024}))


def usual(name: str, map_file: Path, out: Path) -> None:
    """Write the values as most programs do."""
    values = np.load(map_file)[0]
    if name == "savez":
        np.savez(out / "map.npz", values=values)
        return
    import highdicom  # noqa: PLC0415 - only where it is timed
    from pydicom.sr.codedict import codes  # noqa: PLC0415

    meaning = highdicom.pm.RealWorldValueMapping(
        lut_label="relevance",
        lut_explanation="relevance",
        unit=codes.UCUM.NoUnits,
        value_range=(float(values.min()), float(values.max())),
        slope=1.0,
        intercept=0.0,
    )
    slices = Series(shape=(len(values), 8, 8)).datasets()
    for each in slices:
        each.Rows, each.Columns = values.shape[1:]
        for keyword in REQUIRED:
            setattr(each, keyword, each.get(keyword) or "")
    made = highdicom.pm.ParametricMap(
        slices,
        values,
        series_instance_uid="2.25.9",
        series_number=1,
        sop_instance_uid="2.25.10",
        instance_number=1,
        manufacturer="-",
        manufacturer_model_name="-",
        software_versions="-",
        device_serial_number="-",
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[meaning],
        voi_lut_transformations=[
            highdicom.VOILUTTransformation(window_center=0.0, window_width=1.0)
        ],
    )
    made.save_as(out / "map.dcm", enforce_file_format=True)


def _peak() -> int:
    """Return the most memory that this process has had, in KiB; getrusage tells its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (each for each in lines if each.startswith("VmHWM"))
    return int(line.split()[1])


def measure(name: str, folder: Path) -> dict[str, float]:
    """Return the least time and the most memory of several processes."""
    command = [sys.executable, "-m", "benchmarks.volumes", "--child", name, str(folder)]
    runs = [
        json.loads(subprocess.run(command, check=True, capture_output=True).stdout)  # noqa: S603
        for _ in range(RUNS)
    ]
    return {
        "seconds": round(min(each["seconds"] for each in runs), 3),
        "volumes_of_memory": round(max(each["bytes"] for each in runs) / VOLUME, 2),
    }


def main() -> None:
    """Measure, print and publish."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child[0], Path(arguments.child[1]))
        return
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for name in (*FORMATS, *USUAL.values()):
            found[name] = measure(name, Path(folder))
            print(name, found[name], flush=True)
    ratios = {
        f"{name} to {peer}": round(found[name]["seconds"] / found[peer]["seconds"], 2)
        for name, peer in USUAL.items()
    }
    print(f"of the usual way's time: {ratios}")
    held = all(found[name]["seconds"] <= bar for name, bar in BARS.items()) and all(
        found[name]["volumes_of_memory"] <= MEMORY for name in FORMATS
    )
    print(f"bars {BARS} s, {MEMORY} volumes of memory: {'hold' if held else 'FAIL'}")
    result = {
        "what": f"a map of {SHAPE} float32 voxels to a file; CPU s, least of {RUNS} processes",
        "conditions": conditions(PACKAGES),
        "bars": BARS,
        "bar_memory": MEMORY,
        "found": found,
        "ratios": ratios,
    }
    print(f"written to {publish('volumes', result)}")
    sys.exit(0 if held else MISSED)


if __name__ == "__main__":
    main()
