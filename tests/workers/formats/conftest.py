from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.phantom_dicom import encoded, of_pixels
from tests.support.sheets import blob, sheet
from workers.sheets import write

PIXELS = (np.add.outer(np.arange(600), np.arange(500)) * 3).astype(np.uint16)
NATIVE = blob((12, 10))


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a source image with elements of one's choice."""

    def of(**elements) -> Path:
        path = tmp_path / "source.dcm"
        path.write_bytes(encoded(of_pixels(PIXELS, bits=12, **elements)))
        return path

    return of


@pytest.fixture
def written(source, tmp_path):
    """A function that writes one format of a map: its bytes, or why it was left out."""

    def of(format_, values=NATIVE, elements=None, **changes):
        drawn = sheet(source(**(elements or {})), tmp_path / "work", values, **changes)
        files, omitted = write(drawn, [format_], tmp_path)
        return files[0][1].read_bytes() if files else omitted[0].reason

    return of
