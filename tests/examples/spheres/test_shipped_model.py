"""The package in ``models/sphere-phantom``: what its inputs are, and that it is as good as told."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from examples.spheres.dicom import enhanced, series
from examples.spheres.phantom import CONTRAST, SPACING, TISSUE, draw
from examples.spheres.train import NETWORK, STEPS, accuracy, prepared
from service.manifests import read_manifest
from tests.support.phantom_dicom import encoded
from workers.stages.prepare import prepare_files
from workers.volumes.decode import decode_series

FOLDER = Path(__file__).parents[3] / "models" / "sphere-phantom"


@pytest.fixture(scope="module")
def manifest():
    return read_manifest((FOLDER / "model.yaml").read_bytes())


def test_a_sphere_is_where_and_as_dense_as_it_was_planted():
    phantom = draw(11, ["dense"])
    inside = phantom.mask("dense")
    (sphere,) = phantom.spheres
    volume = inside.sum() * np.prod(SPACING)
    assert volume == pytest.approx(4 / 3 * np.pi * sphere.radius**3, rel=0.1)
    deep = phantom.values[inside].mean()
    assert deep == pytest.approx(TISSUE + CONTRAST["dense"], abs=60)


@pytest.mark.parametrize("form", ["series", "enhanced"])
def test_the_model_sees_of_a_series_what_it_was_trained_on(tmp_path, manifest, form):
    phantom = draw(12)
    objects = series(phantom, "x") if form == "series" else [enhanced(phantom, "x")]
    files = []
    for number, each in enumerate(objects):
        files.append(tmp_path / f"{number}.dcm")
        files[-1].write_bytes(encoded(each))
    decoded, volume = decode_series(files, tmp_path, manifest.inputs[0].accept.volume)
    tensor, _ = prepare_files(decoded.pixels, None, decoded.facts, STEPS, volume.affine)
    assert manifest.inputs[0].steps == STEPS
    assert np.abs(tensor - prepared(phantom)).max() < 0.01  # stored values are whole HU


def test_it_tells_nearly_every_finding_of_phantoms_it_never_saw():
    network = NETWORK.build()
    network.load_state_dict(load_file(FOLDER / "weights.safetensors"))
    with torch.no_grad():
        assert accuracy(network.eval(), [draw(seed) for seed in range(40)]) >= 0.95
