"""Work in hand on disk: private, and never left behind.

Patients' pixels pass through here, so a folder goes when its job ends, and
what a killed worker left goes when the next one starts on the machine.
"""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.domain.ids import new_id
from service.scratch import LOCK, shared_folder


@contextmanager
def scratch(root: Path | None) -> Iterator[Path]:
    """Own a new folder below `root` until the process ends.

    Parameters
    ----------
    root
        Folder shared by the machine's workers; by default one of the system's
        temporary folder that only this user can enter.
    """
    shared = shared_folder(root)
    shared.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_orphans(shared)
    own = shared / new_id("wk")
    # locked while we live: the kernel lets go of it however the process dies
    with own.with_suffix(LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        own.mkdir(mode=0o700)
        try:
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)
            own.with_suffix(LOCK).unlink(missing_ok=True)


@contextmanager
def job_folder(own: Path) -> Iterator[Path]:
    """Give a job a folder of its own, and remove it with all it holds."""
    folder = Path(tempfile.mkdtemp(prefix="job-", dir=own))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_orphans(shared: Path) -> None:
    """Remove the folders of workers that no longer live."""
    for path in shared.glob(f"wk_*{LOCK}"):
        try:
            with path.open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                path.unlink(missing_ok=True)
        except OSError:  # its owner lives, or another worker is removing it
            continue
