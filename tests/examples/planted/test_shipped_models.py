"""The packages of planted pictures: what their inputs are, and that they are as good as told."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from examples.planted.ages import error
from examples.planted.dicom import plate
from examples.planted.inputs import inputs, prepared
from examples.planted.outlines import overlap
from examples.planted.pictures import AGES, GROWTH, LATER, SHAPES, SIDE, hand, hand_of, lit, shapes
from examples.planted.presence import accuracy
from examples.planted.recipes import BONE_AGE, BONE_AGE_BY_SEX, RECIPES, SHAPE_SEGMENTATION, VIT
from examples.radiographs import MEAN, STD, STEPS
from service.manifests import read_manifest
from tests.support.engine import attribute, logits, settled
from tests.support.phantom_dicom import encoded
from workers.methods.gradient_attention import GradientAttention
from workers.pixels.decode import decode_file
from workers.runtimes.torch import TorchRuntime
from workers.stages.prepare import prepare_files

MODELS = Path(__file__).parents[3] / "models"


def network(recipe):
    made = recipe.network.build()
    made.load_state_dict(load_file(MODELS / recipe.id / "weights.safetensors"))
    return made.eval()


def test_the_growth_center_grows_with_age_and_nothing_else_does():
    for age, radius in zip(AGES, GROWTH, strict=True):
        for seed in range(4):
            (mask,) = hand(seed, age).masks.values()
            assert mask.sum() == pytest.approx(np.pi * radius**2, rel=0.1)


def test_a_boys_bones_are_older_at_the_same_size_and_weight_says_nothing():
    girl, boy = (hand_of(3, sex=sex, weight=30.0) for sex in "FM")
    assert np.array_equal(girl.stored, boy.stored)
    assert boy.age - girl.age == LATER
    assert hand_of(3, sex="F", weight=90.0).age == girl.age


def test_shapes_are_apart_and_as_many_as_asked_for():
    picture = shapes(5, {"cyst": 2, "stone": 1})
    assert set(picture.masks) == {"cyst", "stone"}
    assert not (picture.masks["cyst"] & picture.masks["stone"]).any()
    values = picture.stored.astype(float)
    assert values[picture.masks["stone"]].mean() > values[picture.masks["cyst"]].mean() + 1000
    assert shapes(6, {}).masks == {}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda each: each.id)
def test_the_model_sees_of_a_plate_what_it_was_trained_on(tmp_path, recipe):
    manifest = read_manifest((MODELS / recipe.id / "model.yaml").read_bytes())
    picture = recipe.draw(12)
    (tmp_path / "plate.dcm").write_bytes(encoded(plate(picture, "x", recipe.body_part)))
    decoded = decode_file(tmp_path / "plate.dcm", tmp_path)
    tensor, _ = prepare_files(decoded.pixels, decoded.padding, decoded.facts, STEPS)
    assert manifest.inputs[0].steps == STEPS
    np.testing.assert_allclose(tensor, prepared(picture), atol=1e-4)


def test_they_are_right_on_pictures_they_never_saw():
    with torch.no_grad():
        assert error(BONE_AGE, network(BONE_AGE), [hand(seed) for seed in range(40)]) < 8
        hands = [hand_of(seed) for seed in range(40)]
        assert error(BONE_AGE_BY_SEX, network(BONE_AGE_BY_SEX), hands) < 9
        assert overlap(network(SHAPE_SEGMENTATION), [shapes(seed) for seed in range(40)]) > 0.95
        plates = [lit(seed) for seed in range(60)]
        assert accuracy(network(VIT), inputs(plates), plates) > 0.95


def test_attention_that_raised_the_score_points_at_what_was_planted():
    runtime = TorchRuntime(network(VIT), (1, 64, 64), None, tokens=VIT.network.tokens())
    method = settled(GradientAttention(), runtime, -MEAN / STD)
    hits = []
    for seed in range(10):
        picture = lit(7_000 + seed, {"cyst": 1, "stone": 1})
        maps = attribute(method, runtime, torch.from_numpy(prepared(picture)), logits(0, 1))
        edge = SIDE // maps.values.shape[-1]
        for shape, values in zip(SHAPES, maps.values, strict=True):
            row, column = divmod(int(values.argmax()), maps.values.shape[-1])
            cell = np.s_[row * edge : (row + 1) * edge, column * edge : (column + 1) * edge]
            hits.append(picture.masks[shape][cell].any())
    assert np.mean(hits) >= 0.8
