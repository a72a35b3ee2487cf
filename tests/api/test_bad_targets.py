"""A target that a model does not have is refused with what this model has."""

import hashlib
import json

import pytest

from service.domain.boxes import BoxDecoding
from service.domain.catalog import ValueEntry
from service.domain.inputs import ImageCount
from service.domain.outputs import ClassSpec, EventSpec, Horizon, Output
from service.domain.scores import scores_of
from tests.support.fake_fleet import CATALOG, METHODS, FakeWorker, model
from tests.support.phantom_dicom import encoded, image
from tests.support.problems import problem

pytestmark = pytest.mark.usefixtures("nothing_is_queued", "more_models")

SPECS = (ClassSpec(key="nodule", label="Nodule"), ClassSpec(key="effusion", label="Effusion"))
ROWS = BoxDecoding(
    layout="rows", channels=("box", "objectness", "classes"), form="corners", scores="sigmoid"
)
PLAIN = ROWS.model_copy(update={"channels": ("box", "classes")})
OUTPUT = Output(classes=SPECS)
MULTILABEL, MULTICLASS = "classification-multilabel", "classification-multiclass"


def known(name, task, kinds, output=OUTPUT, **others):
    scores = scores_of(task, output)
    package = hashlib.sha256(name.encode()).hexdigest()
    whole = model(f"{name}@1.0.0", package, task=task, target_kinds=kinds, scores=scores)
    return whole.model_copy(update=others)


MODELS = (
    known("labels", MULTILABEL, ("class", "contrast")),
    known("exclusive", MULTICLASS, ("class", "contrast")),
    known("masks", "segmentation", ("segmentation",)),
    known("boxes", "detection", ("detection",), Output(classes=SPECS, boxes=ROWS)),
    known("plain_boxes", "detection", ("detection",), Output(classes=SPECS, boxes=PLAIN)),
    known("films", MULTILABEL, ("class", "contrast", "instance"), images=ImageCount()),
    known(
        "ages",
        "regression",
        ("regression", "instance"),
        classes=(),
        values=(ValueEntry(key="age", label="Age", index=0, unit="a"),),
        images=ImageCount(),
    ),
)
EVENT = EventSpec(
    key="relapse",
    label="Relapse",
    unit="d",
    horizons=(Horizon(time=90), Horizon(time=365)),
)
TIMES = Output(event=EVENT, decoding="hazards")
MODELS += (
    known("events", "survival", ("time_to_event", "instance"), TIMES).model_copy(
        update={"event": EVENT, "images": ImageCount()}
    ),
)
LINEAR = METHODS[0].model_copy(update={"name": "lifting", "linear": True, "differentiates": True})
SMOOTH = METHODS[0].model_copy(update={"differentiates": True})


@pytest.fixture
def more_models(served):
    methods = (SMOOTH, *METHODS[1:], LINEAR)
    models = [each.model_copy(update={"methods": (*each.methods, "lifting")}) for each in MODELS]
    hidden = MODELS[0].model_copy(
        update={"name": "secret", "package": "0" * 64, "tenants": ("other",)}
    )
    catalog = CATALOG.model_copy(
        update={"methods": methods, "models": (*CATALOG.models, *models, hidden)}
    )
    FakeWorker(served.backends).publish(catalog)


def refused(client, ask, model, target, *, methods=("saliency",), code="invalid_target"):
    body = ask | {"model": model, "targets": [target], "methods": [*methods]}
    return problem(client.post("/v1/explanations", json=body), 422, code)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("chest", ["class"]),
        ("labels", ["class", "contrast"]),
        ("masks", ["segmentation"]),
        ("films", ["class", "contrast", "instance"]),
    ],
)
@pytest.mark.parametrize("kind", ["tea_leaves", "regression", None, 3, ["class"]])
def test_a_kind_that_the_model_has_not_is_refused_with_those_it_has(
    client, ask, name, kinds, *, kind
):
    body = refused(client, ask, name, {"kind": kind, "of": 0})
    assert body["facts"]["kinds"] == kinds
    (told,) = body["errors"]
    assert told["pointer"] == "/targets/0/kind"
    assert "tea_leaves" not in json.dumps(body)


@pytest.mark.parametrize(
    ("name", "target", "field", "detail"),
    [
        ("chest", -1, "/of", "Expected a number of at least 0."),
        ("chest", "Bad Key", "/of", "Expected text of the form ^[a-z0-9][a-z0-9._-]{0,63}$"),
        ("chest", {"of": None}, "/of", "Expected a whole number. Or: Expected text."),
        ("chest", {}, "/of", "This field is required."),
        ("chest", 1.5, "", "Expected an object."),
        (
            "chest",
            {"of": 0, "score": "odds"},
            "/score",
            "Expected 'logit', 'probability' or 'margin'.",
        ),
        ("labels", {"kind": "contrast", "of": 0}, "/versus", "This field is required."),
        (
            "masks",
            {"kind": "segmentation", "of": 0, "region": {"kind": "point", "at": [1]}},
            "/region/at",
            "Entries expected: at least 2.",
        ),
        (
            "masks",
            {"kind": "segmentation", "of": 0, "region": {"kind": "box", "box": [2, 2, 1, 1]}},
            "/region/box",
            "a box needs four numbers or six, each end after its start.",
        ),
        (
            "masks",
            {"kind": "segmentation", "of": 0, "region": {"kind": "lung"}},
            "/region",
            "Expected one of the kinds 'predicted_mask', 'box', 'point', 'segment'.",
        ),
        (
            "masks",
            {"kind": "segmentation", "of": 0, "reduce": "median"},
            "/reduce",
            "Expected 'mean', 'sum' or 'margin'.",
        ),
        ("events", {"kind": "time_to_event", "horizon": "365"}, "/horizon", "Expected a number."),
        (
            "films",
            {"kind": "instance", "of": 0},
            "",
            "name an 'instance' of the study, or a 'slice' by its number.",
        ),
    ],
)
def test_each_wrong_field_of_a_target_is_told_once(client, ask, name, target, field, *, detail):
    body = refused(client, ask, name, target)
    assert body["errors"] == [{"pointer": f"/targets/0{field}", "detail": detail}]
    assert "kinds" in body["facts"]


@pytest.mark.parametrize("of", ["fracture", 7])
def test_a_class_that_is_not_there_comes_with_classes_and_kinds(client, ask, of):
    body = refused(client, ask, "labels", {"of": of})
    assert body["facts"] == {"classes": ["nodule", "effusion"], "kinds": ["class", "contrast"]}


def test_other_faults_are_told_beside_those_of_targets(client, ask):
    body = ask | {"targets": [{"kind": "tea_leaves"}, {"of": -1}], "grid": "fine"}
    told = problem(client.post("/v1/explanations", json=body), 422, "invalid_target")["errors"]
    assert {each["pointer"] for each in told} == {"/targets/0/kind", "/targets/1/of", "/grid"}


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"model": "unheard-of"}, 404, "unknown_model"),
        ({"model": "secret"}, 404, "unknown_model"),
        ({"model": "broken"}, 409, "model_unavailable"),
        ({"model": None}, 422, "invalid_request"),
    ],
)
def test_without_a_model_there_is_no_telling_which_kinds_it_has(client, ask, changes, status, code):
    asked = ask | {"targets": [{"kind": "tea_leaves"}]} | changes
    told = problem(client.post("/v1/explanations", json=asked), status, code)
    assert "contrast" not in told["facts"].get("kinds", [])


def test_a_form_tells_the_same(client, ask, dicom):
    fields = {key: each for key, each in ask.items() if key != "study"}
    fields |= {"model": "labels", "targets": [{"kind": "detection", "of": 0}]}
    answer = client.post(
        "/v1/explanations",
        files=[
            ("file", ("1.dcm", dicom, "application/dicom")),
            ("request", (None, json.dumps(fields), "application/json")),
        ],
    )
    body = problem(answer, 422, "invalid_target")
    assert body["facts"]["kinds"] == ["class", "contrast"]
    assert body["errors"][0]["pointer"].endswith("/targets/0/kind")


def test_before_any_worker_was_there_nobody_knows_the_kinds(served, client, ask):
    with served.backends.server.client() as redis:
        redis.flushall()
    body = ask | {"targets": [{"kind": "tea_leaves"}]}
    problem(client.post("/v1/explanations", json=body), 503, "no_worker")


@pytest.mark.parametrize(
    ("name", "target", "field"),
    [
        ("masks", {"kind": "segmentation", "region": {"kind": "box", "box": [0, 6, 9, 9]}}, "/box"),
        ("masks", {"kind": "segmentation", "region": {"kind": "point", "at": [8, 0]}}, "/at"),
        ("boxes", {"kind": "detection", "box": [8, 0, 9, 9]}, "/box"),
        ("boxes", {"kind": "detection", "at": [0, 5.5]}, "/at"),
    ],
)
def test_a_place_off_the_image_is_refused_with_the_images_size(client, ask, name, target, field):
    body = refused(client, ask, name, target | {"of": 0})
    (told,) = body["errors"]
    assert told["pointer"].startswith("/targets/0/")
    assert told["pointer"].endswith(field)
    assert "'rows' and 'columns'" in told["detail"]
    assert (body["facts"]["rows"], body["facts"]["columns"]) == (8, 6)


# ------------------------------------------------------------------------- scores


@pytest.mark.parametrize(
    ("name", "score", "scores"),
    [
        (
            "plain_boxes",
            "objectness",
            ["class", "iou_weighted", "top", "left", "bottom", "right"],
        ),
        (
            "boxes",
            "end_slice",
            ["class", "objectness", "iou_weighted", "top", "left", "bottom", "right"],
        ),
    ],
)
def test_a_score_that_a_detector_does_not_give_is_refused_with_those_it_gives(
    client, ask, name, score, *, scores
):
    body = refused(client, ask, name, {"kind": "detection", "of": 0, "score": score})
    assert body["errors"][0]["pointer"] == "/targets/0/score"
    assert body["facts"]["scores"] == scores


def test_one_class_among_those_that_exclude_each_other_has_no_margin(client, ask, served):
    output = Output(classes=(SPECS[0], SPECS[1].model_copy(update={"not_for_use": "Broken."})))
    alone = known("alone", MULTICLASS, ("class",), output)
    FakeWorker(served.backends).publish(CATALOG.model_copy(update={"models": (alone,)}))
    body = refused(client, ask, "alone", {"of": 0, "score": "margin"})
    assert body["facts"]["scores"] == ["logit", "probability"]


def test_a_value_has_no_score_to_be_chosen(client, ask):
    target = {"kind": "instance", "of": "age", "instance": "in_0001", "score": "logit"}
    body = refused(client, ask, "ages", target)
    assert body["errors"][0]["pointer"] == "/targets/0/score"


@pytest.mark.parametrize(
    ("name", "target", "method", "scores", "methods"),
    [
        (
            "labels",
            {"of": 0, "score": "probability"},
            "lifting",
            ["logit", "margin"],
            ["saliency", "integrated_gradients", "sweeping", "occlusion"],
        ),
        (
            "exclusive",
            {"kind": "contrast", "of": 0, "versus": "rest"},
            "lifting",
            ["difference"],
            ["saliency", "integrated_gradients", "sweeping", "occlusion"],
        ),
        (
            "boxes",
            {"kind": "detection", "of": 0, "score": "iou_weighted"},
            "saliency",
            ["class", "objectness", "top", "left", "bottom", "right"],
            ["integrated_gradients", "sweeping", "occlusion"],
        ),
        (
            "films",
            {"kind": "instance", "of": 0, "instance": "in_0001", "score": "probability"},
            "lifting",
            ["logit", "margin"],
            ["saliency", "integrated_gradients", "sweeping", "occlusion"],
        ),
        (
            "events",
            {"kind": "time_to_event", "horizon": 365},
            "lifting",
            [],
            ["saliency", "integrated_gradients", "sweeping", "occlusion"],
        ),
        (
            "events",
            {"kind": "instance", "of": 0, "instance": "in_0001"},
            "lifting",
            [],
            ["saliency", "integrated_gradients", "sweeping", "occlusion"],
        ),
    ],
)
def test_a_method_that_is_not_right_of_a_score_is_refused_with_those_that_are(
    client, ask, name, target, method, *, scores, methods
):
    asked = ("occlusion", method)
    body = refused(client, ask, name, target, methods=asked, code="method_not_applicable")
    assert body["errors"][0]["pointer"] == "/methods/1/name"
    assert body["facts"] == {
        "method": method,
        "score": target.get("score", "horizon" if name == "events" else "rest"),
        "scores": scores,
        "methods": methods,
    }


# ---------------------------------------------------------------------- instances


@pytest.fixture
def films(client):
    """A study of two radiographs."""
    parts = []
    for number in (1, 2):
        film = image()
        film.SOPInstanceUID += f".{number}"
        parts.append(("file", (f"{number}.dcm", encoded(film), "application/dicom")))
    answer = client.post("/v1/studies", files=parts)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


@pytest.mark.parametrize(
    ("which", "field", "fact"),
    [
        ({"instance": "in_0009"}, "instance", {"instances": ["in_0001", "in_0002"]}),
        ({"slice": 1}, "slice", {}),
        ({"instance": "in_0001", "frame": 1}, "frame", {}),
    ],
)
def test_an_instance_that_the_bag_does_not_hold_is_refused(
    client, ask, films, which, field, *, fact
):
    target = {"kind": "instance", "of": 0, **which}
    body = refused(client, ask | {"study": films}, "films", target)
    assert body["errors"][0]["pointer"] == f"/targets/0/{field}"
    assert fact.items() <= body["facts"].items()


def test_a_view_of_a_bag_is_an_instance(client, ask, films):
    target = {"kind": "view", "of": 0, "view": "in_0001"}
    body = refused(client, ask | {"study": films}, "films", target)
    assert body["facts"]["kinds"] == ["class", "contrast", "instance"]
