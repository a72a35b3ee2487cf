"""Which image, and which frame of it, a model is to see."""

import pytest

from service.acceptance import choose_frame, choose_instance, refusals
from service.domain.manifest import Accept
from service.errors import AmbiguousStudy, InvalidRequest, NotAcceptedByModel, NotFound
from tests.support.parcels import instance, study

CHEST = Accept(modalities=("CR",))


def test_the_one_image_that_fits_is_chosen():
    other = instance(id="in_0001", modality="MR")
    assert choose_instance(study(other, instance(id="in_0002")), CHEST, None).id == "in_0002"


def test_of_several_one_must_be_named():
    both = study(instance(id="in_0001"), instance(id="in_0002"))
    with pytest.raises(AmbiguousStudy) as refusal:
        choose_instance(both, CHEST, None)
    assert refusal.value.facts["instances"] == ["in_0001", "in_0002"]
    assert choose_instance(both, CHEST, "in_0002").id == "in_0002"
    with pytest.raises(NotFound):
        choose_instance(both, CHEST, "in_0003")


def test_what_the_model_was_not_made_for_is_refused_with_the_rules_it_breaks():
    with pytest.raises(NotAcceptedByModel) as refusal:
        choose_instance(study(instance(modality="MR")), CHEST, None)
    assert refusal.value.facts["refused"] == {"in_0001": ["modalities"]}


def test_a_localizer_is_explained_only_by_name():
    slices = study(instance(id="in_0001", localizer=True), instance(id="in_0002"))
    assert choose_instance(slices, CHEST, None).id == "in_0002"
    assert choose_instance(slices, CHEST, "in_0001").id == "in_0001"
    with pytest.raises(NotAcceptedByModel) as refusal:
        choose_instance(study(instance(localizer=True)), CHEST, None)
    assert refusal.value.facts["refused"] == {"in_0001": ["localizer"]}


def test_a_model_may_take_one_side_and_one_view_alone():
    left_oblique = Accept(modalities=("MG",), view_positions=("MLO",), lateralities=("L",))
    views = [
        instance(id=f"in_{k}", modality="MG", view_position=view, laterality=side)
        for k, (view, side) in enumerate([("CC", "L"), ("MLO", "R"), ("MLO", "L"), ("MLO", "")])
    ]
    assert choose_instance(study(*views), left_oblique, None).id == "in_2"
    assert refusals(views[0], left_oblique) == ("view_positions",)
    assert refusals(views[1], left_oblique) == refusals(views[3], left_oblique) == ("lateralities",)


def test_a_single_frame_needs_no_name():
    assert choose_frame(instance(), None) == choose_frame(instance(), 1) == 1


def test_of_several_frames_one_must_be_named():
    cine = instance(number_of_frames=65)
    assert choose_frame(cine, 65) == 65
    with pytest.raises(AmbiguousStudy, match="several frames") as refusal:
        choose_frame(cine, None)
    assert (refusal.value.pointer, refusal.value.facts["number_of_frames"]) == ("/frame", 65)


@pytest.mark.parametrize("frames", [1, 65])
def test_a_frame_that_is_not_there_is_refused(frames):
    with pytest.raises(InvalidRequest) as refusal:
        choose_frame(instance(number_of_frames=frames), frames + 1)
    assert refusal.value.facts["number_of_frames"] == frames
