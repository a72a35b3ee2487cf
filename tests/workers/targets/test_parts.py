"""Targets of one view, one image of a bag, or one slice of a bag: what each is called."""

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from service.domain.explanation import BagInstance
from service.domain.grid import Grid
from service.domain.manifest import Manifest
from service.domain.target import InstanceTarget, Target, ViewTarget
from service.domain.view import View
from service.errors.requests import InvalidTarget
from tests.workers.targets.test_classes import LOGITS, manifest
from workers.targets.base import Answer, Chosen
from workers.targets.resolve import predict, resolve

TARGETS = TypeAdapter(tuple[Target, ...])
SEVERAL = {"layout": "NCDHW", "accept": {"modalities": ["CR"]}, "steps": [{"name": "resize"}]}
VIEWS = [
    {"key": "front", "label": "Front", "view_positions": ["PA"]},
    {"key": "side", "label": "Side", "view_positions": ["LL"]},
]
FILMS = (View(key="in_0001", label="Image 1 of 2"), View(key="in_0004", label="Image 2 of 2"))
SLICES = tuple(
    BagInstance(slice=number, instance=f"in_000{9 - number}", frame=None) for number in (1, 2, 3)
)
FRAMES = tuple(BagInstance(slice=k, instance="in_0001", frame=k) for k in (1, 2, 3))


def of_views() -> Answer:
    files = {each["key"]: "t.dcm" for each in VIEWS}
    model = manifest(inputs=[SEVERAL | {"views": VIEWS}], selftests=shown_on(files))
    return said(model, views=tuple(map(view, VIEWS)))


def of_films() -> Answer:
    bag = {"bag": {"images": {}}}
    model = manifest(inputs=[SEVERAL | bag], selftests=shown_on(["t.dcm", "t.dcm"]))
    return said(model, views=FILMS)


def of_slices(names: tuple[BagInstance, ...] = SLICES) -> Answer:
    accept = {"modalities": ["CT"], "volume": {}}
    steps = [{"name": "resize", "parameters": {"size": [None, 8, 8]}}]
    volume = {"kind": "volume", "layout": "NCDHW", "accept": accept, "steps": steps, "bag": {}}
    return said(manifest(inputs=[volume]), slices=names)


def shown_on(files: Any) -> list[dict[str, Any]]:
    return [{"title": "ordinary", "input": files, "logits": [0, 0, 0], "tolerance": 0.1}]


def view(fields: dict[str, Any]) -> View:
    return View.model_validate(fields)


def said(model: Manifest, **of: Any) -> Answer:
    outputs = torch.tensor(LOGITS, dtype=torch.float64)
    return Answer(model, outputs, Grid.identity((8, 8)), **of)


def resolved(given: Answer, **asked: Any) -> tuple[Chosen, ...]:
    return resolve(TARGETS.validate_python([asked]), given, predict(given)).chosen


def test_a_class_gives_a_map_of_each_view_and_any_score_does():
    for score, key in (("logit", "nodule"), ("probability", "nodule-probability")):
        found = resolved(of_views(), of="nodule", score=score)
        assert [each.target.key for each in found] == [f"{key}-front", f"{key}-side"]
        assert {each.target.about for each in found} == {"nodule"}
        assert len({each.scalar for each in found}) == 1


@pytest.mark.parametrize("score", [None, "probability", "margin"])
def test_one_views_map_can_be_asked_for_again_by_its_score(score):
    (found,) = resolved(of_views(), kind="view", of="nodule", view="side", score=score)
    again = found.target.again
    assert again == ViewTarget(kind="view", of="nodule", view="side", score=score)
    (second,) = resolved(of_views(), **again.model_dump())
    assert (second.scalar, second.target.key) == (found.scalar, found.target.key)
    assert found.target.is_logit is (score is None)


@pytest.mark.parametrize("score", [None, "probability"])
def test_an_image_of_a_bag_is_an_instance(score):
    asked = {"kind": "instance", "of": 0, "instance": "in_0004", "score": score}
    (found,) = resolved(of_films(), **asked)
    again = found.target.again
    assert again == InstanceTarget(kind="instance", of="nodule", instance="in_0004", score=score)
    assert found.target.view == "in_0004"
    assert found.target.part == "in_0004"
    assert found.target.key.endswith("-in_0004")
    both = resolved(of_films(), of=0)
    assert [each.target.again.instance for each in both] == ["in_0001", "in_0004"]


@pytest.mark.parametrize("which", [{"slice": 3}, {"instance": "in_0006"}])
def test_a_slice_is_named_by_its_number_or_its_object(which):
    (found,) = resolved(of_slices(), kind="instance", of="nodule", score="margin", **which)
    assert (found.target.slice, found.target.part, found.target.view) == (3, 3, None)
    assert found.target.key == "nodule-margin-slice-3"
    again = found.target.again
    assert again == InstanceTarget(kind="instance", of="nodule", slice=3, score="margin")


def test_a_slice_of_an_object_of_several_is_named_by_its_frame():
    target = {"kind": "instance", "of": "nodule", "instance": "in_0001"}
    (found,) = resolved(of_slices(FRAMES), frame=2, **target)
    assert found.target.slice == 2
    with pytest.raises(InvalidTarget):
        resolved(of_slices(FRAMES), **target)  # which of them


def test_a_bag_of_slices_has_one_map_of_all_unless_one_is_asked_for():
    (found,) = resolved(of_slices(), of="nodule")
    assert (found.target.key, found.target.part) == ("nodule", None)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        (of_films, {"instance": "in_0002"}),
        (of_slices, {"slice": 4}),
        (of_slices, {"instance": "in_0001"}),
    ],
)
def test_what_the_bag_does_not_hold_is_refused(given, asked):
    with pytest.raises(InvalidTarget):
        resolved(given(), kind="instance", of="nodule", **asked)


def test_kinds_follow_from_what_the_model_takes():
    assert of_views().manifest.target_kinds == ("class", "contrast", "view")
    assert of_films().manifest.target_kinds == ("class", "contrast", "instance")
    assert of_slices().manifest.target_kinds == ("class", "contrast", "instance")
    assert manifest().target_kinds == ("class", "contrast")
