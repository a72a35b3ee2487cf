"""The page that leads through registrations, executed: files, commands, and what a worker finds."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from safetensors.torch import save_file

from service.command.main import _parser, main
from service.domain.grid import Grid
from service.domain.inputs import SlidingWindow, StepChoice
from service.manifests import read_manifest
from tests.support.foreign import write_bundle, write_nnunet
from tests.support.layouts.drawn import drawn
from tests.support.phantom_dicom import encoded
from tests.support.small_model import picture, write_image
from tests.support.volumes import Series, enhanced
from tests.support.volumes import facts as volume_facts
from workers.architectures.base import ARCHITECTURES
from workers.sliding.tiling import Tiling
from workers.stages.prepare import parse_steps
from workers.state_dicts import install
from workers.steps.base import StepImage

ROOT = Path(__file__).parents[2]
PAGE, DETECTION, VOLUMES = (
    (ROOT / "docs" / "models" / name).read_text()
    for name in ("index.md", "detection.md", "volumes.md")
)
SECTIONS = {
    title: text
    for part in re.split(r"^## ", PAGE + DETECTION + VOLUMES, flags=re.MULTILINE)
    for title, _, text in [part.partition("\n")]
}
LAYOUTS = json.loads((ROOT / "tests" / "support" / "layouts" / "published.json").read_text())


def commands(title):
    """Return the lines of a section's shell blocks that are commands of ours."""
    blocks = re.findall(r"```sh\n(.*?)```", SECTIONS[title], re.DOTALL)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]


def run(title, verb):
    """Run a section's lines of one verb; return the last exit status."""
    (words,) = [each for each in commands(title) if each[1] == verb]
    return main(words)


def said(title):
    """Return what a section has a person say."""
    (block,) = re.findall(r"```yaml\n(.*?)```", SECTIONS[title], re.DOTALL)
    return yaml.safe_load(block)


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
    size = resize["size"][0]
    stored = picture(rows=size, columns=size)
    write_image(Path("package/ordinary.dcm"), stored)
    write_image(Path("package/inverted.dcm"), stored, inverted=True)
    logits = answer(torch.from_numpy(stored.astype(np.float32)) / 4095)
    for each in fields["selftests"]:
        each["logits"] = [float(value) for value in logits]
    path.write_text(yaml.safe_dump(fields, sort_keys=False))
    return fields


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


def test_a_densenet_for_chest_films(desk):
    title = "A DenseNet-121 for chest films"
    shapes = {
        f"module.{name}": shape
        for name, shape in LAYOUTS["torchvision/densenet121"].items()
        if not name.startswith("classifier") and "num_batches" not in name
    }
    head = {"module.classifier.0.weight": [3, 1024], "module.classifier.0.bias": [3]}
    weights = floats(drawn(shapes | head))
    torch.save({"state_dict": weights, "epoch": 7}, "checkpoint.pt")
    assert run(title, "convert") == 0
    step = said(title)["inputs"][0]["steps"][3]["parameters"]
    write_yaml(title, own_program(said(title), weights, step["mean"], step["std"]), size=64)
    assert run(title, "seal") == 0
    entry = desk()
    assert entry.state == "ready", entry.failure
    assert {"grad_cam", "integrated_gradients", "class_activation_map"} <= set(entry.methods)
    assert entry.classes[2].not_for_use


TIMM = {
    "first": "cls_token",
    "positions": "pos_embed",
    "embed.": "patch_embed.proj.",
    ".attention.queries_keys_values.": ".attn.qkv.",
    ".attention.mixed.": ".attn.proj.",
    ".perceptron.0.": ".mlp.fc1.",
    ".perceptron.2.": ".mlp.fc2.",
}


def test_a_vision_transformer(desk):
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
    write_yaml(title, own_program(said(title), weights, [0.5] * 3, [0.5] * 3))
    assert run(title, "seal") == 0
    entry = desk()
    assert entry.state == "ready", entry.failure
    assert {"attention_rollout", "gradient_attention", "grad_cam"} <= set(entry.methods)


def test_a_monai_bundle(desk):
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
    write_yaml(title, lambda gray: model(gray[None, None])[0].detach())
    assert run(title, "seal") == 0
    entry = desk()
    assert entry.state == "ready", entry.failure
    assert (entry.name, entry.version) == ("breast-density", "0.5.3")
    assert "grad_cam" in entry.methods


def mean_logits(fields, weights):
    """What the publisher's own program says: nnU-Net's way, fold by fold."""
    series = Series()
    steps = [StepChoice.model_validate(each) for each in fields["inputs"][0]["steps"]]
    image = StepImage(series.values[None], None, Grid.identity(series.shape), series.affine)
    for step in parse_steps(steps):
        image = step.apply(image, volume_facts(series))
    whole = torch.from_numpy(np.ascontiguousarray(image.values))[None]
    tiling = Tiling(SlidingWindow.model_validate(fields["sliding_window"]), whole.shape[2:])
    assert tiling.count > 1
    total = torch.zeros(3, *whole.shape[2:])
    for each in weights:
        model = network(fields, each)
        for window, box in enumerate(tiling.boxes):
            with torch.no_grad():
                answer = model(whole[:, :, *box])[0]
            total[:, *box] += tiling.share(window) * answer / len(weights)
    return total.flatten(1).mean(1)


def test_an_nnunet(desk):
    title = "An nnU-Net"
    folder = write_nnunet(Path("nnUNetTrainer__nnUNetPlans__3d_fullres"), folds=2)
    shapes = json.loads((ROOT / "tests/support/layouts/small.json").read_text())["nnunet/3d"]
    folds = []
    for number in range(2):
        weights = {k: v * (1 + number) for k, v in floats(drawn(shapes["tensors"])).items()}
        folds.append(weights)
        torch.save(
            {"network_weights": weights, "init_args": {"fold": np.int64(number)}},
            folder / f"fold_{number}" / "checkpoint_final.pth",
        )
    Path("package").rmdir()
    assert run(title, "import") == 3
    for words in commands(title):
        if words[1] == "convert":
            assert main(words) == 0
    path = Path("package/model.yaml")
    begun = yaml.safe_load(path.read_text())
    fields = begun | said(title)
    named = [each["name"] for each in fields["inputs"][0]["steps"]]
    assert named == ["orient", *(each["name"] for each in begun["inputs"][0]["steps"])]
    Path("package/ordinary.dcm").write_bytes(encoded(enhanced(Series())))
    fields["selftests"][0]["logits"] = mean_logits(fields, folds).tolist()
    path.write_text(yaml.safe_dump(fields, sort_keys=False))
    assert run(title, "seal") == 0
    entry = desk()
    assert entry.state == "ready", entry.failure
    assert {"saliency", "grad_cam", "occlusion"} <= set(entry.methods)
    assert "window by window" in entry.refused["score_cam"]


def test_an_onnx_file(desk):
    title = "An ONNX file"
    shutil.copyfile(ROOT / "models" / "chest-phantom" / "model.onnx", "chest.onnx")
    session = onnxruntime.InferenceSession("chest.onnx")
    Path("package").rmdir()
    assert run(title, "import") == 3

    def answer(gray):
        return session.run(None, {"image": ((gray - 0.5) / 0.3)[None, None].numpy()})[0][0]

    write_yaml(title, answer)
    assert run(title, "seal") == 0
    entry = desk()
    assert entry.state == "ready", entry.failure
    assert {"occlusion", "rise"} <= set(entry.methods)


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
