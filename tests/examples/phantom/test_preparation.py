"""The trainer's own preparation against the steps that the worker runs."""

from pathlib import Path

import numpy as np
import pytest

from examples.packaging import write_object
from examples.phantom.chest import Case, draw
from examples.phantom.dicom import dataset
from examples.phantom.preparation import shrink, shrink_mask
from examples.phantom.samples import full_size, read
from service.manifests import read_manifest
from workers.pixels.decode import decode_file
from workers.stages.prepare import prepare_files

MODEL = Path(__file__).parents[3] / "models" / "chest-phantom" / "model.yaml"


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("seed", [20, 21])
def test_the_worker_gives_the_model_what_it_was_trained_on(tmp_path, seed, photometric, compress):
    case = Case(seed, frozenset({"consolidation"}))
    path = tmp_path / "phantom.dcm"
    write_object(path, dataset(case, draw(case, full_size(case)), photometric), compress=compress)
    steps = read_manifest(MODEL.read_bytes()).inputs[0].steps
    decoded = decode_file(path, tmp_path)
    tensor, _ = prepare_files(decoded.pixels, decoded.padding, decoded.facts, steps)
    assert tensor.shape == (1, 128, 128)
    np.testing.assert_allclose(tensor[0], read(path.read_bytes()), atol=1e-4)


def test_shrinking_keeps_the_mean():
    image = np.random.default_rng(0).random((517, 301))
    assert shrink(image).mean() == pytest.approx(image.mean(), abs=1e-6)


def test_shrinking_by_a_whole_factor_averages_blocks():
    image = np.random.default_rng(0).random((256, 384))
    blocks = image.reshape(128, 2, 128, 3).mean((1, 3))
    np.testing.assert_allclose(shrink(image), blocks, atol=1e-6)


def test_a_shrunken_mask_has_the_pixels_that_lie_in_it_by_half():
    mask = np.zeros((256, 256), bool)
    mask[20:30, 41:61] = True
    small = np.zeros((128, 128), bool)
    small[10:15, 20:31] = True
    assert np.array_equal(shrink_mask(mask), small)
