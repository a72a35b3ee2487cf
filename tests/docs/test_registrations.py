"""The pages that lead through registrations, executed: from files to a first explanation.

Each section's commands are run and its ``model.yaml`` written, with small or untrained
weights; the package goes through a gateway to a worker, and what the section asks at its
end is asked of a study. What the model then says is what its own program says.
"""

import io
import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pydicom
import pytest
import torch
import yaml
from onnxruntime import quantization
from safetensors.torch import load_file, save_file

from examples.planted.dicom import plate
from examples.planted.pictures import shapes
from service.command.main import _parser, main
from service.domain.grid import Grid
from service.domain.inputs import SlidingWindow, StepChoice
from service.manifests import read_manifest
from tests.docs.test_detection import own_program as detected
from tests.docs.test_detection import write_package as write_detector
from tests.support import journey
from tests.support.detector import Exported
from tests.support.foreign import write_bundle, write_nnunet
from tests.support.layouts.drawn import drawn
from tests.support.phantom_dicom import encoded
from tests.support.registrations import PAGE, SECTIONS, asked, commands, run, said
from tests.support.small_model import picture, write_image
from tests.support.volumes import Series, enhanced
from tests.support.volumes import facts as volume_facts
from workers.architectures.base import ARCHITECTURES
from workers.stages.prepare import parse_steps
from workers.state_dicts import install
from workers.steps.base import StepImage
from workers.tiling import Tiling

ROOT = Path(__file__).parents[2]
PHANTOM = ROOT / "models" / "chest-phantom"
LAYOUTS = json.loads((ROOT / "tests" / "support" / "layouts" / "published.json").read_text())


def write_yaml(title, answer, size=None):
    """Put what a person says into model.yaml, with the logits of his own program.

    `answer` is that program: gray between 0 and 1 to logits. Another `size` of the
    image than the page's is quicker.
    """
    path = Path("package/model.yaml")
    begun = yaml.safe_load(path.read_text()) if path.exists() else {}
    fields = begun | said(title)
    resize = fields["inputs"][0]["steps"][2]["parameters"]
    resize["size"] = resize["size"] if size is None else [size, size]
    stored = picture(rows=resize["size"][0], columns=resize["size"][1])
    write_image(Path("package/ordinary.dcm"), stored)
    write_image(Path("package/inverted.dcm"), stored, inverted=True)
    for each in fields["selftests"]:
        each["logits"] = told(answer, stored)
    path.write_text(yaml.safe_dump(fields, sort_keys=False))


def told(answer, stored):
    """Return what the own program says of a picture's stored values."""
    return [float(each) for each in answer(torch.from_numpy(stored.astype(np.float32)) / 4095)]


def served(client, title):
    """Seal and add the package as the section says; return what the gateway tells of it."""
    assert run(title, "seal") == 0
    assert run(title, "add") == 0
    name = asked(title)["model"]
    (entry,) = client.get(f"/v1/models/{name}").raise_for_status().json()["models"]
    assert entry["state"] == "ready"
    return entry


def explained(client, title, *files):
    """Send a study and ask what the section asks; return the finished job.

    It succeeded, and a DICOM object that draws its map came back into the same study.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, each in enumerate(files):
            archive.writestr(f"{number}", each)
    study = client.post(
        "/v1/studies", content=buffer.getvalue(), headers={"Content-Type": "application/zip"}
    ).raise_for_status()
    body = asked(title) | {"study": study.json()["id"], "artifacts": ["dicom_sc", "npy"]}
    job = journey.explain(client, body)
    assert job["state"] == "succeeded", job["failure"]
    (result,) = job["results"]
    assert result["status"] == "succeeded", result["reason"]
    assert result["method"] == body["methods"][0]
    found = {}
    for each in result["artifacts"]:
        path = f"/v1/explanations/{job['id']}/artifacts/{each['name']}"
        found[each["format"]] = client.get(path).raise_for_status().content
    assert np.abs(np.load(io.BytesIO(found["npy"]))).max() > 0
    source, made = (pydicom.dcmread(io.BytesIO(each)) for each in (files[0], found["dicom_sc"]))
    assert made.StudyInstanceUID == source.StudyInstanceUID
    return job


def film(tmp_path, size, seed=9):
    """Return another picture than the self-tests', its stored values and its DICOM file."""
    stored = picture(seed, size, size)
    return stored, write_image(tmp_path / "film.dcm", stored).read_bytes()


def logits_of(job):
    """Return what the model said of every class."""
    return [each["logit"] for each in job["predictions"]]


def network(fields, weights):
    """Return the network that a manifest names, with weights under their foreign names."""
    architecture = ARCHITECTURES[fields["architecture"]["name"]].model_validate(
        fields["architecture"]["parameters"]
    )
    built = architecture.build()
    dummy = [{"path": each["path"], "sha256": "0" * 64, "bytes": 1} for each in fields["files"]]
    files = [file | more for file, more in zip(fields["files"], dummy, strict=True)]
    manifest = read_manifest(yaml.safe_dump(fields | {"files": files}).encode())
    install(built, weights, manifest, architecture)
    return built.eval()


def floats(weights):
    return {name: each.float() for name, each in weights.items()}


def own_program(fields, weights, mean, std):
    """The program that the model was trained with: gray in three channels, then the network."""
    model = network(fields, weights)

    def answer(gray):
        apart = (-1, 1, 1)
        image = (gray - torch.tensor(mean).view(apart)) / torch.tensor(std).view(apart)
        with torch.no_grad():
            return model(image[None])[0]

    return answer


def test_a_densenet_for_chest_films(engineer, tmp_path):
    title = "A DenseNet-121 for chest films"
    tensors = {
        f"module.{name}": shape
        for name, shape in LAYOUTS["torchvision/densenet121"].items()
        if not name.startswith("classifier") and "num_batches" not in name
    }
    head = {"module.classifier.0.weight": [3, 1024], "module.classifier.0.bias": [3]}
    weights = floats(drawn(tensors | head))
    torch.save({"state_dict": weights, "epoch": 7}, "checkpoint.pt")
    assert run(title, "convert") == 0
    step = said(title)["inputs"][0]["steps"][3]["parameters"]
    answer = own_program(said(title), weights, step["mean"], step["std"])
    write_yaml(title, answer, size=64)
    entry = served(engineer, title)
    assert {"grad_cam", "integrated_gradients", "class_activation_map"} <= set(entry["methods"])
    assert entry["classes"][2]["not_for_use"]
    stored, file = film(tmp_path, 64)
    job = explained(engineer, title, file)
    assert logits_of(job) == pytest.approx(told(answer, stored), rel=1e-4, abs=1e-4)


TIMM = {
    "first": "cls_token",
    "positions": "pos_embed",
    "embed.": "patch_embed.proj.",
    ".attention.queries_keys_values.": ".attn.qkv.",
    ".attention.mixed.": ".attn.proj.",
    ".perceptron.0.": ".mlp.fc1.",
    ".perceptron.2.": ".mlp.fc2.",
}


def test_a_vision_transformer(engineer, tmp_path):
    title = "A vision transformer"
    vit = ARCHITECTURES["vit"].model_validate(said(title)["architecture"]["parameters"])
    weights = {}
    for name, each in vit.build().state_dict().items():
        foreign = name
        for ours, theirs in TIMM.items():
            foreign = foreign.replace(ours, theirs)
        weights[foreign] = each[None] if foreign in ("cls_token", "pos_embed") else each
    weights = floats(drawn({name: each.shape for name, each in weights.items()}))
    save_file(weights, "package/model.safetensors")
    answer = own_program(said(title), weights, [0.5] * 3, [0.5] * 3)
    write_yaml(title, answer)
    entry = served(engineer, title)
    assert {"attention_rollout", "gradient_attention", "grad_cam"} <= set(entry["methods"])
    stored, file = film(tmp_path, 224)
    job = explained(engineer, title, file)
    assert logits_of(job) == pytest.approx(told(answer, stored), rel=1e-3, abs=1e-3)


def test_a_monai_bundle(engineer, tmp_path):
    title = "A MONAI bundle"
    dense = {
        "spatial_dims": 2,
        "in_channels": 1,
        "out_channels": 2,
        "init_features": 8,
        "growth_rate": 4,
        "block_config": [2, 2],
    }
    write_bundle(Path("bundle"), network={"_target_": "DenseNet", **dense})
    torch.manual_seed(0)
    model = ARCHITECTURES["densenet"].model_validate(dense).build().eval()
    torch.save(model.state_dict(), "bundle/models/model.pt")
    Path("package").rmdir()
    assert run(title, "import") == 3
    assert run(title, "convert") == 0

    def answer(gray):
        return model(gray[None, None])[0].detach()

    write_yaml(title, answer)
    entry = served(engineer, title)
    assert (entry["name"], entry["version"]) == ("breast-density", "0.5.3")
    assert "grad_cam" in entry["methods"]
    stored, file = film(tmp_path, 64)
    job = explained(engineer, title, file)
    assert logits_of(job) == pytest.approx(told(answer, stored), rel=1e-4, abs=1e-4)
    (first,) = job["results"]  # no class has a threshold, so the likelier one is explained
    assert first["target"]["index"] == int(np.argmax(told(answer, stored)))


def whole(fields, series):
    """Return a series as the package's steps prepare it, shape ``(1, C, *spatial)``."""
    steps = [StepChoice.model_validate(each) for each in fields["inputs"][0]["steps"]]
    image = StepImage(series.values[None], None, Grid.identity(series.shape), series.affine)
    for step in parse_steps(steps):
        image = step.apply(image, volume_facts(series))
    return torch.from_numpy(np.ascontiguousarray(image.values))[None]


def volume_logits(fields, weights):
    """What the publisher's own program says: nnU-Net's way, fold by fold."""
    image = whole(fields, Series())
    tiling = Tiling(SlidingWindow.model_validate(fields["sliding_window"]), image.shape[2:])
    assert tiling.count > 1
    total = torch.zeros(3, *image.shape[2:])
    for each in weights:
        model = network(fields, each)
        for window, box in enumerate(tiling.boxes):
            with torch.no_grad():
                answer = model(image[:, :, *box])[0]
            total[:, *box] += tiling.share(window) * answer / len(weights)
    return total.flatten(1)


def test_a_network_for_volumes(engineer):
    title = "An nnU-Net"
    folder = write_nnunet(Path("nnUNetTrainer__nnUNetPlans__3d_fullres"), folds=2)
    layout = json.loads((ROOT / "tests/support/layouts/small.json").read_text())["nnunet/3d"]
    folds = []
    for number in range(2):
        weights = {k: v * (1 + number) for k, v in floats(drawn(layout["tensors"])).items()}
        folds.append(weights)
        torch.save(
            {"network_weights": weights, "init_args": {"fold": np.int64(number)}},
            folder / f"fold_{number}" / "checkpoint_final.pth",
        )
    Path("package").rmdir()
    assert run(title, "import") == 3
    assert run(title, "convert") == 0
    path = Path("package/model.yaml")
    begun = yaml.safe_load(path.read_text())
    fields = begun | said(title)
    named = [each["name"] for each in fields["inputs"][0]["steps"]]
    assert named == ["orient", *(each["name"] for each in begun["inputs"][0]["steps"])]
    Path("package/ordinary.dcm").write_bytes(encoded(enhanced(Series())))
    logits = volume_logits(fields, folds)
    fields["selftests"][0]["logits"] = logits.mean(1).tolist()
    path.write_text(yaml.safe_dump(fields, sort_keys=False))
    entry = served(engineer, title)
    assert {"saliency", "grad_cam", "occlusion"} <= set(entry["methods"])
    assert "window by window" in entry["refused"]["score_cam"]
    job = explained(engineer, title, *Series().files())
    assert job["subject"]["volume"]["slices"] == Series().shape[0]
    assert logits_of(job) == pytest.approx(logits.amax(1).tolist(), rel=1e-3, abs=1e-3)


def onnx_program(path):
    """The program that an ONNX file of the chest phantom was made with."""
    session = onnxruntime.InferenceSession(path)
    return lambda gray: session.run(None, {"image": ((gray - 0.5) / 0.3)[None, None].numpy()})[0][0]


def test_an_onnx_file(engineer, tmp_path):
    title = "An ONNX file"
    shutil.copyfile(PHANTOM / "model.onnx", "chest.onnx")
    answer = onnx_program("chest.onnx")
    Path("package").rmdir()
    assert run(title, "import") == 3
    write_yaml(title, answer)
    entry = served(engineer, title)
    assert {"occlusion", "rise"} <= set(entry["methods"])
    stored, file = film(tmp_path, 128)
    job = explained(engineer, title, file)
    assert logits_of(job) == pytest.approx(told(answer, stored), rel=1e-4, abs=1e-4)


class Cases(quantization.CalibrationDataReader):
    """Some of the cases that the phantom's network was validated on."""

    def __init__(self):
        images = load_file(PHANTOM / "calibration" / "cases.safetensors")["images"]
        self.left = [{"image": images[:16].float().numpy()}]

    def get_next(self):
        return self.left.pop() if self.left else None


def test_a_quantized_onnx_file(engineer, tmp_path):
    title = "A quantized ONNX file"
    quantization.quantize_static(
        PHANTOM / "model.onnx",
        "chest-int8.onnx",
        Cases(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
    )
    answer = onnx_program("chest-int8.onnx")
    Path("package").rmdir()
    assert run(title, "import") == 3
    write_yaml(title, answer)
    entry = served(engineer, title)
    assert "integrated_gradients" in entry["surrogate"]["methods"]
    assert "occlusion" not in entry["surrogate"]["methods"]
    stored, file = film(tmp_path, 128)
    job = explained(engineer, title, file)
    (result,) = job["results"]
    assert result["executed_on"] == "surrogate"
    assert logits_of(job) == pytest.approx(told(answer, stored), abs=0.2)


def test_a_detector(engineer):
    title = "A detector as an ONNX file"
    write_detector(Exported().eval())
    entry = served(engineer, title)
    assert entry["target_kinds"] == ["detection"]
    assert [each["threshold"] for each in entry["classes"]] == [0.5, 0.5]
    assert {"layer_cam", "integrated_gradients", "occlusion"} <= set(entry["methods"])
    assert entry["default_targets"][0]["of"] == "cyst"
    another = shapes(4_790, {"cyst": 2, "stone": 1})
    job = explained(engineer, title, encoded(plate(another, "another", "KIDNEY")))
    _, boxes = detected(onnxruntime.InferenceSession("detector.onnx"), another)
    found = {each["key"]: [box["box"] for box in each["detections"]] for each in job["predictions"]}
    for of, mine in found.items():
        theirs = [each["box"] for each in boxes if each["of"] == of]
        np.testing.assert_allclose(sorted(mine), sorted(theirs), atol=0.1)
    assert len(found["cyst"]) == 2


@pytest.mark.parametrize("title", [each for each in SECTIONS if "```sh" in SECTIONS[each]])
def test_every_command_is_one_that_the_program_understands(title):
    for words in commands(title):
        assert callable(_parser(words[0]).parse_args(words).run)


def test_every_verb_of_the_table_is_there(capsys):
    with pytest.raises(SystemExit):
        main(["models", "--help"])
    verbs = capsys.readouterr().out
    for verb in re.findall(r"^\| `whylight models (\w+)`", PAGE, re.MULTILINE):
        assert verb in verbs
