"""A real store whose server is away."""

import pytest

from service.settings import StoreSettings
from service.store.base import BlobStore
from service.store.objects import open_store
from tests.support.ports import free_port


def dead_store(monkeypatch: pytest.MonkeyPatch) -> BlobStore:
    """Return an S3 store on a port where nobody listens; it fails at once."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT": f"http://127.0.0.1:{free_port()}",
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    return open_store(StoreSettings(url="s3://bucket/prefix"))
