"""``tokens`` in ``model.yaml``: one form, which fits the input; all else is told by its field."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from service.domain.manifest import Manifest
from service.errors.models import InvalidPackage
from service.manifests import manifest_schema, read_manifest
from tests.support.packages import manifest, write_package

SIZE = [32, 48]


@pytest.fixture
def fields(tmp_path: Path) -> dict[str, Any]:
    """Return a manifest of which the steps prepare 32 x 48 pixels."""
    made = manifest(write_package(tmp_path / "package"))
    made["inputs"][0]["steps"] = [
        {"name": "resize", "parameters": {"size": SIZE}},
        {"name": "normalize", "parameters": {"mean": [0.5], "std": [0.5]}},
    ]
    return made


def read(made: dict[str, Any]) -> Manifest:
    return read_manifest(yaml.safe_dump(made).encode())


@pytest.mark.parametrize(
    ("tokens", "grids", "reads_class"),
    [
        ({"prefix": 1, "grid": [4, 6]}, ((4, 6),), True),
        ({"prefix": 5, "grid": [4, 6], "read": "mean"}, ((4, 6),), False),
        ({"grid": [2, 3]}, ((2, 3),), False),
        ({"stages": [[8, 12], [4, 6]]}, ((8, 12), (4, 6)), False),
    ],
)
def test_what_is_not_said_of_tokens_follows_from_what_is(fields, tokens, grids, reads_class):
    told = read({**fields, "tokens": tokens}).tokens
    assert (told.grids, told.reads_class) == (grids, reads_class)
    assert "Tokens" in manifest_schema()["$defs"]


@pytest.mark.parametrize(
    ("tokens", "pointer", "words"),
    [
        ({"prefix": 1, "grid": [6, 5]}, "/tokens/grid", "6 x 5 cells do not divide the prepared"),
        ({"prefix": 1, "grid": [4, 6, 2]}, "/tokens/grid", "each of the input's 2 axes"),
        ({"stages": [[8, 12], [4, 5]]}, "/tokens/stages/1", "4 x 5 cells do not divide"),
        ({"prefix": 1}, "/tokens", "give 'grid'"),
        ({"grid": [4, 6], "stages": [[4, 6]]}, "/tokens", "one of both"),
        ({"stages": [[8, 12], [4, 6]], "prefix": 1}, "/tokens", "have no 'prefix'"),
        ({"grid": [4, 6], "read": "class_token"}, "/tokens", "there is no class token"),
        ({"stages": [[8, 12], [4, 6]], "read": "mean"}, "/tokens", "no 'prefix' and no 'read'"),
        ({"grid": [4, 6], "prefix": True}, "/tokens/prefix", "whole number"),
        ({"grid": ["4", "6"]}, "/tokens/grid/0", "whole number"),
        ({"grid": [4, 6], "patch": 8}, "/tokens/patch", "unknown"),
        ({"grid": [4, 0]}, "/tokens/grid/1", "1"),
    ],
)
def test_what_does_not_go_together_is_told_by_its_field(fields, tokens, pointer, words):
    with pytest.raises(InvalidPackage) as refused:
        read({**fields, "tokens": tokens})
    error, *_ = refused.value.facts["errors"]
    assert error["pointer"] == pointer
    assert words in error["message"]


def test_a_size_that_no_step_tells_is_left_to_the_worker(fields):
    fields["inputs"][0]["steps"].insert(1, {"name": "pad", "parameters": {"size": [30, 50]}})
    assert read({**fields, "tokens": {"grid": [6, 5]}}).tokens is not None


def test_a_server_and_a_bag_have_no_tokens(fields):
    fields["tokens"] = {"grid": [4, 6]}
    server = {"endpoint": "lab", "model": "m", "input": "image", "output": "logits"}
    bag = {**fields["inputs"][0], "layout": "NCDHW", "bag": {"images": {"least": 2}}}
    test = {**fields["selftests"][0], "input": ["selftest/a.dcm"] * 2}
    for changes, words in (
        ({"runtime": "remote", "remote": server}, "a server gives no layer's output"),
        ({"inputs": [bag], "selftests": [test]}, "leave it out of a bag"),
    ):
        with pytest.raises(InvalidPackage) as refused:
            read(fields | changes)
        (error,) = refused.value.facts["errors"]
        assert error["pointer"] == "/tokens"
        assert words in error["message"]
