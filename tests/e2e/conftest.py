"""One real stack for the tests of a folder, started as an operator starts it."""

import pytest

from tests.support.redis_server import any_server
from tests.support.up import up


@pytest.fixture(scope="session")
def stack():
    any_server()
    with up() as running:
        yield running


@pytest.fixture(scope="session")
def client(stack):
    with stack.client() as client:
        yield client
