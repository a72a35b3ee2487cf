"""What lies in a package: bound by digest, looked at, nothing beside."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest

from service.contents import inspect
from service.errors.models import InvalidPackage
from service.sniff import contradiction
from tests.support.packages import entry, manifest, safetensors_bytes, write_manifest


def defects(folder: Path) -> list[tuple[str, str]]:
    with pytest.raises(InvalidPackage) as refused:
        inspect(folder)
    errors = refused.value.facts["errors"]
    assert isinstance(errors, list)
    named = [each for each in errors if isinstance(each, dict)]
    return [(str(each["pointer"]), str(each["message"])) for each in named]


def test_a_folder_without_a_manifest_is_told(tmp_path: Path) -> None:
    ((_, message),) = defects(tmp_path)
    assert "no model.yaml" in message


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    ((pointer, message),) = defects(folder)
    assert pointer == "/files/0/path"
    assert "no such file" in message


def test_a_link_is_refused_wherever_it_leads(folder: Path, tmp_path: Path) -> None:
    """Else a package would carry away what lies beside it."""
    elsewhere = tmp_path / "elsewhere"
    (folder / "weights.safetensors").rename(elsewhere)
    (folder / "weights.safetensors").symlink_to(elsewhere)
    (folder / "README.md").symlink_to("/etc/hostname")
    found = defects(folder)
    assert [pointer for pointer, _ in found] == ["/files/0/path", "/files"]
    assert all("put the file itself there" in message for _, message in found)


def test_a_file_of_another_size_is_named(folder: Path) -> None:
    with (folder / "weights.safetensors").open("ab") as file:
        file.write(b"x")
    ((pointer, _),) = defects(folder)
    assert pointer == "/files/0/bytes"


def test_a_file_of_another_digest_is_named(folder: Path) -> None:
    data = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(data[:-1] + b"\x01")
    ((pointer, _),) = defects(folder)
    assert pointer == "/files/0/sha256"


def test_a_file_listed_twice_is_told(folder: Path) -> None:
    fields = manifest(folder)
    fields["files"].append(fields["files"][0].copy())
    write_manifest(folder, fields)
    assert defects(folder) == [("/files", "Each file may be listed once.")]


@pytest.mark.parametrize(
    "name", ["setup.py", "weights.pt", "notes/README.md", ".DS_Store", "figures/x.svg", "readme"]
)
def test_a_file_that_is_not_listed_is_refused(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("text")
    ((pointer, message),) = defects(folder)
    assert pointer == "/files"
    assert name in message


def test_documents_may_lie_beside(folder: Path) -> None:
    for name in ("README.md", "CARD.md", "LICENSE", "NOTICE.txt", "figures.json"):
        (folder / name).write_text("text")
    (folder / "figures").mkdir()
    (folder / "figures" / "roc.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    _, contents = inspect(folder)
    assert len(contents.files) == 9


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("CARD.md", pickle.dumps({})),
        ("README.md", b"\xff\xfe"),
        ("LICENSE", b"a\0b"),
        ("figures/x.png", b"<svg/>"),
    ],
)
def test_a_document_that_is_none_is_refused(folder: Path, name: str, data: bytes) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    ((_, message),) = defects(folder)
    assert "no document" in message


def test_a_digest_does_not_depend_on_how_files_were_written(folder: Path) -> None:
    first = inspect(folder)[1].digest
    (folder / "weights.safetensors").touch()
    assert inspect(folder)[1].digest == first
    (folder / "CARD.md").write_text("new")
    assert inspect(folder)[1].digest != first


def test_weights_that_are_a_pickle_are_refused_by_content(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(pickle.dumps({"w": [1.0]}))
    fields = manifest(folder)
    fields["files"][0] = entry(folder, "weights", "safetensors", "weights.safetensors")
    write_manifest(folder, fields)
    ((pointer, message),) = defects(folder)
    assert pointer == "/files/0/format"
    assert "pickle" in message


@pytest.mark.parametrize(
    ("format_", "data", "words"),
    [
        ("safetensors", b"PK\x03\x04" + bytes(100), "models convert"),
        ("onnx", pickle.dumps([1]), "models convert"),
        ("onnx", safetensors_bytes(), "it is safetensors"),
        ("safetensors", b"\x08\x08\x12\x01x\x3a\x02ab", "it is onnx"),
        ("npy", bytes(128) + b"DICM", "it is dicom"),
        ("dicom", b"words", "write it again"),
    ],
)
def test_what_a_file_really_is_is_told(
    tmp_path: Path, format_: str, data: bytes, words: str
) -> None:
    (tmp_path / "f").write_bytes(data)
    assert words in (contradiction(tmp_path / "f", format_) or "")


def test_a_pth_that_is_safetensors_is_fine(folder: Path) -> None:
    fields = manifest(folder)
    (folder / "weights.safetensors").rename(folder / "weights.pth")
    fields["files"][0] = entry(folder, "weights", "safetensors", "weights.pth")
    write_manifest(folder, fields)
    assert inspect(folder)[0].file("weights", "safetensors").path == "weights.pth"


def npy(array: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), allow_pickle=True)
    return buffer.getvalue()


def header(text: str, body: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text.encode() + body


ONNX = b"\x08\x08\x12\x01x\x3a\x02ab"  # ir_version 8, producer_name, graph of two bytes


@pytest.mark.parametrize(
    ("format_", "data"),
    [
        ("safetensors", safetensors_bytes()),
        ("safetensors", header("{}")),
        ("onnx", ONNX),
        ("dicom", bytes(128) + b"DICM"),
        ("npy", npy([1.0, 2.0])),
    ],
)
def test_a_file_that_is_what_it_says_is_taken(tmp_path: Path, format_: str, data: bytes) -> None:
    (tmp_path / "f").write_bytes(data)
    assert contradiction(tmp_path / "f", format_) is None


@pytest.mark.parametrize(
    ("format_", "data"),
    [
        ("safetensors", b""),
        ("safetensors", b"short"),
        ("safetensors", header("{}")[:-1]),
        ("safetensors", header("[]")),
        ("safetensors", header("not json")),
        ("safetensors", header("[" * 50_000)),
        ("safetensors", (2**63).to_bytes(8, "little") + b"{}"),
        ("safetensors", header('{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', b"1234")),
        ("safetensors", header('{"w":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}', bytes(8))),
        ("safetensors", header('{"w":{"shape":[2],"data_offsets":[0,8]}}', bytes(8))),
        ("safetensors", b"PK\x03\x04" + bytes(100)),
        ("onnx", b""),
        ("onnx", b"\x08\x08"),
        ("onnx", ONNX[:-1]),
        ("onnx", ONNX + b"\x0b"),
        ("onnx", b"\xff" * 40),
        ("onnx", pickle.dumps([1], protocol=0)),
        ("dicom", b"DICM" + bytes(200)),
        ("npy", npy([object()])[:200]),
        ("npy", npy([1.0, 2.0])[:-1]),
        ("npy", b"\x93NUMPY"),
        *(
            (format_, pickle.dumps([1], protocol=protocol))
            for format_ in ("safetensors", "onnx", "dicom", "npy")
            for protocol in (2, 3, 4, 5)
        ),
    ],
)
def test_a_file_that_is_something_else_is_refused(
    tmp_path: Path, format_: str, data: bytes
) -> None:
    (tmp_path / "f").write_bytes(data)
    assert contradiction(tmp_path / "f", format_) is not None


def test_a_real_onnx_file_is_taken(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    value = [onnx.helper.make_tensor_value_info(n, 1, [1]) for n in ("x", "y")]
    graph = onnx.helper.make_graph([node], "g", value[:1], value[1:])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "f")
    assert contradiction(tmp_path / "f", "onnx") is None
