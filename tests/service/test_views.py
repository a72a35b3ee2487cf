"""Which images of a study are the views of a model, and what is refused rather than guessed."""

import pytest
from pydantic import TypeAdapter, ValidationError

from service.domain.inputs import Accept
from service.domain.request import ExplanationRequest
from service.domain.target import Target, ViewTarget
from service.domain.view import View, demand_apart
from service.errors.requests import InvalidRequest, NotFound
from service.errors.studies import AmbiguousStudy, MissingView, NotAcceptedByModel
from service.views import choose_views
from tests.support.parcels import instance, study

ACCEPT = Accept(modalities=("MG",))
VIEWS = tuple(
    View(
        key=f"{side}_{position}".lower(),
        label=f"{side} {position}",
        view_positions=(position,),
        lateralities=(side,),
    )
    for side in ("L", "R")
    for position in ("CC", "MLO")
)


def image(number, view="", side="", **changes):
    return instance(
        id=f"in_{number:04d}",
        modality=changes.pop("modality", "MG"),
        view_position=view,
        laterality=side,
        **changes,
    )


WHOLE = (image(1, "MLO", "R"), image(2, "CC", "L"), image(3, "MLO", "L"), image(4, "CC", "R"))


def choose(*instances, **asked):
    request = ExplanationRequest.model_validate(
        {"study": "st_1", "model": "four", "methods": ["saliency"], **asked}
    )
    chosen = choose_views(study(*instances), ACCEPT, VIEWS, request)
    return {key: each.id for key, each in chosen.items()}


def test_each_view_is_found_by_its_header_in_the_models_order():
    found = choose(*WHOLE, image(5, "CC", "L", modality="SR"), image(6, "ML", "L"))
    assert list(found.items()) == [
        ("l_cc", "in_0002"),
        ("l_mlo", "in_0003"),
        ("r_cc", "in_0004"),
        ("r_mlo", "in_0001"),
    ]


def test_every_view_that_lacks_is_named_with_why_no_other_image_is_it():
    with pytest.raises(MissingView) as refusal:
        choose(WHOLE[0], image(7, "CC", ""), image(8, "CC", "R", view_modified=True))
    assert refusal.value.facts["missing"] == ["l_cc", "l_mlo", "r_cc"]
    broken = refusal.value.facts["refused"]
    assert "lateralities" in broken["in_0007"]
    assert "view_modified" in broken["in_0008"]
    assert "in_0001" not in broken
    assert "2.25" not in str(refusal.value.facts)


@pytest.mark.parametrize(
    "changes",
    [
        {"view_modified": True},
        {"number_of_frames": 30},
        {"presentation_intent": "FOR PROCESSING"},
    ],
)
def test_a_magnification_a_tomosynthesis_or_raw_pixels_are_no_second_candidate(changes):
    assert choose(*WHOLE, image(5, "CC", "L", **changes))["l_cc"] == "in_0002"


def test_of_two_candidates_none_is_guessed_until_one_is_named():
    both = (*WHOLE, image(9, "CC", "L"))
    with pytest.raises(AmbiguousStudy) as refusal:
        choose(*both)
    assert refusal.value.pointer == "/views/l_cc"
    assert refusal.value.facts["view"] == "l_cc"
    assert refusal.value.facts["instances"] == ["in_0002", "in_0009"]
    assert choose(*both, views={"l_cc": "in_0009"})["l_cc"] == "in_0009"


def test_an_image_that_is_silent_may_be_named_and_one_that_contradicts_may_not():
    silent = (*WHOLE[:1], *WHOLE[2:], image(5))
    assert choose(*silent, views={"l_cc": "in_0005"})["l_cc"] == "in_0005"
    with pytest.raises(NotAcceptedByModel) as refusal:
        choose(*WHOLE, views={"l_cc": "in_0004"})
    assert refusal.value.pointer == "/views/l_cc"
    assert refusal.value.facts["refused"] == {"in_0004": ["lateralities"]}


@pytest.mark.parametrize(
    ("asked", "refused", "pointer"),
    [
        ({"instance": "in_0001"}, InvalidRequest, "/instance"),
        ({"series": "se_0001"}, InvalidRequest, "/series"),
        ({"frame": 1}, InvalidRequest, "/frame"),
        ({"views": {"l_ml": "in_0001"}}, InvalidRequest, "/views/l_ml"),
        ({"views": {"l_cc": "in_0077"}}, NotFound, "/views/l_cc"),
    ],
)
def test_what_a_request_says_of_images_must_be_of_the_views(asked, refused, pointer):
    with pytest.raises(refused) as refusal:
        choose(*WHOLE, **asked)
    assert refusal.value.pointer == pointer


def test_one_image_is_not_two_views():
    alike = (image(1), *WHOLE[:1], *WHOLE[3:])
    with pytest.raises(InvalidRequest, match="two views"):
        choose(*alike, views={"l_cc": "in_0001", "l_mlo": "in_0001"})


@pytest.mark.parametrize(
    ("views", "words"),
    [
        (VIEWS[:1], "from 2 to 8"),
        ((VIEWS[0], VIEWS[0]), "must differ"),
        ((VIEWS[0], View(key="any", label="Any", view_positions=("CC", "ML"))), "both 'l_cc' and"),
    ],
)
def test_views_that_one_image_could_be_are_refused(views, words):
    with pytest.raises(ValueError, match=words):
        demand_apart(views)


def test_a_side_means_its_views_and_a_key_one():
    left = ViewTarget(kind="view", of="mass", laterality="L")
    assert [each.key for each in left.among(VIEWS)] == ["l_cc", "l_mlo"]
    one = ViewTarget(kind="view", of="mass", view="r_cc")
    assert [each.key for each in one.among(VIEWS)] == ["r_cc"]
    assert ViewTarget(kind="view", of="mass", view="r_ml").among(VIEWS) == ()


@pytest.mark.parametrize("which", [{}, {"view": "l_cc", "laterality": "L"}])
def test_a_view_target_says_which_and_only_once(which):
    with pytest.raises(ValidationError):
        TypeAdapter(Target).validate_python({"kind": "view", "of": "mass", **which})
