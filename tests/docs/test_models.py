"""The pages on models list what there is."""

import json
import re
from pathlib import Path

import yaml

from service.domain.files import SelfTest
from service.domain.inputs import Input, TabularInput
from service.domain.network import Remote
from service.domain.request import ExplanationRequest
from service.domain.tokens import Tokens
from service.domain.view import ViewShare
from service.manifests import read_manifest
from workers.architectures.base import ARCHITECTURES

MODELS = Path(__file__).parents[2] / "docs" / "models"
SHIPPED = Path(__file__).parents[2] / "models"
PAGE = (MODELS / "architectures.md").read_text()
ROWS = re.findall(r"^\| `(\w+)` \| .* \| [\d-]+ \| (.*)\|$", PAGE, re.MULTILINE)


def test_every_network_is_listed_with_its_layouts():
    listed = {name: re.findall(r"`(\w+)`", layouts) for name, layouts in ROWS}
    assert listed == {
        name: sorted(each.layouts, reverse=True) for name, each in ARCHITECTURES.items()
    }


def test_a_model_on_a_server_is_described_as_its_page_says():
    (block,) = re.findall(r"```yaml\n(.*?)```", (MODELS / "remote.md").read_text(), re.DOTALL)
    fields = yaml.safe_load(block)
    remote = Remote.model_validate(fields["remote"])
    assert fields["runtime"] == "remote"
    assert remote.model_fields_set == Remote.model_fields.keys()


def test_tokens_lie_where_the_page_says_of_published_transformers():
    page = (MODELS / "onnx.md").read_text()
    (block,) = re.findall(r"```yaml\n(tokens:.*?)```", page, re.DOTALL)
    (stages,) = re.findall(r"`(stages: .*?)`", page)
    said = (yaml.safe_load(block)["tokens"], yaml.safe_load(stages))
    sizes = {"classes": 2, "channels": 3, "image": [224, 224]}
    vit = {"patch": 16, "width": 768, "depth": 12, "heads": 12}
    swin = {"patch": 4, "width": 96, "depths": [2, 2, 6, 2], "heads": [3, 6, 12, 24], "window": 7}
    for name, shape, fields in (("vit", vit, said[0]), ("swin", swin, said[1])):
        own = ARCHITECTURES[name].model_validate(sizes | shape).tokens()
        told = Tokens.model_validate(fields)
        assert (told.prefix, told.grids) == (own.prefix, own.grids)
        assert told.reads_class == own.reads_class


def test_inputs_are_declared_as_their_page_says():
    page = (MODELS / "inputs.md").read_text()
    beside, bag, images, several = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    declared = yaml.safe_load(beside)["inputs"]
    assert Input.model_validate(yaml.safe_load(bag)["inputs"][0]).bag is not None
    films = yaml.safe_load(images)
    count = Input.model_validate(films["inputs"][0]).images
    assert count is not None
    assert count.least <= len(SelfTest.model_validate(films["selftests"][0]).paths) <= count.most
    shipped = read_manifest((SHIPPED / "bone-age-by-sex-phantom" / "model.yaml").read_bytes())
    assert (TabularInput.model_validate(declared[1]),) == shipped.tabular
    Input.model_validate(declared[0])
    viewed = yaml.safe_load(several)
    ours = read_manifest((SHIPPED / "four-view-phantom" / "model.yaml").read_bytes())
    assert Input.model_validate(viewed["inputs"][0]).views == ours.image.views
    keys = [each.key for each in ours.image.views]
    assert list(SelfTest.model_validate(viewed["selftests"][0]).input) == keys


def test_a_view_is_told_as_its_page_says():
    page = (MODELS / "inputs.md").read_text()
    asked, share = re.findall(r"```json\n(.*?)```", page.split("## Several views")[1], re.DOTALL)
    request = ExplanationRequest.model_validate_json(asked.replace("st_...", "st_1"))
    assert request.model == "four-view-phantom"
    told = json.loads(share)
    assert ViewShare.model_validate(told).model_fields_set == ViewShare.model_fields.keys()
