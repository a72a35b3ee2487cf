"""Packages begun from what others publish: what they say is taken, what they do not is asked."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import yaml
from safetensors.torch import save_file

from service.errors.models import InvalidPackage
from service.manifests import read_manifest
from tests.support.foreign import UNET, write_bundle, write_nnunet
from workers.architectures.base import ARCHITECTURES
from workers.steps.base import STEPS

ONNX = Path(__file__).parents[3] / "models" / "chest-phantom" / "model.onnx"
PERSON = {
    "version": "1.0.0",
    "license": "Apache-2.0",
    "publisher": "Tests",
    "intended_use": "Tests.",
    "not_for": "Anything else.",
    "task": "classification-multiclass",
}
"""What no foreign document says."""

TEST = {"title": "one", "input": "a.dcm", "tolerance": 0.1}
DICOM = {
    "role": "selftest",
    "format": "dicom",
    "path": "a.dcm",
    "sha256": "0" * 64,
    "bytes": 1,
}


def completed(fields, **more):
    """Say what was still to be said; the result must be a manifest."""
    files = [*fields.get("files", more.pop("files", [])), DICOM]
    said = {key: value for key, value in PERSON.items() if key not in fields}
    complete = {**fields, **said, "files": files, **more}
    logits = [0.0] * len(complete["outputs"][0]["classes"])
    complete["selftests"] = [TEST | {"logits": logits}]
    return read_manifest(yaml.safe_dump(complete).encode())


def test_a_bundle_gives_its_names_tensors_and_network(imported, tmp_path):
    bundle = write_bundle(tmp_path / "bundle")
    torch.manual_seed(0)
    save_file({"w": torch.ones(2)}, bundle / "models" / "model.safetensors")
    fields, said = imported(bundle)
    assert fields["id"] == "breast-density"
    assert fields["version"] == "0.5.3"
    assert fields["publisher"] == "An academic center"
    assert fields["inputs"][0]["accept"] == {"modalities": ["MG"]}
    assert [each["key"] for each in fields["outputs"][0]["classes"]] == ["fatty", "dense"]
    assert fields["files"][0]["path"] == "model.safetensors"
    network = fields["architecture"]
    assert network["name"] == "unet"
    assert ARCHITECTURES["unet"].model_validate(network["parameters"]).channels == (4, 8)
    assert set(said) == {
        "/license",
        "/not_for",
        "/task",
        "/selftests",
        "/inputs/0/steps",
        "/outputs/0/classes",
    }
    assert "Breast density classification" in said["/task"]
    assert "[0, 1]" in said["/inputs/0/steps"]
    assert completed(fields).ref == "breast-density@0.5.3"


def test_what_was_read_is_to_be_looked_at_and_not_to_be_said(whylight, tmp_path):
    """A copyright is no license, and is not told as one."""
    _, out, _ = whylight("models", "import", write_bundle(tmp_path / "bundle"), tmp_path / "begun")
    said, looked = out.split("Taken over, and to be looked at:")
    assert "/license: This field is required" in said
    assert "names none" in said
    assert "academic" not in out
    assert "/outputs/0/classes" not in said
    assert "/outputs/0/classes: Check the order" in looked


@pytest.mark.parametrize(
    "network",
    [
        {**UNET, "in_channels": "@channels"},
        {**UNET, "channels": ["$__import__('os').system('touch flag')"]},
        {"_target_": "scripts.ours.Net", "in_channels": 1},
        "$__import__('os').system('touch flag')",
    ],
)
def test_nothing_of_a_bundle_is_evaluated(imported, tmp_path, monkeypatch, network):
    monkeypatch.chdir(tmp_path)
    fields, said = imported(write_bundle(tmp_path / "bundle", network=network))
    assert "architecture" not in fields
    assert "/architecture" in said
    assert not (tmp_path / "flag").exists()


def test_a_bundles_pickle_is_not_taken_and_the_way_is_told(imported, tmp_path):
    fields, said = imported(write_bundle(tmp_path / "bundle"))
    assert "files" not in fields
    assert "whylight models convert models/model.pt" in said["/files"]
    assert not list((tmp_path / "begun").glob("*.pt"))


def test_a_bundle_with_a_graph_brings_the_graph(imported, tmp_path):
    bundle = write_bundle(tmp_path / "bundle")
    shutil.copyfile(ONNX, bundle / "models" / "model.onnx")
    fields, _ = imported(bundle)
    assert (fields["runtime"], fields["files"][0]["role"]) == ("onnx", "forward")


def test_an_nnunet_gives_its_plans(imported, tmp_path):
    fields, said = imported(write_nnunet(tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres"))
    parameters = fields["architecture"]["parameters"]
    network = ARCHITECTURES["plain_conv_unet"].model_validate(parameters)
    assert (network.input_channels, network.num_classes, network.axes) == (1, 3, 3)
    assert fields["key_map"] == {"layout": "nnunet"}
    assert fields["inputs"][0]["kind"] == "volume"
    assert fields["inputs"][0]["accept"]["modalities"] == ["CT"]
    assert [each["key"] for each in fields["outputs"][0]["classes"]] == [
        "background",
        "spleen",
        "tumor",
    ]
    assert "--key network_weights" in said["/files"]
    assert "CC-BY-SA" in said["/license"]
    assert "version" not in fields


def test_an_nnunets_steps_are_its_normalization_of_ct(imported, tmp_path):
    fields, _ = imported(write_nnunet(tmp_path / "spleen"))
    steps = {each["name"]: each["parameters"] for each in fields["inputs"][0]["steps"]}
    assert steps["resample"]["spacing"] == [3.0, 0.8, 0.8]
    for name, parameters in steps.items():
        STEPS[name].model_validate(parameters)
    values = np.array([-500.0, -50.0, 60.0, 140.0, 900.0])
    window, normal = steps["window"], steps["normalize"]
    low = window["center"] - window["width"] / 2
    scaled = np.clip((values - low) / window["width"], 0, 1)
    ours = (scaled - normal["mean"][0]) / normal["std"][0]
    np.testing.assert_allclose(ours, (np.clip(values, -50, 150) - 60) / 40, atol=1e-12)


def test_an_nnunet_of_slices_is_told_the_spacing_that_nothing_here_brings(imported, tmp_path):
    plan = {"patch_size": [64, 64], "spacing": [0.7, 0.65]}
    fields, said = imported(write_nnunet(tmp_path / "slices", plan))
    names = [each["name"] for each in fields["inputs"][0]["steps"]]
    assert names == ["crop_foreground", "window", "normalize"]
    assert "trained on pixels 0.7 x 0.65 mm apart" in said["/inputs/0/steps"]
    assert "another spacing" in said["/inputs/0/steps"]
    for of_volumes in ("orient", "splines"):
        assert of_volumes not in said["/inputs/0/steps"]


def test_an_nnunets_windows_crop_and_folds_are_taken(imported, tmp_path):
    fields, said = imported(write_nnunet(tmp_path / "spleen", folds=2))
    assert fields["sliding_window"] == {
        "size": [8, 16, 16],
        "overlap": 0.5,
        "blend": "gaussian",
        "convention": "nnunet",
    }
    names = [each["name"] for each in fields["inputs"][0]["steps"]]
    assert names == ["crop_foreground", "window", "normalize", "resample"]
    assert fields["members"] == {"weights": ["fold_0.safetensors", "fold_1.safetensors"]}
    assert "fold_1/checkpoint_final.pth fold_1.safetensors" in said["/files"]
    assert "mirrors" in said["/sliding_window"]
    weights = [
        {**DICOM, "role": "weights", "format": "safetensors", "path": path}
        for path in fields["members"]["weights"]
    ]
    manifest = completed(fields, files=weights)
    assert manifest.sliding_window.size == (8, 16, 16)


@pytest.mark.parametrize(("masked", "over"), [(True, "nonzero"), (False, "all")])
def test_an_nnunets_other_images_are_standardized(imported, tmp_path, masked, over):
    plan = {
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [masked],
    }
    fields, _ = imported(write_nnunet(tmp_path / "brain", plan))
    steps = {each["name"]: each["parameters"] for each in fields["inputs"][0]["steps"]}
    assert steps["standardize"] == {"over": over}
    assert "members" not in fields


def test_an_nnunet_of_several_series_is_told_not_to_be_one_volume(imported, tmp_path):
    folder = write_nnunet(tmp_path / "lesions")
    dataset = json.loads((folder / "dataset.json").read_text())
    channels = {"channel_names": {"0": "CT", "1": "PET"}}
    (folder / "dataset.json").write_text(json.dumps(dataset | channels))
    _, said = imported(folder)
    assert "2 channels, each of a series of its own (CT, PET)" in said["/inputs"]


def test_a_normalization_that_is_none_of_ours_is_told(imported, tmp_path):
    plan = {"normalization_schemes": ["RGBTo01Normalization"]}
    _, said = imported(write_nnunet(tmp_path / "slides", plan))
    assert "RGBTo01Normalization" in said["/inputs/0/steps"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"norm_op": "torch.nn.modules.batchnorm.BatchNorm3d"}, "norm_op is 'BatchNorm3d'"),
        ({"norm_op_kwargs": {"eps": 1e-3, "affine": True}}, "eps of norm_op is 0.001"),
        ({"nonlin": "torch.nn.GELU", "nonlin_kwargs": None}, "nonlin is 'GELU'"),
        ({"nonlin_kwargs": {"negative_slope": 0.2}}, "negative_slope of nonlin is 0.2"),
        ({"nonlin": None}, "nonlin is 'None'"),
        ({"nonlin_first": True}, "nonlin_first is true"),
    ],
)
def test_a_network_of_nnunets_that_differs_from_ours_is_not_taken_for_it(
    imported, tmp_path, arguments, words
):
    fields, said = imported(write_nnunet(tmp_path / "spleen", **arguments))
    assert "architecture" not in fields
    assert words in said["/architecture"]
    assert "ONNX" in said["/architecture"]


def test_another_class_of_nnunets_networks_is_told(imported, tmp_path):
    residual = {"network_class_name": "a.b.ResidualEncoderUNet", "arch_kwargs": {}}
    fields, said = imported(write_nnunet(tmp_path / "spleen", {"architecture": residual}))
    assert "architecture" not in fields
    assert "ResidualEncoderUNet" in said["/architecture"]


@pytest.mark.parametrize("size", [[96, 96], 96])
def test_a_bundles_windows_are_taken(imported, tmp_path, size):
    bundle = write_bundle(tmp_path / "bundle")
    path = bundle / "configs" / "inference.json"
    inferer = {"_target_": "monai.inferers.SlidingWindowInferer", "roi_size": size}
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"inferer": {**inferer, "mode": "gaussian"}}))
    fields, said = imported(bundle)
    windows = {"size": [96, 96], "overlap": 0.25, "blend": "gaussian"}
    assert fields["sliding_window"] == windows
    assert "SlidingWindowInferer" in said["/sliding_window"]


def test_a_bundle_of_patches_that_names_no_windows_is_asked_for_them(imported, tmp_path):
    image = {"spatial_shape": ["16*n", "16*n", "16*n"], "is_patch_data": True}
    about = {"network_data_format": {"inputs": {"image": image}}}
    fields, said = imported(write_bundle(tmp_path / "bundle", **about))
    assert "sliding_window" not in fields
    assert "patches" in said["/sliding_window"]


def test_a_graphs_external_data_comes_with_it(imported, tmp_path):
    onnx.save(onnx.load(ONNX), tmp_path / "m.onnx", save_as_external_data=True, location="m.data")
    fields, said = imported(tmp_path / "m.onnx")
    assert [(each["format"], each["path"]) for each in fields["files"]] == [
        ("onnx", "m.onnx"),
        ("onnx_data", "m.data"),
    ]
    assert (tmp_path / "begun" / "m.data").read_bytes() == (tmp_path / "m.data").read_bytes()
    assert "/files" not in said


def test_a_bundles_graph_comes_with_its_external_data(imported, tmp_path):
    bundle = write_bundle(tmp_path / "bundle")
    graph, beside = bundle / "models" / "model.onnx", "model.onnx.data"
    onnx.save(onnx.load(ONNX), graph, save_as_external_data=True, location=beside)
    fields, said = imported(bundle)
    assert [each["path"] for each in fields["files"]] == ["model.onnx", beside]
    assert (tmp_path / "begun" / beside).read_bytes() == graph.with_name(beside).read_bytes()
    assert "/files" not in said


def test_without_the_package_onnx_a_graph_is_not_read_and_what_to_install_is_told(
    whylight, tmp_path, monkeypatch
):
    bundle = write_bundle(tmp_path / "bundle")
    shutil.copyfile(ONNX, bundle / "models" / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "service.drafts.onnx", raising=False)
    for source in (ONNX, bundle):
        status, _, err = whylight("models", "import", source, tmp_path / "begun")
        assert status == 1
        assert "whylight[worker]" in err


def test_external_data_that_is_not_beside_the_graph_is_not_taken(imported, tmp_path):
    model = onnx.load(ONNX)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data")
    (tmp_path / "m.data").unlink()
    (tmp_path / "m.data").symlink_to(ONNX)
    fields, said = imported(tmp_path / "m.onnx")
    assert [each["path"] for each in fields["files"]] == ["m.onnx"]
    assert "'m.data', which is not beside it" in said["/files"]


def test_a_graph_gives_names_and_shapes(imported):
    fields, said = imported(ONNX)
    assert fields["runtime"] == "onnx"
    assert fields["inputs"][0]["name"] == "image"
    assert fields["inputs"][0]["steps"] == [{"name": "resize", "parameters": {"size": [128, 128]}}]
    assert "5" in said["/outputs/0/classes"]
    assert "probabilities" in said["/activation"]
    outputs = [{"name": "logits", "classes": [{"key": key, "label": key} for key in "abcde"]}]
    inputs = [{**fields["inputs"][0], "accept": {"modalities": ["DX"]}}]
    manifest = completed(fields, outputs=outputs, inputs=inputs)
    assert manifest.file("forward", "onnx").path == "model.onnx"


def test_a_graph_that_ends_in_a_sigmoid_is_said_to_put_out_probabilities(imported, tmp_path):
    model = onnx.load(ONNX)
    output = model.graph.output[0]
    model.graph.node.append(onnx.helper.make_node("Sigmoid", [output.name], ["likely"]))
    output.name = "likely"
    onnx.save(model, tmp_path / "ended.onnx")
    fields, said = imported(tmp_path / "ended.onnx")
    assert fields["activation"] == "probabilities"
    assert "/activation" not in said


def test_what_a_draft_lacks_is_what_its_schema_asks_for(imported, tmp_path):
    fields, said = imported(write_bundle(tmp_path / "bundle"))
    with pytest.raises(InvalidPackage) as caught:
        read_manifest(yaml.safe_dump(fields).encode())
    missing = {each["pointer"] for each in caught.value.facts["errors"]}
    assert missing <= set(said)


@pytest.mark.parametrize("content", ["[]", "{", '{"configurations": 3}', '{"configurations": {}}'])
def test_documents_that_are_not_as_they_should_be_are_told(whylight, tmp_path, content):
    folder = write_nnunet(tmp_path / "spleen")
    (folder / "plans.json").write_text(content)
    status, _, err = whylight("models", "import", folder, tmp_path / "begun")
    assert status == 1
    assert "plans.json" in err
    assert not (tmp_path / "begun").exists()


def test_documents_of_other_shapes_are_told(whylight, tmp_path):
    folder = write_nnunet(tmp_path / "spleen")
    (folder / "dataset.json").write_text(
        json.dumps({"labels": [1, 2], "channel_names": {"0": "CT"}})
    )
    status, _, err = whylight("models", "import", folder, tmp_path / "begun")
    assert status == 1
    assert "not as MONAI, nnU-Net or ONNX write them" in err


def test_what_is_none_of_these_and_folders_in_use_are_refused(whylight, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    for source, folder, words in (
        (tmp_path / "nothing", "new", "nothing here"),
        (tmp_path / "used" / "file", "new", "not valid"),
        (ONNX, "used", "not empty"),
    ):
        status, _, err = whylight("models", "import", source, tmp_path / folder)
        assert status == 1
        assert words in err
