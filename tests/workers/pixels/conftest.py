from pathlib import Path

import numpy as np
import pytest

from workers.pixels.decode import decode_file


@pytest.fixture
def decode(tmp_path: Path):
    """Decode bytes; returns facts, modality values, display and padding."""

    def of(data: bytes):
        path = tmp_path / "object.dcm"
        path.write_bytes(data)
        files = decode_file(path, tmp_path)
        padding = None if files.padding is None else np.load(files.padding)
        return files.facts, np.load(files.pixels), np.load(files.display), padding

    return of
