"""``whylight reproduce`` against a gateway of a few lines that keeps what it was asked."""

import json

import numpy as np
import pytest

from service.command.difference import distance
from service.command.failure import CommandFailure
from service.domain.canonical import digest_of
from service.domain.explanation import (
    Check,
    Provenance,
)
from tests.support.reproduced import (
    MAP,
    MAPS,
    NOW,
    PACKAGE,
    PARAMETERS,
    THEN,
    explained,
    region,
    spelled,
)


def nudged(by):
    """The maps with one number of one of them moved."""
    maps = {which: values.copy() for which, values in MAPS.items()}
    maps["saliency", 3][0, 4, 4] += by
    return maps


@pytest.mark.usefixtures("gateway")
def test_the_same_maps_are_reproduced(whylight, file):
    status, out, _ = whylight("reproduce", file)
    assert status == 0
    assert out.count("| yes") == 4
    assert "4 of 4 maps are within 2e-06 of their range" in out


def test_everything_is_asked_for_as_it_was_resolved_then(whylight, gateway, file):
    whylight("reproduce", file)
    (asked,) = gateway.asked
    assert asked["model"] == "chest@1.2.0"
    assert (asked["study"], asked["instance"]) == ("st_then", "in_0007")
    assert {each["name"]: each["parameters"] for each in asked["methods"]} == PARAMETERS
    assert [each["of"] for each in asked["targets"]] == [0, 3]
    assert (asked["priority"], asked["grid"], asked["checks"]) == ("low", "source", "full")
    assert asked["artifacts"] == ["json", "npy"]
    assert asked["precision"] == "bfloat16"


@pytest.mark.parametrize(("by", "status"), [(4e-6, 0), (4e-5, 1)])
def test_a_map_counts_as_the_same_up_to_the_engines_tolerance(whylight, gateway, file, by, status):
    """The range is 4, so 2e-6 of it are 8e-6; float32 at 3 knows steps of 2.4e-7."""
    gateway.kept[NOW] = explained(NOW, nudged(by))
    found, out, _ = whylight("reproduce", file)
    assert found == status
    assert out.count("| no ") == 1
    assert f"{4 - status} of 4" in out


@pytest.mark.parametrize(("now", "status"), [("a" * 64, 0), ("b" * 64, 1)])
def test_maps_of_another_segmentation_are_never_compared(whylight, gateway, keep, now, status):
    file = keep(explained(THEN, MAPS, region=region("a" * 64)))
    gateway.kept[NOW] = explained(NOW, MAPS, region=region(now))
    found, _, err = whylight("reproduce", file)
    assert found == status
    assert ("another image or segmentation" in err) is bool(status)


def test_an_edited_document_is_refused_before_anything_is_asked(whylight, gateway, file):
    document = json.loads(file.read_bytes())
    document["results"][1]["parameters"]["steps"] = 9
    file.write_text(json.dumps(document))
    status, _, err = whylight("reproduce", file)
    assert status == 1
    assert "seal" in err
    assert gateway.asked == []


@pytest.mark.usefixtures("gateway")
def test_a_document_that_is_not_there_is_told(whylight, tmp_path):
    status, _, err = whylight("reproduce", tmp_path / "none.json")
    assert (status, "cannot be read" in err) == (1, True)


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ([], "does not have chest@1.2.0"),
        ([{"name": "chest", "version": "1.3.0", "package": PACKAGE}], "does not have chest@1.2.0"),
        ([{"name": "chest", "version": "1.2.0", "package": "f" * 64}], "another package"),
    ],
)
def test_another_model_is_never_taken_for_the_one_explained(whylight, gateway, file, models, said):
    gateway.models = models
    status, _, err = whylight("reproduce", file)
    assert status == 1
    assert said in err
    assert gateway.asked == []


def test_a_study_that_is_gone_must_be_named(whylight, gateway, file):
    gateway.studies.clear()
    status, _, err = whylight("reproduce", file)
    assert status == 1
    assert "--study" in err


@pytest.mark.parametrize("formats", [("json",), ("npy",), ("json", "npy")])
@pytest.mark.parametrize("beside", [True, False])
def test_the_original_values_come_from_files_or_from_the_service(
    whylight, gateway, keep, formats, beside
):
    made = explained(THEN, nudged(4e-5), formats)
    file = keep(made, files=beside)
    if not beside:
        gateway.kept[THEN] = made
    status, out, _ = whylight("reproduce", file)
    assert status == 1
    assert "4e-05 " in out
    assert "1e-05 " in out


def test_where_the_values_are_lost_the_digests_decide(whylight, gateway, keep):
    status, out, _ = whylight("reproduce", keep(explained(THEN, MAPS), files=False))
    assert status == 0
    assert out.count("| -  ") == 8
    gateway.kept[NOW] = explained(NOW, nudged(4e-6))
    status, out, _ = whylight("reproduce", keep(explained(THEN, MAPS), files=False))
    assert status == 1


def test_values_without_digests_are_compared_all_the_same(whylight, gateway, keep):
    assert whylight("reproduce", keep(explained(THEN, MAPS, binds=False)))[0] == 0
    gateway.kept[NOW] = explained(NOW, nudged(4e-5))
    assert whylight("reproduce", keep(explained(THEN, MAPS, binds=False)))[0] == 1


@pytest.mark.usefixtures("gateway")
def test_a_file_beside_the_document_that_was_changed_is_refused(whylight, file):
    (file.parent / "saliency.nodule.npy").write_bytes(spelled(MAP * 2, "npy"))
    status, _, err = whylight("reproduce", file)
    assert status == 1
    assert "saliency.nodule.npy is not the file" in err


def test_a_map_that_could_not_be_made_again_is_not_reproduced(whylight, gateway, file):
    maps = {which: values for which, values in MAPS.items() if which != ("smooth_grad", 0)}
    gateway.kept[NOW] = explained(NOW, maps)
    status, out, _ = whylight("reproduce", file)
    assert (status, "3 of 4" in out) == (1, True)


def test_a_job_that_fails_is_told_with_its_reason(whylight, gateway, file):
    gateway.state = "failed"
    status, _, err = whylight("reproduce", file)
    assert (status, "The decoder failed." in err) == (1, True)


def test_an_explanation_without_maps_has_nothing_to_compute(whylight, gateway, keep):
    status, _, err = whylight("reproduce", keep(explained(THEN, {})))
    assert (status, "no map" in err, gateway.asked) == (1, True, [])


def test_maps_of_another_image_are_never_compared(whylight, gateway, file):
    ran = Provenance.model_validate(json.loads(gateway.kept[NOW].document)["provenance"])
    (image,) = ran.instances
    other = ran.model_copy(
        update={"instances": (image, image.model_copy(update={"sha256": "0" * 64}))}
    )
    gateway.kept[NOW] = explained(NOW, MAPS, binds=False, provenance=other)
    status, _, err = whylight("reproduce", file)
    assert (status, "another image" in err) == (1, True)


def test_what_has_changed_since_then_is_told(whylight, gateway, file):
    gateway.kept[NOW] = explained(NOW, MAPS, versions={"torch": "3.0"})
    _, out, _ = whylight("reproduce", file)
    assert "torch: 2.0 then, 3.0 now" in out
    assert "hardware" not in out


def check(name, version):
    return Check(name=name, version=version, outcome="pass", meaning="It is so.")


def test_methods_and_checks_of_another_version_are_told_before_the_differences(
    whylight, gateway, keep
):
    """`repeat` is made of some jobs only: where it is not on both sides, nothing has changed."""
    then = (check("integrity", 1), check("completeness", 1), check("repeat", 1))
    now = (check("integrity", 1), check("completeness", 2))
    file = keep(explained(THEN, MAPS, checks=then))
    gateway.kept[NOW] = explained(NOW, nudged(4e-5), version=3, checks=now)
    status, out, _ = whylight("reproduce", file)
    assert status == 1
    told = [line for line in out.splitlines() if "has changed" in line]
    assert [line.split(";")[0] for line in told] == [
        "The method saliency has changed: version 1 then, 3 now",
        "The method smooth_grad has changed: version 1 then, 3 now",
        "The check completeness has changed: version 1 then, 2 now",
    ]
    assert out.index(told[-1]) < out.index("largest difference")


def test_a_refusal_is_told_with_the_methods_that_have_changed(whylight, gateway, file):
    gateway.refusal = CommandFailure("A parameter is wrong.", "  /methods/1/samples: Must be odd.")
    status, _, err = whylight("reproduce", file)
    assert (status, len(gateway.asked)) == (1, 1)
    assert "Must be odd." in err
    assert "The method smooth_grad has changed: version 1 then, 4 now" in err
    assert "saliency" not in err


@pytest.mark.usefixtures("gateway")
def test_the_same_versions_are_not_told(whylight, file):
    assert "has changed" not in whylight("reproduce", file)[1]


@pytest.mark.parametrize("lacking", ["results.1.version", "results.0.checks.0.version"])
def test_a_document_that_lacks_a_version_is_refused_by_its_name(whylight, gateway, keep, lacking):
    """Whoever seals an edited document anew is told what is missing of it."""
    file = keep(explained(THEN, MAPS, checks=(check("integrity", 1),)))
    document = json.loads(file.read_bytes())
    place = document
    *outer, last = lacking.split(".")
    for step in outer:
        place = place[int(step) if step.isdigit() else step]
    del place[last]
    del document["seal"]
    file.write_text(json.dumps(document | {"seal": digest_of(document)}))
    status, _, err = whylight("reproduce", file)
    assert (status, gateway.asked) == (1, [])
    assert f"lacks {lacking}." in err


def test_the_distance_of_maps():
    shifted = MAP.copy()
    shifted[0, 0, 0] -= 0.5
    assert distance(MAP, MAP) == (0.0, 0.0)
    assert distance(MAP, shifted) == (0.5, 0.125)
    assert distance(MAP, MAP[:, :4]) == (np.inf, np.inf)
    holed = np.where(MAP > 2, np.nan, MAP).astype(np.float32)
    assert distance(holed, holed.copy()) == (0.0, 0.0)
    assert distance(MAP, holed) == (np.inf, np.inf)
    flat = np.zeros((1, 2, 2), np.float32)
    assert distance(flat, flat) == (0.0, 0.0)
    assert distance(flat, flat + 1) == (1.0, np.inf)
