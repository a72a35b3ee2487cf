"""``model.yaml``: strict, and its errors name field, expectation and remedy."""

import math
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.manifest import Manifest
from service.errors.models import InvalidPackage
from service.manifests import LARGEST, manifest_schema, read_manifest
from tests.support.packages import manifest, write_package

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def fields(tmp_path: Path) -> dict[str, Any]:
    return manifest(write_package(tmp_path / "package"))


def defects(data: bytes | dict[str, Any]) -> list[tuple[str, str]]:
    text = data if isinstance(data, bytes) else yaml.safe_dump(data).encode()
    with pytest.raises(InvalidPackage) as refused:
        read_manifest(text)
    errors = refused.value.facts["errors"]
    assert isinstance(errors, list)
    found: list[tuple[str, str]] = []
    for each in errors:
        assert isinstance(each, dict)
        found.append((str(each["pointer"]), str(each["message"])))
    return found


def test_a_valid_manifest_is_read(fields: dict[str, Any]) -> None:
    found = read_manifest(yaml.safe_dump(fields).encode())
    assert found == Manifest.model_validate(fields)
    assert found.ref == "small@1.0.0"


REMOTE = {"endpoint": "lab", "model": "chest", "input": "image", "output": "logits"}

AGE = {"key": "age", "label": "Age", "unit": "a", "minimum": 0, "maximum": 18, "baseline": 9}
TABULAR = {"name": "age", "kind": "tabular", "variables": [AGE]}

IN_PLANE = {"name": "resize", "parameters": {"size": [None, 32, 32]}}
BAG = {
    "kind": "volume",
    "layout": "NCDHW",
    "bag": {},
    "accept": {"modalities": ["CT"], "volume": {}},
    "steps": [{"name": "resize", "parameters": {"size": [32, 32, 32]}}],
}

IMAGES = {"layout": "NCDHW", "bag": {"images": {}}}

TWO_VIEWS = {
    "layout": "NCDHW",
    "views": [
        {"key": "front", "label": "Front", "view_positions": ["PA", "AP"]},
        {"key": "side", "label": "Side", "view_positions": ["LL"]},
    ],
}


def viewed(m: dict[str, Any], **changes: Any) -> None:
    """Make a model of two views of it, with a defect."""
    m["inputs"][0].update(deepcopy(TWO_VIEWS) | changes)
    path = m["selftests"][0]["input"]
    for each in m["selftests"]:
        each["input"] = {"front": path, "side": path}


BOXED = {
    "decoding": "boxes",
    "classes": [{"key": "cyst", "label": "Cyst", "threshold": 0.5}],
}
XYZ = {"layout": "rows", "form": "corners", "scores": "sigmoid", "axes": "xyz"}
BOX_AXES = "/outputs/0/boxes/axes"

CASES: list[tuple[Change, str, str]] = [
    (lambda m: m.pop("title"), "/title", "required"),
    (lambda m: m.update(titel="x"), "/titel", "unknown"),
    (lambda m: m["inputs"][0]["accept"].update(vendor="x"), "/inputs/0/accept/vendor", "unknown"),
    (lambda m: m.update(version=1.0), "/version", "quotes"),
    (lambda m: m.update(version="1.0"), "/version", "'1.0.0'"),
    (lambda m: m.update(id="Small Model"), "/id", "small letters"),
    (lambda m: m.update(task="ranking"), "/task", "classification-multilabel"),
    (lambda m: m.update(activation="softmax"), "/activation", "logits"),
    (lambda m: m.update(files=[]), "/files", "at least 1"),
    (lambda m: m.update(files="weights"), "/files", "list"),
    (lambda m: m.update(architecture="net"), "/architecture", "mapping"),
    (lambda m: m["files"][0].update(bytes=0), "/files/0/bytes", "above 0"),
    (lambda m: m["files"][0].update(bytes="many"), "/files/0/bytes", "whole number"),
    (lambda m: m["files"][0].update(sha256="abc"), "/files/0/sha256", "seal"),
    (lambda m: m["files"][0].update(path="../x"), "/files/0/path", "form"),
    (lambda m: m["files"][0].update(path="/etc/passwd"), "/files/0/path", "form"),
    (lambda m: m["files"][0].update(format="pickle"), "/files/0/format", "safetensors"),
    (lambda m: m["selftests"][0].update(tolerance=2), "/selftests/0/tolerance", "at most 1"),
    (lambda m: m["selftests"][0].update(logits=["x"]), "/selftests/0/logits/0", "number"),
    (lambda m: m["selftests"][0].update(logits=[math.nan]), "/selftests/0/logits/0", "finite"),
    (
        lambda m: m["selftests"][0].update(logits=[1.0, 2.0]),
        "/selftests/0/logits",
        "'outputs' lists 1 class, and this self-test gives 2",
    ),
    (
        lambda m: m.update(explain={"default_targets": [{"of": "nodule"}, {"of": "zzz"}]}),
        "/explain/default_targets/1/of",
        "an index, 'top1' or 'above_threshold'. 'classes': nodule.",
    ),
    (
        lambda m: m.update(explain={"default_targets": [{"of": 1}]}),
        "/explain/default_targets/0/of",
        "no such class",
    ),
    (
        lambda m: m.update(explain={"default_targets": [{"kind": "regression", "of": "nodule"}]}),
        "/explain/default_targets/0/kind",
        "no targets of this kind; choose one of 'kinds'. 'kinds': class, contrast.",
    ),
    (
        lambda m: m["outputs"][0]["classes"][0].pop("threshold"),
        "/outputs/0/classes",
        "'explain.default_targets'",
    ),
    (
        lambda m: (
            m["outputs"][0]["classes"][0].update(not_for_use="Too few cases."),
            m["outputs"][0]["classes"].append({"key": "mass", "label": "Mass"}),
            m["selftests"][0].update(logits=[0.0, 1.0]),
        ),
        "/outputs/0/classes",
        "No class that is for use has a 'threshold'",
    ),
    (
        lambda m: (
            m["outputs"][0]["classes"][0].pop("threshold"),
            m.update(explain={"default_targets": [{"of": "above_threshold"}]}),
        ),
        "/explain/default_targets/0/of",
        "threshold to be above",
    ),
    (lambda m: m.update(selftests=[]), "/selftests", "at least 1"),
    (
        lambda m: m["outputs"][0]["classes"][0].update(threshold=-1),
        "/outputs/0/classes/0/threshold",
        "above 0 and below 1",
    ),
    *(
        (
            lambda m, end=end: m["outputs"][0]["classes"][0].update(threshold=end),
            "/outputs/0/classes/0/threshold",
            "leave it out",
        )
        for end in (0, 1)
    ),
    (lambda m: m.update(architecture=None), "/architecture", "architecture"),
    (lambda m: m["inputs"][0].update(layout="NHWC"), "/inputs/0/layout", "NHWC"),
    (lambda m: m.update(runtime="onnx"), "/files", "onnx"),
    (lambda m: m.update(runtime="remote"), "/remote", "needs 'remote'"),
    (lambda m: m.update(remote=REMOTE), "/remote", "no other runtime"),
    (lambda m: m.update(remote=REMOTE | {"model": "../admin"}), "/remote/model", "form"),
    (lambda m: m.update(remote=REMOTE | {"datatype": "INT8"}), "/remote/datatype", "FP32"),
    (lambda m: m["selftests"][0].update(input="b.dcm"), "/selftests/0/input", "self-test"),
    (lambda m: m["inputs"].append(TABULAR), "/selftests/0/values", "each self-test needs 'values'"),
    (lambda m: m["inputs"].insert(0, TABULAR), "/inputs/0/kind", "one image or volume first"),
    (
        lambda m: m["inputs"].append(deepcopy(m["inputs"][0]) | {"name": "b"}),
        "/inputs/1/kind",
        "of kind tabular",
    ),
    (
        lambda m: m["inputs"].extend(map(deepcopy, (TABULAR, TABULAR))),
        "/inputs/2/name",
        "must differ",
    ),
    (lambda m: m["inputs"].append(TABULAR | {"variables": []}), "/inputs/1/variables", "at least"),
    (
        lambda m: m["inputs"].append({"kind": "tabular", "variables": [AGE | {"std": 0}]}),
        "/inputs/1/variables/0/std",
        "above 0",
    ),
    (
        lambda m: m["selftests"][0].update(values={"age": 9}),
        "/selftests/0/values",
        "each self-test needs 'values'",
    ),
    (lambda m: m["inputs"][0].update(bag={}), "/inputs/0", "give 'kind' volume, or"),
    (lambda m: m["inputs"][0].update(BAG), "/inputs/0", "keep its slices"),
    (
        lambda m: m["inputs"][0].update(deepcopy(BAG), steps=[IN_PLANE | {"name": "crop"}]),
        "/inputs/0",
        "keep its slices",
    ),
    (
        lambda m: m["inputs"][0].update(
            deepcopy(BAG), steps=[IN_PLANE], bag={"attention": {"name": "weights"}}
        ),
        "/explain/layers",
        "needs 'explain.layers'",
    ),
    (
        lambda m: m["inputs"][0].update(IMAGES | {"bag": {"images": {"least": 3, "most": 2}}}),
        "/inputs/0/bag/images",
        "must not be over",
    ),
    (
        lambda m: m["inputs"][0].update(IMAGES),
        "/selftests/0/input",
        "a list of files as its 'input', from 2 to 16",
    ),
    (
        lambda m: (
            m["inputs"][0].update(deepcopy(BAG), steps=[IN_PLANE]),
            m["inputs"][0].update(bag={"attention": {"name": "attention"}}),
            m.update(explain={"layers": [{"name": "peaks"}]}, runtime="remote", remote=REMOTE),
        ),
        "/inputs/0/bag/attention",
        "one network that runs here",
    ),
    (
        lambda m: (
            m["inputs"][0].update(deepcopy(BAG), steps=[IN_PLANE]),
            m.update(task="segmentation"),
            m["outputs"][0].update(decoding="voxel_classes"),
        ),
        "/task",
        "one answer",
    ),
    (
        lambda m: m["outputs"][0]["classes"].append(m["outputs"][0]["classes"][0].copy()),
        "/outputs/0/classes/1/key",
        "differ",
    ),
    (
        lambda m: m["outputs"][0]["classes"][0].update(key="rest"),
        "/outputs/0/classes/0/key",
        "a meaning of their own for 'rest'",
    ),
    (
        lambda m: m["outputs"][0]["classes"][0].update(key="top1"),
        "/outputs/0/classes/0/key",
        "a meaning of their own for 'top1'",
    ),
    (
        lambda m: (
            m.update(task="classification-multiclass"),
            m["outputs"][0].update(classes=m["outputs"][0]["classes"][:1]),
            m["selftests"][0].update(logits=[0.5]),
        ),
        "/task",
        "one class excludes no other",
    ),
    (lambda m: viewed(m, layout="NCHW"), "/inputs/0", "layout NCDHW"),
    (lambda m: viewed(m, views=TWO_VIEWS["views"][:1]), "/inputs/0", "from 2 to 8"),
    (
        lambda m: viewed(m, views=[*TWO_VIEWS["views"], {"key": "side", "label": "Again"}]),
        "/inputs/0",
        "must differ",
    ),
    (
        lambda m: viewed(m, views=[*TWO_VIEWS["views"], {"key": "any", "label": "Any"}]),
        "/inputs/0",
        "could be both 'front' and 'any'",
    ),
    (
        lambda m: (viewed(m), m["selftests"][0].update(input=m["selftests"][0]["input"]["side"])),
        "/selftests/0/input",
        "a file for each of these keys",
    ),
    (
        lambda m: (viewed(m), m["selftests"][0]["input"].pop("side")),
        "/selftests/0/input",
        "a file for each of",
    ),
    (
        lambda m: (viewed(m), m["selftests"][0]["input"].update(side="../x")),
        "/selftests/0/input/side",
        "form",
    ),
    (lambda m: m["selftests"][0].update(input="../x"), "/selftests/0/input", "form"),
    (
        lambda m: m["selftests"][0].update(input={"front": m["selftests"][0]["input"]}),
        "/selftests/0/input",
        "a file for each of",
    ),
    (
        lambda m: (
            viewed(m),
            m.update(task="segmentation"),
            m["outputs"][0].update(decoding="voxel_classes"),
        ),
        "/task",
        "views have one answer",
    ),
    (
        lambda m: (
            m["inputs"].append(TABULAR),
            [each.update(values={"age": 19}) for each in m["selftests"]],
        ),
        "/selftests/0/values/age",
        "from 0 to 18",
    ),
    (lambda m: m.update(members={"weights": ["w.safetensors"] * 2}), "/members/weights/0", "need"),
    (
        lambda m: m.update(sliding_window={"size": [8, 8]}),
        "/sliding_window",
        "segmentations and detections alone",
    ),
    (
        lambda m: m.update(task="detection", outputs=[m["outputs"][0] | {"decoding": "boxes"}]),
        "/outputs/0/boxes",
        "needs 'boxes'",
    ),
    (lambda m: m.update(outputs=[BOXED | {"boxes": XYZ}], task="detection"), BOX_AXES, "2: 'xy'"),
    (
        lambda m: m.update(calibration={"cases": "c.safetensors", "synthetic": True, "title": "T"}),
        "/calibration/cases",
        "role 'calibration'",
    ),
    (
        lambda m: m["outputs"][0].update(values=[{"key": "age", "label": "Age"}]),
        "/outputs/0/values",
        "needs 'classes', and they alone",
    ),
    (lambda m: m.update(task="regression"), "/outputs/0/values", "needs 'values'"),
    (lambda m: m.update(activation="probabilities"), "/selftests/0/logits", "needs 'probabil"),
]


@pytest.mark.parametrize(("change", "pointer", "words"), CASES)
def test_each_defect_is_named_with_its_remedy(
    fields: dict[str, Any], change: Change, pointer: str, words: str
) -> None:
    change(fields)
    ((where, message),) = defects(fields)
    assert where == pointer
    assert words in message


ENCODER = {"task": "embedding", "outputs": [{"decoding": "embedding"}]}
OUTLINING = {
    "task": "segmentation",
    "outputs": [{"decoding": "voxel_regions", "classes": [{"key": "cyst", "label": "Cyst"}]}],
}
SEEN_AS = {"kind": "segmentation", "of": "cyst"}


@pytest.mark.parametrize(
    ("changes", "target", "field"),
    [
        (ENCODER, {"kind": "embedding", "similarity_to": "in_0002"}, "similarity_to"),
        (ENCODER, {"kind": "embedding", "of": "reconstruction_error"}, "of"),
        (ENCODER, {"of": "nodule"}, "kind"),
        (
            OUTLINING,
            SEEN_AS | {"region": {"kind": "segment", "instance": "in_0002"}},
            "region/instance",
        ),
    ],
)
def test_a_package_explains_no_object_of_one_study_unasked(
    fields: dict[str, Any], changes: dict[str, Any], target: dict[str, Any], field: str
) -> None:
    fields |= deepcopy(changes)
    read_manifest(yaml.safe_dump(fields).encode())
    fields["explain"] = {"default_targets": [target]}
    ((where, _),) = defects(fields)
    assert where == f"/explain/default_targets/0/{field}"


def test_numbers_beside_the_image_are_declared_one_by_one(fields: dict[str, Any]) -> None:
    fields["inputs"].append(TABULAR)
    fields["selftests"][0]["values"] = {"age": 19}
    ((_, message),) = defects(fields)
    assert "from 0 to 18" in message
    fields["selftests"][0]["values"] = {"age": 18}
    (age,) = read_manifest(yaml.safe_dump(fields).encode()).variables
    assert (age.number(18), age.normalized(9)) == (18, 9)
    fields |= {"runtime": "remote", "remote": REMOTE}
    assert read_manifest(yaml.safe_dump(fields).encode()).variables == (age,)
    fields["remote"] = REMOTE | {"input": "age"}
    ((_, message),) = defects(fields)
    assert "'remote.input' is the image's tensor" in message


def test_without_thresholds_a_request_without_targets_explains_what_the_package_says(
    fields: dict[str, Any],
) -> None:
    def explained() -> list[str]:
        targets = read_manifest(yaml.safe_dump(fields).encode()).default_targets
        return [str(each.of) for each in targets]

    assert explained() == ["above_threshold"]
    bare = [{"key": each, "label": each} for each in ("benign", "malignant")]
    fields |= {"task": "classification-multiclass", "outputs": [{"classes": bare}]}
    fields["selftests"][0]["logits"] = [0.5, 1.5]
    assert explained() == ["top1"]
    bare[1]["threshold"] = 0.3
    assert explained() == ["above_threshold"]
    del bare[1]["threshold"]
    fields |= {
        "task": "classification-multilabel",
        "explain": {"default_targets": [{"of": "malignant"}]},
    }
    assert explained() == ["malignant"]


def test_all_defects_are_named_at_once(fields: dict[str, Any]) -> None:
    del fields["title"]
    fields["files"][0]["bytes"] = -1
    fields["extra/field~"] = 1
    assert {pointer for pointer, _ in defects(fields)} == {
        "/title",
        "/files/0/bytes",
        "/extra~1field~0",
    }


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (b"a:\n- b: &x 1\n", "/a/0/b", "Anchors .* line 2, column 6"),
        (b"b: *x\n", "/b", "Aliases .* line 1, column 4"),
        (b"id: a\ntitle: b\nid: c\n", "/id", "The key 'id' of line 1 is given again at line 3"),
        (b"a: {b: 1}\nc: [0, {d: 1, d: 2}]\n", "/c/1/d", "The key 'd' of line 2 .* line 2"),
    ],
)
def test_strict_yaml_is_told_at_its_place(text: bytes, place: str, words: str) -> None:
    ((pointer, message),) = defects(text)
    assert pointer == place
    assert re.search(words, message)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a: [1, 2\n", "line 2, column 1"),
        (b"a: !!python/object/apply:os.system ['true']\n", "not valid YAML at line 1"),
        (b"a: \xff\n", "UTF-8"),
        (b"[" * 20_000, "not YAML"),
        (b"x" * (LARGEST + 1), "bytes at most"),
        (b"", "mapping"),
        (b"- a\n- b\n", "mapping"),
        (b"? [a]\n: b\n", "not valid YAML"),
        (b"a: 2021-99-99\n", "not YAML"),
    ],
)
def test_yaml_that_is_not_taken_is_told(text: bytes, words: str) -> None:
    ((pointer, message),) = defects(text)
    assert pointer == ""
    assert words in message


def test_no_value_of_the_manifest_is_echoed(fields: dict[str, Any]) -> None:
    for name in fields:
        assert "CANARY" not in str(defects({**fields, name: {"x": "CANARY"}}))


@settings(max_examples=300, deadline=None)
@given(text=st.binary(max_size=60) | st.text("{}[]:,-&*!?|>'\"#%@ \nab1.", max_size=60))
def test_any_bytes_are_refused_in_our_own_words(text: bytes | str) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    assert defects(data)


def test_the_published_schema_takes_what_we_take(fields: dict[str, Any]) -> None:
    schema = manifest_schema()
    jsonschema.validate(fields, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**fields, "titel": "x"}, schema)


GRIDS = ([4, 6], [4, 0], ["4", "6"], [4.5, 6], [4], None)


@pytest.mark.parametrize(
    "tokens",
    [
        {},
        *({"grid": grid} for grid in GRIDS),
        *({"stages": [grid]} for grid in GRIDS),
        *({"grid": [4, 6], "prefix": prefix} for prefix in (0, 1, True, "1", -1, 65)),
        *({"grid": [4, 6], "read": read} for read in ("mean", "class_token", "cls", None)),
        {"grid": [4, 6], "prefix": 1, "read": "class_token"},
        {"grid": [4, 6], "stages": [[4, 6]]},
        {"grid": [4, 6], "stages": []},
        {"stages": []},
        {"stages": [[4, 6], [2, 3, 1]]},
        *({"stages": [[4, 6]], **more} for more in ({"prefix": 1}, {"prefix": 0})),
        *({"stages": [[4, 6]], "read": read} for read in ("mean", "class_token", None)),
    ],
    ids=str,
)
def test_the_published_schema_of_tokens_takes_what_we_take(
    fields: dict[str, Any], tokens: dict[str, Any]
) -> None:
    fields["inputs"][0]["steps"] = [{"name": "resize", "parameters": {"size": [4, 6]}}]
    fields["tokens"] = tokens
    published = jsonschema.Draft202012Validator(manifest_schema()).is_valid(fields)
    try:
        read_manifest(yaml.safe_dump(fields).encode())
        taken = True
    except InvalidPackage:
        taken = False
    assert published == taken
