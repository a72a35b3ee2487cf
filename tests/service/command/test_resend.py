"""``whylight reproduce --study``: what went in is sent again, whole and to the byte."""

import hashlib
import shutil
from pathlib import Path

import pytest

from service import documents
from service.command.resend import Resent
from service.domain.resolved import ResolvedTarget
from tests.support.reproduced import IMAGE, MAP, NOW, THEN, Explained, explained, region

SEG = b"a segmentation"
SEG_TARGET = {
    "kind": "segmentation",
    "of": "nodule",
    "region": {"kind": "segment", "instance": "in_0009", "segment": 1},
}


def test_the_very_image_can_be_sent_again(whylight, gateway, file, tmp_path):
    gateway.studies.clear()
    (tmp_path / "image.dcm").write_bytes(IMAGE)
    status, _, _ = whylight("reproduce", file, "--study", tmp_path / "image.dcm")
    assert status == 0
    assert gateway.sent == [IMAGE]
    assert (gateway.asked[0]["study"], gateway.asked[0]["instance"]) == ("st_now", "in_0001")


def of_a_segment(job, name):
    """An explanation of a segment of the segmentation that has this name in its study."""
    target = SEG_TARGET | {"region": SEG_TARGET["region"] | {"instance": name}}
    one = explained(job, {("saliency", 0): MAP}, region=region(hashlib.sha256(SEG).hexdigest()))
    document = documents.opened(one.document)
    (result,) = document.results
    told = ResolvedTarget.model_validate(
        result.target.model_dump()
        | {"key": f"nodule-segment-{name}-1", "kind": "segmentation", "again": target}
    )
    results = (result.model_copy(update={"target": told}),)
    return Explained(documents.written(document.model_copy(update={"results": results}), job))


@pytest.mark.parametrize("packed", [True, False], ids=["archive", "folder"])
def test_an_image_and_its_segmentation_can_be_sent_again(whylight, gateway, keep, tmp_path, packed):
    """Both have other names now, as of a study of which an object is not needed."""
    gateway.studies.clear()
    gateway.kept[NOW] = of_a_segment(NOW, "in_0002")
    file, place = keep(of_a_segment(THEN, "in_0009")), tmp_path / "study"
    place.mkdir()
    for name, data in {"a.dcm": SEG, "b/c": b"another", "d.dcm": IMAGE}.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(data)
    if packed:
        place = Path(shutil.make_archive(str(place), "zip", place))
    status, out, err = whylight("reproduce", file, "--study", place)
    assert (status, err) == (0, "")
    assert "1 of 1 maps are within" in out
    assert gateway.sent == [IMAGE, SEG]
    (asked,) = gateway.asked
    assert (asked["study"], asked["instance"]) == ("st_now", "in_0001")
    assert asked["targets"][0]["region"]["instance"] == "in_0002"


def test_of_several_objects_one_file_names_the_way_out(whylight, gateway, keep, tmp_path):
    file = keep(of_a_segment(THEN, "in_0009"))
    (tmp_path / "image.dcm").write_bytes(IMAGE)
    status, _, err = whylight("reproduce", file, "--study", tmp_path / "image.dcm")
    assert (status, gateway.sent, gateway.asked) == (1, [], [])
    assert "1 of the 2 objects" in err
    assert "zip archive or a folder" in err


def test_names_of_objects_alone_are_named_anew():
    then = {
        "study": "st_then",
        "views": {"mlo": "in_0001"},
        "instances": ["in_0002", "in_0001"],
        "label": "in_0001",
        "targets": [{"of": "in_0001", "instance": "in_0001"}],
        "annotations": [{"of": "a", "view": "in_0002"}],
    }
    now = Resent("st_now", {"in_0001": "in_0002", "in_0002": "in_0001"}).request(then)
    assert now == {
        "study": "st_now",
        "views": {"mlo": "in_0002"},
        "instances": ["in_0001", "in_0002"],
        "label": "in_0001",
        "targets": [{"of": "in_0001", "instance": "in_0002"}],
        "annotations": [{"of": "a", "view": "in_0001"}],
    }


def test_another_image_is_not_sent(whylight, gateway, file, tmp_path):
    (tmp_path / "image.dcm").write_bytes(IMAGE + b".")
    status, _, err = whylight("reproduce", file, "--study", tmp_path / "image.dcm")
    assert (status, gateway.sent, gateway.asked) == (1, [], [])
    assert "not the image" in err
