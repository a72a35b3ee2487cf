from pathlib import Path

import numpy as np
import pytest

from service.domain.fields import Explain
from service.domain.files import File
from service.domain.grid import Grid
from service.domain.manifest import Manifest
from service.domain.regions import BoxRegion, InnerRegion, MaskRegion
from service.errors.models import ModelUnavailable
from tests.support.parcels import manifest
from workers.regions import inside, read_mask

SOURCE = (200, 100)
INPUT = Grid.partition((20, 20), SOURCE)
PATH = "region/mask.npy"


def with_region(region: InnerRegion | BoxRegion | MaskRegion | None) -> Manifest:
    changed = manifest().model_copy(update={"explain": Explain(expected_region=region)})
    file = File(role="region", format="npy", path=PATH, sha256="0" * 64, bytes=1)
    return changed.model_copy(update={"files": (*changed.files, file)})


def test_without_a_region_there_is_none() -> None:
    assert inside(with_region(None), None, INPUT, SOURCE) is None


def test_inner_leaves_out_border_and_corners() -> None:
    weight = inside(with_region(InnerRegion(border=0.1, corner=0.25)), None, INPUT, SOURCE)
    assert weight is not None
    assert not weight[:2].any()
    assert not weight[:, -2:].any()
    assert not weight[:5, :5].any()
    assert not weight[15:, :5].any()
    assert weight[2, 10] == weight[10, 2] == weight[5, 2] == 1


def test_a_box_is_given_in_shares_of_the_source() -> None:
    region = BoxRegion(kind="box", top=0.5, left=0.0, bottom=1.0, right=0.25)
    weight = inside(with_region(region), None, INPUT, SOURCE)
    expected = np.zeros((20, 20))
    expected[10:, :5] = 1
    np.testing.assert_array_equal(weight, expected)


def test_what_the_image_declares_bounds_the_region_with_or_without_the_models() -> None:
    boxes = ((0, 0, 100, 100), (100, 50, 200, 100))
    weight = inside(with_region(None), None, INPUT, SOURCE, boxes)
    expected = np.ones((20, 20))
    expected[10:, :10] = 0
    np.testing.assert_array_equal(weight, expected)
    lower = BoxRegion(kind="box", top=0.5, left=0.0, bottom=1.0, right=1.0)
    both = inside(with_region(lower), None, INPUT, SOURCE, boxes)
    expected[:10] = 0
    np.testing.assert_array_equal(both, expected)


def test_a_cropped_input_sees_its_part_of_the_region() -> None:
    region = BoxRegion(kind="box", top=0.5, left=0.0, bottom=1.0, right=1.0)
    lower = Grid((10, 10), Grid.partition((10, 10), (100, 100)).affine.copy())
    lower.affine[0, 2] += 100  # rows 100 to 200 of the source
    weight = inside(with_region(region), None, lower, SOURCE)
    assert weight is not None
    assert weight.all()


def test_a_mask_is_laid_over_the_whole_source(tmp_path: Path) -> None:
    mask = np.zeros((4, 2), np.uint8)
    mask[0, 1] = 1
    (tmp_path / "region").mkdir()
    np.save(tmp_path / PATH, mask)
    masked = with_region(MaskRegion(kind="mask", path=PATH))
    weight = inside(masked, read_mask(masked, tmp_path), INPUT, SOURCE)
    expected = np.zeros((20, 20))
    expected[:5, 10:] = 1
    np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize("spoiled", [np.zeros((4, 2)), np.ones(4), np.full((4, 2), 0.5)])
def test_a_mask_that_is_none_stops_the_model(tmp_path: Path, spoiled: np.ndarray) -> None:
    (tmp_path / "region").mkdir()
    np.save(tmp_path / PATH, spoiled)
    with pytest.raises(ModelUnavailable):
        read_mask(with_region(MaskRegion(kind="mask", path=PATH)), tmp_path)
