"""The package in ``models/four-view-phantom``: what it sees, and that it is as good as told."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from examples.breasts.dicom import study
from examples.breasts.drawing import MASS, VIEWS, draw
from examples.breasts.train import NETWORK, accuracy, prepared
from examples.radiographs import STEPS
from service.domain.grid import Grid
from service.manifests import read_manifest
from tests.support.phantom_dicom import encoded
from workers.pixels.decode import decode_file
from workers.stages.prepare import mirrored, prepare_files

FOLDER = Path(__file__).parents[3] / "models" / "four-view-phantom"


@pytest.fixture(scope="module")
def network():
    made = NETWORK.build()
    made.load_state_dict(load_file(FOLDER / "weights.safetensors"))
    return made.eval()


def test_a_mass_is_where_it_was_planted_and_in_no_other_view():
    drawing = draw(11, ["r_cc"])
    mask, stored = drawing.masks["r_cc"], drawing.stored["r_cc"].astype(float)
    rows, columns = np.nonzero(mask)
    box = stored[rows.min() - 3 : rows.max() + 4, columns.min() - 3 : columns.max() + 4]
    assert stored[mask].mean() - np.median(box) > 0.3 * MASS
    assert not any(drawing.masks[view].any() for view in VIEWS if view != "r_cc")
    assert drawing.present("right")
    assert not drawing.present("left")


def test_the_model_sees_of_a_study_what_it_was_trained_on(tmp_path):
    drawing = draw(12)
    manifest = read_manifest((FOLDER / "model.yaml").read_bytes())
    assert manifest.image.steps == STEPS
    assert [each.key for each in manifest.image.views] == list(VIEWS)
    for number, (view, data) in enumerate(study(drawing, "x").items()):
        file, scratch = tmp_path / f"{view}.dcm", tmp_path / view
        file.write_bytes(encoded(data))
        scratch.mkdir()
        decoded = decode_file(file, scratch)
        tensor, _ = prepare_files(decoded.pixels, None, decoded.facts, STEPS)
        assert np.abs(tensor[0] - prepared(drawing)[0, number]).max() < 1e-4


def test_it_tells_nearly_every_mass_of_studies_it_never_saw(network):
    torch.set_num_threads(1)
    assert accuracy(network, [draw(seed) for seed in range(60)]) >= 0.95


def test_a_mirrored_image_leads_back_to_where_it_was():
    source = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    turned, grid = mirrored(source, Grid.identity((3, 4)))
    for row in range(3):
        for column in range(4):
            there = tuple(grid.to_source((row, column)).astype(int))
            assert turned[0, row, column] == source[0][there]
    np.testing.assert_array_equal(turned[0, 0], [3, 2, 1, 0])
