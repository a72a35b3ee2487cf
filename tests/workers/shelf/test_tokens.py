"""``tokens`` of a package, from loading it to what the catalog tells."""

import pytest

from service.domain.manifest import Manifest
from service.manifests import read_manifest
from tests.support.hospital import register
from tests.support.model_kinds import LISTED, of_tokens
from tests.support.small_model import SIDE, write_package
from tests.workers.shelf.conftest import Room
from workers.architectures.vit import Vit
from workers.parts_main import main

OPTIONS = {"architecture": "vit", "shape": LISTED["vit"]}
EDGE = SIDE // LISTED["vit"]["patch"]
RIGHT = {"prefix": 1, "grid": [EDGE, EDGE]}
WRONG = {"prefix": 1, "grid": [EDGE, EDGE], "read": "mean"}


def unnamed(tokens: dict[str, object] | None) -> dict[str, object]:
    return {"explain": {"baseline": 0.0}, "tokens": tokens}


def test_a_network_that_knows_its_tokens_is_not_contradicted(room: Room) -> None:
    same = room.register("same", changes=unnamed(RIGHT), **OPTIONS)
    assert room.entry(same).layers[0].name == "blocks.1.norm1"
    other = room.register("other", changes=unnamed(WRONG), **OPTIONS)
    reason = room.refusal(other)
    assert f"1 before a grid of {EDGE} x {EDGE} cells, read by the class token" in reason
    assert "leave it out" in reason


def test_the_contradiction_is_found_when_the_package_is_sealed(room: Room) -> None:
    for tokens, pointers in ((RIGHT, []), (WRONG, ["/tokens"])):
        folder = room.folder / f"sealed{len(pointers)}"
        write_package(folder, name="sealed", changes=unnamed(tokens), **OPTIONS)
        manifest: Manifest = read_manifest((folder / "model.yaml").read_bytes())
        found = main(manifest.model_dump(mode="json"))["defects"]
        assert [each["pointer"] for each in found] == pointers


def test_of_a_network_that_knows_nothing_the_package_tells(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of a deployer's own that joins by entry point."""
    monkeypatch.setattr(Vit, "tokens", lambda _self: None)
    silent = room.entry(room.register("silent", changes=unnamed(None), **OPTIONS))
    assert "'tokens' in its model.yaml tells it" in silent.refused["attention_rollout"]
    told = room.entry(room.register("told", changes=unnamed(RIGHT), **OPTIONS))
    assert [(each.name, each.shape) for each in told.layers] == [
        ("blocks.1.norm1", (16, EDGE, EDGE))
    ]
    assert {"grad_cam", "eigen_cam", "attention_rollout"} <= {*told.methods}
    cells = {"prefix": 1, "grid": [EDGE * 2, EDGE // 2]}
    astray = room.refusal(room.register("astray", changes=unnamed(cells), **OPTIONS))
    assert "not be shown to lie as 'tokens' says" in astray


def test_of_a_file_the_package_tells(room: Room) -> None:
    entry = room.entry(register(room.store, of_tokens(room.folder / "file")))
    assert entry.surrogate is not None
    assert {"grad_cam", "attention_rollout"} <= {*entry.surrogate.methods}
    assert {"eigen_cam", "score_cam"} <= {*entry.methods} - {*entry.surrogate.methods}
