"""A store, and a valid package on its way into it."""

from pathlib import Path

import pytest

from service.packages import ModelPackages
from service.settings import StoreSettings
from service.store.objects import ObjectBlobStore, open_store
from tests.support.packages import write_package


@pytest.fixture
def store(tmp_path: Path) -> ObjectBlobStore:
    return open_store(StoreSettings(url=f"file://{tmp_path}/store", reserve_bytes=0))


@pytest.fixture
def packages(store: ObjectBlobStore) -> ModelPackages:
    return ModelPackages(store, clock=lambda: 1_700_000_000.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_package(tmp_path / "package")
