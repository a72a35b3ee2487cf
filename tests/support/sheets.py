"""Maps of known values on images of known pixels, ready to be written."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.explanation import ModelRef
from service.domain.grid import Grid
from service.domain.parity import MapParity
from service.domain.resolved import ResolvedTarget
from service.domain.trust import Grade, TrustReport, statements
from workers.formats.record import MapRecord
from workers.formats.sheet import Sheet
from workers.parcels import ImageFacts
from workers.pixels.decode import decode_file

CREATED = 1_760_000_000_123
TARGET = ResolvedTarget(
    key="effusion",
    label="Pleural effusion",
    index=2,
    asked_as="effusion",
    score=2.5,
    probability=0.92,
    threshold=0.5,
    above_threshold=True,
)
MODEL = ModelRef(
    name="chest-phantom",
    version="1.0.0",
    title="Chest phantom findings",
    package="a" * 64,
    weights="b" * 64,
    runtime="torch",
)

REPORT = TrustReport(grade=Grade.NOT_CHECKED, statements=statements(Grade.NOT_CHECKED))


def blob(shape: tuple[int, int], *, signed: bool = False) -> NDArray[np.float32]:
    """A hill of evidence, and a hollow against it if signed; shape ``(1, *shape)``."""
    row, column = (np.linspace(0, 1, length)[:, None] for length in shape)
    hill = np.exp(-30 * ((row - 0.7) ** 2 + (column.T - 0.3) ** 2))
    hollow = np.exp(-30 * ((row - 0.2) ** 2 + (column.T - 0.8) ** 2))
    return np.asarray(hill - hollow * signed, np.float32)[None]


def sheet(
    file: Path,
    folder: Path,
    values: NDArray[np.float32],
    grid: Grid | None = None,
    *,
    frame: int = 1,
    **changes: Any,
) -> Sheet:
    """Decode a frame of `file` and lay `values` over it; `changes` are to the record."""
    folder.mkdir(parents=True, exist_ok=True)
    files = decode_file(file, folder, frame=frame)
    place = grid or Grid.partition(values.shape[1:], (files.facts.rows, files.facts.columns))
    np.save(folder / "map.npy", values)
    made = record(files.facts, place, **changes)
    return Sheet(made, folder / "map.npy", files.display, files.header)


def record(facts: ImageFacts, grid: Grid, **changes: Any) -> MapRecord:
    """All that is said of a map whose cells are `grid`."""
    said: dict[str, Any] = {
        "number": 1,
        "method": "grad_cam",
        "method_version": 3,
        "method_title": "Grad-CAM",
        "parameters": {},
        "target": TARGET,
        "finding": None,
        "signed": False,
        "degenerate": False,
        "partial": False,
        "extras": {},
        "checks": (),
        "trust": REPORT,
        "parity": MapParity(),
        "probes": None,
        "reference": None,
        "model": MODEL,
        "precision": "float32",
        "facts": facts,
        "affine": tuple(tuple(map(float, row)) for row in grid.affine),
        "on_source_grid": False,
        "digest": "c" * 64,
        "created": CREATED,
        "software": "0.1.0",
        "style": "overlay",
        "transfer_syntax": "explicit_vr_little_endian",
    }
    return MapRecord(**said | changes)
