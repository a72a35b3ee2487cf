"""Which image, and which frame of it, a model is to see."""

import pytest

from service.acceptance import (
    choose_frame,
    choose_instance,
    choose_series,
    left_out,
    narrowed,
    refusals,
)
from service.domain.inputs import Accept, VolumeRules
from service.domain.request import ExplanationRequest
from service.errors.requests import InvalidRequest, NotFound
from service.errors.studies import AmbiguousStudy, NotAcceptedByModel, TooFewSlices
from tests.support.parcels import instance, study

CHEST = Accept(modalities=("CR",))
HEAD = Accept(
    modalities=("CT",),
    image_types=("ORIGINAL",),
    volume=VolumeRules(least_slices=4, orientations=("axial",)),
)


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


@pytest.mark.parametrize(
    ("slices", "said"),
    [
        ([instance(id=f"in_{k}", modality="CT") for k in range(3)], True),
        ([instance(modality="MR", number_of_frames=30)], True),
        ([instance(modality="CT")], False),
        ([instance(id=f"in_{k}", modality="DX") for k in range(3)], False),
        ([instance(modality="US", number_of_frames=30)], False),
    ],
    ids=["slices", "frames", "one slice", "radiographs", "a loop"],
)
def test_a_model_of_images_says_so_where_it_is_shown_a_volume(slices, said):
    with pytest.raises(NotAcceptedByModel) as refusal:
        choose_instance(study(*slices), CHEST, None)
    told = "a volume's slices, and the model takes single images: choose a model of volumes"
    assert (told in refusal.value.detail) is said


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([instance(modality="CR")], True),
        ([instance(id=f"in_{k}", modality="MR") for k in range(5)], False),
    ],
    ids=["one image", "another series"],
)
def test_a_model_of_volumes_says_so_where_it_is_shown_a_single_image(images, said):
    asked = ExplanationRequest(study="st_1", model="head", methods=["saliency"])
    with pytest.raises(NotAcceptedByModel) as refusal:
        choose_series(study(*images), HEAD, asked)
    told = "single image, and the model takes whole volumes: choose a model of images"
    assert (told in refusal.value.detail) is said


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


# --------------------------------------------------------------------- volumes


def slices(count, *, first=1, series="2.25.2", **changes):
    """Axial CT slices of one series."""
    known = {"modality": "CT", "image_type": ("ORIGINAL", "PRIMARY"), "plane": "axial"}
    return [
        instance(id=f"in_{number:04d}", series_instance_uid=series, **known | changes)
        for number in range(first, first + count)
    ]


def asked(**changes):
    return ExplanationRequest(study="st_1", model="head", methods=["saliency"], **changes)


def test_the_one_series_with_enough_slices_is_chosen_without_what_does_not_belong():
    report = instance(id="in_0050", modality="SR", series_instance_uid="2.25.8")
    scout = slices(1, first=20, localizer=True)
    derived = slices(1, first=21, image_type=("DERIVED", "SECONDARY"))
    coronal = slices(9, first=30, series="2.25.7", plane="coronal")
    few = slices(3, first=40, series="2.25.6")
    whole = study(report, *scout, *slices(5), *derived, *coronal, *few)
    chosen = choose_series(whole, HEAD, asked())
    assert chosen.series == "se_0002"
    assert [each.id for each in chosen.instances] == [f"in_000{k}" for k in range(1, 6)]
    reasons = {each.instance: each.reasons for each in left_out(whole, HEAD, chosen.instances)}
    assert reasons["in_0050"] == ("modalities", "image_types")
    assert reasons["in_0020"] == ("localizer",)
    assert reasons["in_0021"] == ("image_types",)
    assert reasons["in_0030"] == ("orientations",)
    assert reasons["in_0040"] == ("not_chosen",)
    assert len(reasons) == len(whole.instances) - 5


def test_of_several_series_one_must_be_named():
    both = study(*slices(5), *slices(5, first=9, series="2.25.7"))
    with pytest.raises(AmbiguousStudy) as refusal:
        choose_series(both, HEAD, asked())
    assert refusal.value.facts["series"] == ["se_0001", "se_0002"]
    first, _ = refusal.value.facts["choices"]
    assert first == {"series": "se_0001", "series_number": None, "slices": 5}
    chosen = choose_series(both, HEAD, asked(series="se_0002"))
    assert (chosen.series, chosen.instances[0].id) == ("se_0002", "in_0009")
    with pytest.raises(NotFound):
        choose_series(both, HEAD, asked(series="se_0003"))


def test_too_few_slices_are_told_from_wrong_ones():
    with pytest.raises(TooFewSlices) as refusal:
        choose_series(study(*slices(3)), HEAD, asked())
    assert (refusal.value.facts["slices"], refusal.value.facts["least"]) == (3, 4)
    with pytest.raises(NotAcceptedByModel):
        choose_series(study(*slices(9, modality="MR")), HEAD, asked())


def test_frames_of_an_object_are_slices_and_an_object_may_be_named():
    enhanced = slices(2, number_of_frames=6)
    assert len(choose_series(study(*enhanced), HEAD, asked()).instances) == 2
    alone = choose_series(study(*enhanced), HEAD, asked(instance="in_0002"))
    assert [each.id for each in alone.instances] == ["in_0002"]
    with pytest.raises(NotFound):
        choose_series(study(*enhanced), HEAD, asked(instance="in_0003"))
    with pytest.raises(InvalidRequest):
        choose_series(study(*enhanced), HEAD, asked(frame=2))


def test_an_image_may_be_looked_for_in_one_series():
    two = study(instance(id="in_0001"), instance(id="in_0002", series_instance_uid="2.25.9"))
    assert choose_instance(narrowed(two, "se_0002"), CHEST, None).id == "in_0002"
    with pytest.raises(NotFound):
        narrowed(two, "se_0003")


# ------------------------------------------------- for presentation, for processing


RAW = Accept(modalities=("CR",), presentation_intents=("FOR PROCESSING",))
EITHER = Accept(modalities=("CR",), presentation_intents=("FOR PRESENTATION", "FOR PROCESSING"))
PAIR = study(
    instance(id="in_0001", presentation_intent="FOR PROCESSING"),
    instance(id="in_0002", presentation_intent="FOR PRESENTATION"),
)


def test_raw_pixels_are_taken_by_a_model_that_was_made_for_them_alone():
    assert choose_instance(PAIR, CHEST, None).id == "in_0002"
    assert choose_instance(PAIR, RAW, None).id == "in_0001"
    (left,) = left_out(PAIR, CHEST, [PAIR.instances[1]])
    assert (left.instance, left.reasons) == ("in_0001", ("presentation_intents",))


def test_raw_pixels_are_refused_by_name_too():
    with pytest.raises(NotAcceptedByModel) as refusal:
        choose_instance(PAIR, CHEST, "in_0001")
    assert refusal.value.facts["refused"] == {"in_0001": ["presentation_intents"]}


def test_what_does_not_say_is_as_it_is_shown():
    assert not refusals(instance(), CHEST)
    assert refusals(instance(), RAW) == ("presentation_intents",)


def test_of_a_model_of_both_kinds_one_must_be_named():
    with pytest.raises(AmbiguousStudy):
        choose_instance(PAIR, EITHER, None)
    assert choose_instance(PAIR, EITHER, "in_0001").id == "in_0001"
