"""Programs of other makers that tests ask: missing ones skip, but fail under CI."""

import os
import shutil

import pytest


def needs(*programs: str) -> pytest.MarkDecorator:
    """Mark a test that needs `programs`; where one is missing it is skipped by name."""
    missing = [each for each in programs if shutil.which(each) is None]
    in_ci = os.environ.get("CI") == "true"
    return pytest.mark.skipif(
        bool(missing) and not in_ci, reason=f"not installed: {', '.join(missing)}"
    )
