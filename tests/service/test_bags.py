"""Which single images of a study make a bag, and what is refused rather than guessed."""

import pytest

from service.bags import choose_bag, views_of
from service.domain.inputs import Accept, ImageCount, Input
from service.domain.request import ExplanationRequest
from service.errors.requests import InvalidRequest, NotFound
from service.errors.studies import AmbiguousStudy, NotAcceptedByModel, TooFewImages
from tests.support.parcels import instance, study

ACCEPT = Accept(modalities=("CR", "DX"), view_positions=("PA", "AP"))
COUNT = ImageCount(least=2, most=3)
STEPS = [{"name": "resize", "parameters": {"size": [8, 8]}}]


def image(number, **changes):
    return instance(id=f"in_{number:04d}", **changes)


STUDY = study(
    image(1),
    image(2, view_position="LL"),
    image(3, view_position="AP", series_instance_uid="2.25.9"),
    image(4, view_modified=True),
    image(5, number_of_frames=4),
    image(6, modality="MG"),
)


def choose(of=STUDY, count=COUNT, **asked):
    request = ExplanationRequest.model_validate(
        {"study": "st_1", "model": "bag", "methods": ["saliency"], **asked}
    )
    return [each.id for each in choose_bag(of, ACCEPT, count, request)]


def test_all_images_that_fit_are_in_the_bag_and_no_other():
    assert choose() == ["in_0001", "in_0003"]


def test_those_that_are_named_are_in_it_in_the_studys_order():
    assert choose(instances=["in_0004", "in_0001"]) == ["in_0001", "in_0004"]


def test_a_series_narrows_the_choice():
    with pytest.raises(TooFewImages) as refusal:
        choose(series="se_0002")
    assert refusal.value.facts == {"images": 1, "least": 2}


def test_of_more_than_the_model_takes_none_is_left_out_unasked():
    many = study(*(image(number) for number in range(1, 6)))
    with pytest.raises(AmbiguousStudy) as refusal:
        choose(many)
    assert refusal.value.pointer == "/instances"
    assert refusal.value.facts["most"] == 3
    named = refusal.value.facts["instances"][:3]
    assert choose(many, instances=named) == named


@pytest.mark.parametrize(
    ("asked", "refused", "pointer"),
    [
        ({"instance": "in_0001"}, InvalidRequest, "/instance"),
        ({"frame": 1}, InvalidRequest, "/frame"),
        ({"instances": ["in_0001", "in_0001"]}, InvalidRequest, "/instances/1"),
        ({"instances": ["in_0001", "in_0077"]}, NotFound, "/instances/1"),
        ({"instances": ["in_0001", "in_0002"]}, NotAcceptedByModel, "/instances/1"),
        ({"instances": ["in_0001", "in_0005"]}, NotAcceptedByModel, "/instances/1"),
        ({"instances": ["in_0001"]}, TooFewImages, "/instances"),
    ],
)
def test_what_a_request_says_of_images_must_be_of_the_bag(asked, refused, pointer):
    with pytest.raises(refused) as refusal:
        choose(**asked)
    assert refusal.value.pointer == pointer


def test_where_nothing_fits_each_image_says_why():
    with pytest.raises(NotAcceptedByModel) as refusal:
        choose(study(image(1, modality="MG"), image(2, number_of_frames=2)))
    assert refusal.value.facts["refused"] == {"in_0001": ["modalities"], "in_0002": ["frames"]}


def test_readers_are_told_which_image_of_how_many_it_is_and_what_it_shows():
    views = views_of((image(7, view_position="CC", laterality="L"), image(9, view_position="")))
    assert [(each.key, each.label) for each in views] == [
        ("in_0007", "Image 1 of 2, L CC"),
        ("in_0009", "Image 2 of 2"),
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bag": {}}, "'kind' volume, or 'bag.images'"),
        ({"bag": {"images": {"least": 4, "most": 3}}}, "must not be over"),
        ({"bag": {"images": {}}, "layout": "NCHW"}, "layout NCDHW"),
        ({"bag": {"images": {}}, "views": [{"key": "a", "label": "A"}]}, "from 2 to 8"),
    ],
)
def test_a_manifest_says_in_one_place_what_a_bag_is_made_of(changes, words):
    fields = {"layout": "NCDHW", "accept": {"modalities": ["CR"]}, "steps": STEPS, **changes}
    with pytest.raises(ValueError, match=words):
        Input.model_validate(fields)
