"""Keys at the terminal: printed once, listed without secrets, revoked for good."""

import pytest

from service.command.home import Home
from service.keys import KeyRing, Scope
from service.settings import StoreSettings
from service.store.objects import open_store


@pytest.fixture
def home(tmp_path):
    return Home.at(tmp_path / "home")


@pytest.fixture
def ring(home):
    """The keys as a gateway on the same store sees them."""
    return KeyRing(open_store(StoreSettings(url=home.store.as_uri())))


def create(whylight, home, *words):
    status, out, _ = whylight("keys", "create", "--home", home.path, *words)
    assert status == 0
    return out.strip()


def test_a_key_made_here_opens_a_gateway_on_the_same_store(whylight, home, ring):
    key = create(whylight, home, "--tenant", "radiology", "--label", "reading room")
    record = ring.verify(key)
    assert (record.tenant, record.label) == ("radiology", "reading room")


def test_without_being_told_a_key_is_no_administrators(whylight, home, ring):
    scopes = ring.verify(create(whylight, home)).scopes
    assert Scope.EXPLANATIONS_WRITE in scopes
    assert not {Scope.MODELS_ADMIN, Scope.QUEUE_ADMIN} & set(scopes)


def test_an_administrators_key_allows_everything(whylight, home, ring):
    assert set(ring.verify(create(whylight, home, "--admin")).scopes) == set(Scope)


def test_a_key_allows_only_the_scopes_it_was_given(whylight, home, ring):
    key = create(whylight, home, "--scope", "studies:write", "--scope", "models:read")
    assert ring.verify(key).scopes == (Scope.MODELS_READ, Scope.STUDIES_WRITE)


def test_the_list_never_shows_a_secret(whylight, home):
    secret = create(whylight, home).rpartition("_")[2]
    _, out, _ = whylight("keys", "list", "--home", home.path)
    assert secret not in out
    assert len(out.splitlines()) == 1


def test_a_revoked_key_is_refused_and_leaves_the_list(whylight, home, ring):
    key_id = ring.verify(create(whylight, home)).id
    status, out, _ = whylight("keys", "revoke", key_id, "--home", home.path)
    assert (status, key_id in out) == (0, True)
    assert whylight("keys", "list", "--home", home.path)[1] == ""
    assert "revoked" in whylight("keys", "list", "--all", "--home", home.path)[1]


def test_revoking_a_key_that_is_not_there_says_so(whylight, home):
    status, _, err = whylight("keys", "revoke", "0123456789abcdef", "--home", home.path)
    assert status == 1
    assert "no such API key" in err


def test_a_tenant_that_would_lie_over_the_stores_own_folders_is_refused(whylight, home):
    status, _, err = whylight("keys", "create", "--tenant", "keys", "--home", home.path)
    assert status == 1
    assert "tenant" in err
