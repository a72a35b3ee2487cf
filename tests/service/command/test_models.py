"""Models at the terminal: what is wrong before anything is sent."""

import pytest

from service.command.stack import free_port

NOBODY = f"http://127.0.0.1:{free_port('127.0.0.1')}"


def test_without_a_key_the_command_says_where_one_comes_from(whylight, tmp_path):
    status, _, err = whylight("models", "list", "--home", tmp_path)
    assert status == 1
    assert "WHYLIGHT_API_KEY" in err
    assert "whylight keys create" in err


def test_without_a_gateway_the_command_says_how_to_start_one(whylight, tmp_path, monkeypatch):
    monkeypatch.setenv("WHYLIGHT_API_KEY", "wl_live_x_y")
    status, _, err = whylight("models", "list", "--home", tmp_path, "--url", NOBODY)
    assert status == 1
    assert "whylight up" in err


@pytest.mark.parametrize(
    ("manifest", "pointer"),
    [(None, "model.yaml"), ("id: Chest Model", "/id"), ("schema_number: 2", "/schema_number")],
)
def test_a_package_that_does_not_hold_is_told_field_by_field(
    whylight, tmp_path, monkeypatch, manifest, pointer
):
    monkeypatch.setenv("WHYLIGHT_API_KEY", "wl_live_x_y")
    if manifest is not None:
        (tmp_path / "model.yaml").write_text(manifest)
    status, _, err = whylight("models", "add", tmp_path, "--home", tmp_path, "--url", NOBODY)
    assert status == 1
    assert pointer in err


def test_a_version_must_be_named_to_be_withdrawn(whylight, tmp_path, monkeypatch):
    monkeypatch.setenv("WHYLIGHT_API_KEY", "wl_live_x_y")
    status, _, err = whylight("models", "remove", "chest", "--home", tmp_path, "--url", NOBODY)
    assert status == 1
    assert "name@version" in err
