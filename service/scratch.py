"""Folders for work in hand: one a process, locked while the process lives.

Patients' files pass through them, so what a killed process left must be found
again and told from what is in use, however the process died.
"""

import fcntl
import os
import tempfile
from pathlib import Path
from typing import Final

LOCK: Final = ".lock"


def shared_folder(root: Path | None) -> Path:
    """Return where a machine's processes have their folders.

    By default one of the system's temporary folder that only this user can
    enter.
    """
    return root or Path(tempfile.gettempdir()) / f"whylight-{os.getuid()}"


def living(root: Path | None, prefix: str) -> tuple[str, ...]:
    """Return the names of the folders whose processes live, such as ``wk_...``."""
    locks = sorted(shared_folder(root).glob(f"{prefix}_*{LOCK}"))
    return tuple(path.stem for path in locks if _is_held(path))


def _is_held(path: Path) -> bool:
    try:
        with path.open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # it was removed meanwhile
        return False
    return False
