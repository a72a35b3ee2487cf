"""The corpus of real DICOM files, when this machine has it."""

import os
from pathlib import Path

VARIABLE = "WHYLIGHT_CORPUS"
FOLDER = os.environ.get(VARIABLE)
LIMIT = 128 << 20

FILES: tuple[Path, ...] = (
    tuple(
        sorted(
            path
            for path in Path(FOLDER).rglob("*")
            if path.is_file() and path.suffix != ".md" and not path.name.startswith(".")
        )
    )
    if FOLDER
    else ()
)
REASON = f"{VARIABLE} is not set: real DICOM files are not at hand"


def name(path: Path) -> str:
    """Tell a file by its last two parts."""
    return "/".join(path.parts[-2:])[-70:]


def find(ending: str) -> Path:
    """Return the one file whose path ends so."""
    (path,) = (each for each in FILES if str(each).endswith(ending))
    return path
