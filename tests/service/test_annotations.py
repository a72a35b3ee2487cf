"""A reader's boxes: of an image, of a volume, within it."""

import pytest

from service.annotations import check_annotated, check_annotated_volume
from service.domain.request import ExplanationRequest
from service.errors.requests import InvalidRequest
from tests.support.parcels import instance

SLICES = [instance(id=f"in_000{k}", number_of_frames=2) for k in (1, 2, 3)]


def asked(*boxes, **more):
    annotations = [{"of": "nodule", "box": box, **more} for box in boxes]
    return ExplanationRequest.model_validate(
        {"study": "st_1", "model": "m", "methods": ["saliency"], "annotations": annotations}
    )


def test_boxes_within_the_volume_or_the_image_are_taken():
    check_annotated_volume(asked([0, 0, 0, 6, 8, 6], [1.5, 2, 3, 2, 4, 5]), SLICES)
    check_annotated(asked([0, 0, 8, 6]), {None: instance()})


@pytest.mark.parametrize("box", [[0, 0, 0, 6.5, 8, 6], [0, 0, 0, 6, 8, 7], [0, 0, 8, 6]])
def test_a_box_beyond_the_volume_or_of_an_image_is_refused_with_its_extent(box):
    with pytest.raises(InvalidRequest, match="six numbers") as refused:
        check_annotated_volume(asked([0, 0, 0, 1, 1, 1], box), SLICES)
    assert refused.value.pointer == "/annotations/1/box"
    assert refused.value.facts == {"slices": 6, "rows": 8, "columns": 6}


@pytest.mark.parametrize("box", [[0, 0, 9, 6], [0, 0, 0, 1, 8, 6]])
def test_a_box_beyond_the_image_or_of_a_volume_is_refused_with_its_extent(box):
    with pytest.raises(InvalidRequest, match="four numbers") as refused:
        check_annotated(asked(box), {None: instance()})
    assert refused.value.facts == {"rows": 8, "columns": 6}


def test_a_volume_has_no_views():
    with pytest.raises(InvalidRequest, match="no views") as refused:
        check_annotated_volume(asked([0, 0, 0, 1, 1, 1], view="in_0001"), SLICES)
    assert refused.value.pointer == "/annotations/0/view"
