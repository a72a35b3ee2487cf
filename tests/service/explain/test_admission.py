"""Admission: the estimate of a job's cost, the choice of a worker, the canonical request."""

import json

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from service.admission import (
    admit,
    canonical,
    check_against_catalog,
    estimated_cost,
    find_model,
    worker_for,
)
from service.domain.catalog import Catalog, ClassEntry, LayerEntry, ValueEntry
from service.domain.inputs import ImageCount
from service.domain.request import ExplanationRequest
from service.domain.variable import Variable
from service.errors.jobs import NoWorker
from service.errors.models import InvalidPackage, ModelSilent, ModelUnavailable, RemoteUnreachable
from service.errors.requests import InvalidParameter, InvalidRequest, InvalidTarget, UnknownModel
from service.fleet.base import WorkerRecord
from service.parameters import WORDS
from tests.support.fake_fleet import CATALOG, PACKAGES, method, model
from tests.support.parcels import instance, study
from workers.methods.base import METHODS

CHEST = model("chest@1.0.0", PACKAGES["chest@1.0.0"])


def request(**changes):
    fields = {"study": "st_1", "model": "chest", "targets": ["nodule"], "methods": ["saliency"]}
    return ExplanationRequest.model_validate(fields | changes)


def worker(name, **changes):
    fields = {
        "id": name,
        "pool": name,
        "device": "cpu",
        "started": 1,
        "version": "1",
        "packages": ("a",),
        "running": 0,
        "slots": 2,
    }
    return WorkerRecord(**fields | changes)


@pytest.mark.parametrize(
    ("changes", "milliseconds"),
    [
        ({}, 20),
        ({"targets": ["nodule", "effusion"]}, 40),
        ({"targets": ["above_threshold"]}, 40),
        ({"methods": ["integrated_gradients"]}, 640),
        ({"methods": ["saliency", "integrated_gradients"]}, 660),
        ({"methods": ["sweeping"]}, 1),
    ],
)
def test_cost_is_rows_times_seconds_with_gradients_per_target(changes, milliseconds):
    assert estimated_cost(request(**changes), CHEST) == milliseconds


def test_forward_rows_serve_all_targets_at_once():
    blackbox = model("b@1.0.0", "b", method_rows={"occlusion": {"forward": 100}})
    one = estimated_cost(request(methods=["occlusion"]), blackbox)
    many = estimated_cost(request(methods=["occlusion"], targets=[0, 1]), blackbox)
    assert one == many == 1000


def test_the_newest_version_is_the_greatest_number_not_the_last_word():
    versions = [model(f"chest@{each}", each) for each in ("1.9.0", "1.10.0", "1.2.0")]
    assert find_model("chest", versions).version == "1.10.0"
    assert find_model("chest@1.2.0", versions).version == "1.2.0"
    with pytest.raises(UnknownModel):
        find_model("ches", versions)


def test_a_newer_version_that_does_not_load_takes_nothing_over():
    failed = InvalidPackage("A self-test failed.").failure()
    versions = [
        model("chest@1.0.0", "a" * 64),
        model("chest@2.0.0", "b" * 64, state="unavailable", failure=failed),
    ]
    assert find_model("chest", versions).version == "1.0.0"
    with pytest.raises(ModelUnavailable):
        find_model("chest@2.0.0", versions)


def test_while_a_newer_versions_server_is_silent_no_older_one_answers():
    silent = RemoteUnreachable("There is no connection to the server.").failure()
    versions = [
        model("far@1.0.0", "a" * 64),
        model("far@2.0.0", "b" * 64, state="unavailable", failure=silent),
    ]
    with pytest.raises(ModelSilent):
        find_model("far", versions)


def test_a_model_whose_server_is_silent_can_be_asked_for_again():
    silent = RemoteUnreachable("There is no connection to the server.")
    elsewhere = model("far@1.0.0", "f" * 64, state="unavailable", failure=silent.failure())
    with pytest.raises(ModelSilent) as told:
        find_model("far", [elsewhere])
    assert told.value.retryable
    assert told.value.facts["reason"] == "remote_unreachable"


def test_a_target_layer_is_one_that_was_found_in_the_model():
    cam = method("grad_cam", layer={"type": "string"})
    layered = model(
        "l@1.0.0", "l", methods=("grad_cam",), layers=(LayerEntry(name="last", shape=(1,)),)
    )
    catalog = Catalog(methods=(cam,), models=(layered,))

    def ask(layer):
        choice = {"name": "grad_cam", "parameters": {"layer": layer}}
        return request(model="l", methods=[choice], artifacts=[])

    assert check_against_catalog(ask("last"), catalog) == layered
    with pytest.raises(InvalidParameter) as refusal:
        check_against_catalog(ask("first"), catalog)
    assert refusal.value.pointer == "/methods/0/parameters/layer"
    assert refusal.value.facts["layers"] == ["last"]
    assert "package lists it under 'explain.layers'" in refusal.value.detail


def box(of):
    return {"of": of, "box": [0, 0, 4, 4]}


@pytest.mark.parametrize("of", ["nodule", "effusion", 0, 1])
def test_what_was_observed_or_annotated_is_of_a_class_of_the_model(of):
    said = {"of": of, "score": 0.5, "positive": True}
    asked = request(observed=[said], annotations=[box(of)])
    assert check_against_catalog(asked, CATALOG).name == "chest"


@pytest.mark.parametrize("of", ["fracture", 2, "top1", "above_threshold"])
@pytest.mark.parametrize(
    ("field", "entry"), [("observed", {"score": 0.5}), ("annotations", {"box": [0, 0, 4, 4]})]
)
def test_of_another_class_nothing_can_be_said(field, entry, of):
    asked = request(**{field: [{"of": "nodule", **entry}, {"of": of, **entry}]})
    with pytest.raises(InvalidTarget) as refusal:
        check_against_catalog(asked, CATALOG)
    assert refusal.value.pointer == f"/{field}/1/of"
    assert refusal.value.facts["classes"] == ["nodule", "effusion"]


BARE = tuple(
    ClassEntry(key=each, label=each, index=k, threshold=None) for k, each in enumerate("ab")
)


@pytest.mark.parametrize("kind", ["class", "instance"])
def test_what_is_above_its_threshold_cannot_be_asked_for_where_nothing_has_one(kind):
    bare = model("bare@1.0.0", "b" * 64, classes=BARE, target_kinds=("class", "instance"))
    catalog = CATALOG.model_copy(update={"models": (bare,)})
    sides = {"instance": "in_0001"} if kind == "instance" else {}
    with pytest.raises(InvalidTarget) as refusal:
        check_against_catalog(
            request(model="bare", targets=[{"kind": kind, "of": "above_threshold", **sides}]),
            catalog,
        )
    assert refusal.value.pointer == "/targets/0/of"
    assert refusal.value.facts["classes"] == ["a", "b"]
    top = request(model="bare", targets=[{"kind": kind, "of": "top1", **sides}])
    assert check_against_catalog(top, catalog) == bare


@pytest.mark.parametrize("again", ["nodule", 0])
def test_a_class_is_observed_once_by_whichever_name(again):
    said = [{"of": each, "score": 0.5} for each in ("nodule", 1, again)]
    with pytest.raises(InvalidRequest) as refusal:
        check_against_catalog(request(observed=said), CATALOG)
    assert refusal.value.pointer == "/observed/2/of"


def test_a_class_may_be_annotated_more_than_once():
    asked = request(annotations=[box("nodule"), box(0)])
    assert check_against_catalog(asked, CATALOG).name == "chest"


def test_a_decision_is_compared_only_where_the_model_decides():
    undecided = model(
        "u@1.0.0", "u", classes=(ClassEntry(key="nodule", label="N", index=0, threshold=None),)
    )
    catalog = CATALOG.model_copy(update={"models": (undecided,)})

    def ask(**said):
        return request(model="u", observed=[{"of": "nodule", **said}])

    assert check_against_catalog(ask(score=0.5), catalog) == undecided
    with pytest.raises(InvalidRequest) as refusal:
        check_against_catalog(ask(score=0.5, positive=True), catalog)
    assert refusal.value.pointer == "/observed/0/positive"


AGED = model(
    "aged@1.0.0",
    "g",
    inputs=("image", "history", "laboratory"),
    variables=(
        Variable(key="age", label="Age", unit="a", minimum=0, maximum=18, baseline=9),
        Variable(key="sex", label="Sex", codes={"F": 0, "M": 1}, baseline=0.5, source="PatientSex"),
        Variable(key="dose", label="Dose", minimum=0, maximum=1, baseline=0, default=0),
    ),
)


@pytest.mark.parametrize(
    "values", [{"age": 9}, {"age": 18.0, "sex": "M"}, {"age": 0, "sex": "F", "dose": 0.25}]
)
def test_values_beside_the_image_are_those_that_the_model_takes(values):
    catalog = CATALOG.model_copy(update={"models": (AGED,)})
    assert check_against_catalog(request(model="aged", values=values), catalog) == AGED


@pytest.mark.parametrize(
    ("name", "values", "pointer", "words"),
    [
        ("aged", {}, "/values", "'missing'"),
        ("aged", {"sex": "M"}, "/values", "'missing'"),
        ("aged", {"age": 18.5}, "/values/age", "from 0 to 18 (in a)"),
        ("aged", {"age": -1}, "/values/age", "from 0 to 18"),
        ("aged", {"age": "M"}, "/values/age", "number from 0 to 18"),
        ("aged", {"age": 9, "sex": 1}, "/values/sex", "words F, M"),
        ("aged", {"age": 9, "sex": "O"}, "/values/sex", "words F, M"),
        ("aged", {"age": 9, "weight": 50}, "/values/weight", "no such value"),
        ("chest", {"age": 9}, "/values/age", "an image alone"),
    ],
)
def test_other_values_are_refused_by_name_and_not_repeated(name, values, pointer, words):
    chest = CATALOG.models[0]
    catalog = CATALOG.model_copy(update={"models": (AGED, chest)})
    with pytest.raises(InvalidRequest) as refusal:
        check_against_catalog(request(model=name, values=values), catalog)
    assert refusal.value.pointer == pointer
    assert words in refusal.value.detail
    assert "18.5" not in str(refusal.value.failure())


@pytest.mark.parametrize("value", [True, None, float("nan"), float("inf"), "N O", [1]])
def test_a_value_is_a_finite_number_or_a_word(value):
    with pytest.raises(ValidationError):
        request(values={"age": value})


@pytest.mark.parametrize("inputs", ["all", ["image"], ["history", "image"]])
def test_inputs_that_the_model_takes_may_be_asked_about(inputs):
    catalog = CATALOG.model_copy(update={"models": (AGED,)})
    asked = request(model="aged", values={"age": 9}, inputs=inputs)
    assert check_against_catalog(asked, catalog) == AGED


@pytest.mark.parametrize(
    ("inputs", "pointer"),
    [(["image", "ecg"], "/inputs/1"), (["history"], "/inputs"), ("image", "/inputs")],
)
def test_other_inputs_are_refused_with_those_that_the_model_takes(inputs, pointer):
    catalog = CATALOG.model_copy(update={"models": (AGED,)})
    with pytest.raises(InvalidRequest) as refusal:
        check_against_catalog(request(model="aged", values={"age": 9}, inputs=inputs), catalog)
    assert refusal.value.pointer == pointer
    assert refusal.value.facts["inputs"] == ["image", "history", "laboratory"]
    assert "'inputs'" in refusal.value.detail
    assert isinstance(inputs, list) or "Say 'all', or give a list" in refusal.value.detail


def test_the_least_busy_able_worker_is_chosen():
    workers = [
        worker("full", running=2),
        worker("half", running=1),
        worker("free", packages=("b",)),
        worker("leaving", draining=True),
    ]
    assert worker_for("a", workers).id == "half"
    assert worker_for("b", workers).id == "free"
    with pytest.raises(NoWorker):
        worker_for("c", workers)


def test_the_same_request_has_one_canonical_text():
    parameters = {"steps": 3, "path": "straight"}
    backwards = dict(reversed(parameters.items()))
    texts = {
        canonical(request(methods=[{"name": "integrated_gradients", "parameters": each}]))
        for each in (parameters, backwards)
    }
    (text,) = texts
    assert ExplanationRequest.model_validate_json(text) == request(
        methods=[{"name": "integrated_gradients", "parameters": parameters}]
    )
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize(
    ("value", "pointer", "detail"),
    [
        (0, "/methods/0/parameters/window", "Must be at least 1."),
        ("wide", "/methods/0/parameters/window", "Must be of type integer or array or null."),
        ([16, 0], "/methods/0/parameters/window/1", "Must be at least 1."),
        ([], "/methods/0/parameters/window", "Entries expected: at least 1."),
    ],
)
def test_a_parameter_of_several_types_is_told_by_the_type_it_has(value, pointer, detail):
    whole = {"type": "integer", "minimum": 1}
    several = {"type": "array", "items": whole, "minItems": 1}
    union = {"anyOf": [whole, several, {"type": "null"}]}
    assert breaches_of(union, value) == [{"pointer": pointer, "detail": detail}]


def breaches_of(schema, value):
    """Return what is told of a value for a method's parameter `window` of that schema."""
    sliding = method("sliding", window=schema)
    catalog = CATALOG.model_copy(
        update={
            "methods": (sliding,),
            "models": (CHEST.model_copy(update={"methods": ("sliding",)}),),
        }
    )
    asked = request(methods=[{"name": "sliding", "parameters": {"window": value}}])
    with pytest.raises(InvalidParameter) as refusal:
        check_against_catalog(asked, catalog)
    return refusal.value.facts["errors"]


@pytest.mark.parametrize(
    ("schema", "value", "detail"),
    [
        ({"type": "integer"}, "7", "Must be of type integer."),
        ({"enum": ["mean", "sum"]}, "max", 'Must be one of ["mean", "sum"].'),
        ({"const": "mean"}, "max", 'Must be "mean".'),
        ({"minimum": 2}, 1, "Must be at least 2."),
        ({"exclusiveMinimum": 0}, 0, "Must be over 0."),
        ({"maximum": 0.5}, 0.75, "Must be at most 0.5."),
        ({"exclusiveMaximum": 1}, 1, "Must be under 1."),
        ({"multipleOf": 2}, 7, "Must be a multiple of 2."),
        ({"type": "array", "minItems": 1}, [], "Entries expected: at least 1."),
        ({"type": "array", "maxItems": 1}, [8, 9], "Entries expected: at most 1."),
        ({"minLength": 2}, "a", "Characters expected: at least 2."),
        ({"maxLength": 2}, "abc", "Characters expected: at most 2."),
        ({"pattern": "^a$"}, "b", 'Must be text of the form "^a$".'),
        ({"anyOf": [{"multipleOf": 2}, {"type": "null"}]}, 7, "Must be a multiple of 2."),
    ],
)
def test_what_a_schema_asks_for_is_told_in_plain_words(schema, value, detail):
    pointer = "/methods/0/parameters/window"
    assert breaches_of(schema, value) == [{"pointer": pointer, "detail": detail}]


def keywords_of(schema):
    """Return the keywords that a schema, and those within it, put on values."""
    if isinstance(schema, list):
        return {word for each in schema for word in keywords_of(each)}
    if not isinstance(schema, dict):
        return set()
    named = keywords_of([*schema.get("properties", {}).values()])
    rest = {word: each for word, each in schema.items() if word not in ("properties", "default")}
    return named | ({*rest} & {*Draft202012Validator.VALIDATORS}) | keywords_of([*rest.values()])


@pytest.mark.parametrize("name", [*METHODS])
def test_there_are_words_for_all_that_the_methods_schemas_ask_for(name):
    told_of_parts = {"properties", "items", "anyOf", "additionalProperties", "required", "type"}
    assert keywords_of(METHODS[name].model_json_schema()) - told_of_parts <= {*WORDS}


@pytest.mark.parametrize("of", ["nodule", 0])
def test_a_class_that_is_not_for_use_is_refused_with_the_reason(of):
    models = tuple(
        each.model_copy(
            update={
                "classes": (
                    each.classes[0].model_copy(update={"not_for_use": "It never worked."}),
                    *each.classes[1:],
                )
            }
        )
        for each in CATALOG.models
    )
    catalog = CATALOG.model_copy(update={"models": models})
    with pytest.raises(InvalidTarget) as refusal:
        check_against_catalog(request(targets=[{"kind": "class", "of": of}]), catalog)
    assert refusal.value.pointer == "/targets/0/of"
    assert refusal.value.facts["why"] == "It never worked."
    assert "nodule" not in refusal.value.facts["classes"]


REGRESSION = model(
    "age@1.0.0",
    "e" * 64,
    task="regression",
    classes=(),
    values=(
        ValueEntry(key="bone_age", label="Bone age", index=0, unit="mo"),
        ValueEntry(key="height", label="Height", index=1, unit="cm", not_for_use="Untested."),
    ),
    target_kinds=("regression",),
)
SEGMENTATION = model("cysts@1.0.0", "f" * 64, task="segmentation", target_kinds=("segmentation",))
EXCLUSIVE = model(
    "one@1.0.0", "9" * 64, task="classification-multiclass", target_kinds=("class", "contrast")
)
BOXES = model("boxes@1.0.0", "8" * 64, task="detection", target_kinds=("detection",))
DEEP = model(
    "deep@1.0.0",
    "7" * 64,
    task="detection",
    target_kinds=("detection",),
    accept={"modalities": ["CT"], "volume": {}},
)
KINDS = CATALOG.model_copy(
    update={"models": (*CATALOG.models, REGRESSION, SEGMENTATION, EXCLUSIVE, BOXES, DEEP)}
)


def asked(of_model, **target):
    return check_against_catalog(request(model=of_model, targets=[target]), KINDS)


@pytest.mark.parametrize(
    ("of_model", "target"),
    [
        ("age", {"kind": "regression", "of": "bone_age", "reference": 120}),
        ("cysts", {"kind": "segmentation", "of": "nodule", "reduce": "sum"}),
        ("cysts", {"kind": "segmentation", "of": 0, "region": {"kind": "point", "at": [3, 4]}}),
        ("one", {"kind": "contrast", "of": "nodule", "versus": "effusion"}),
        ("one", {"kind": "contrast", "of": "top1", "versus": "rest"}),
        ("boxes", {"kind": "detection", "of": 0, "box": [1, 1, 2, 2]}),
        ("boxes", {"kind": "detection", "of": 0, "at": [1, 1]}),
        ("deep", {"kind": "detection", "of": 0, "box": [1, 1, 1, 2, 2, 2]}),
        ("deep", {"kind": "detection", "of": 0, "at": [1, 1, 1]}),
    ],
)
def test_a_target_of_the_models_own_kind_is_admitted(of_model, target):
    assert asked(of_model, **target).name == of_model


@pytest.mark.parametrize(
    ("of_model", "target", "kinds"),
    [
        ("age", {"of": "bone_age"}, ["regression"]),
        ("age", {"kind": "segmentation", "of": 0}, ["regression"]),
        ("cysts", {"of": "above_threshold"}, ["segmentation"]),
        ("one", {"kind": "regression", "of": 0}, ["class", "contrast"]),
    ],
)
def test_another_kind_of_target_is_refused_with_those_the_model_has(of_model, target, kinds):
    with pytest.raises(InvalidTarget) as refusal:
        asked(of_model, **target)
    assert refusal.value.pointer == "/targets/0/kind"
    assert refusal.value.failure().facts["kinds"] == kinds


@pytest.mark.parametrize(
    ("of_model", "target", "pointer"),
    [
        ("age", {"kind": "regression", "of": "weight"}, "/of"),
        ("age", {"kind": "regression", "of": "height"}, "/of"),
        ("one", {"kind": "contrast", "of": "x", "versus": 0}, "/of"),
        ("one", {"kind": "contrast", "of": 0, "versus": "x"}, "/versus"),
        ("one", {"kind": "contrast", "of": 0, "versus": "nodule"}, "/versus"),
        ("cysts", {"kind": "segmentation", "of": "x"}, "/of"),
        (
            "cysts",
            {"kind": "segmentation", "of": 0, "region": {"kind": "point", "at": [1, 2, 3]}},
            "/region/at",
        ),
        ("boxes", {"kind": "detection", "of": 0, "box": [1, 1, 1, 2, 2, 2]}, "/box"),
        ("boxes", {"kind": "detection", "of": 0, "at": [1, 1, 1]}, "/at"),
        ("deep", {"kind": "detection", "of": 0, "box": [1, 1, 2, 2]}, "/box"),
        ("deep", {"kind": "detection", "of": 0, "at": [1, 1]}, "/at"),
    ],
)
def test_a_target_that_the_model_does_not_have_is_named_by_its_place(of_model, target, pointer):
    with pytest.raises(InvalidTarget) as refusal:
        asked(of_model, **target)
    assert refusal.value.pointer == f"/targets/0{pointer}"


SLICES = study(*(instance(id=f"in_000{k}", modality="CT", number_of_frames=5) for k in (1, 2)))


@pytest.mark.parametrize(
    ("field", "inside", "outside"),
    [
        ("box", [9, 7, 5, 12, 9, 9], [10, 7, 5, 12, 9, 9]),
        ("at", [9.4, 7.4, 5.4], [9.4, 7.4, 5.5]),
    ],
)
def test_what_lies_off_the_volume_is_refused_with_its_extent(field, inside, outside):
    def ask(place):
        target = {"kind": "detection", "of": 0, field: place}
        return admit(request(model="deep", targets=[target]), KINDS, SLICES)

    assert ask(inside).request.series == "se_0001"
    with pytest.raises(InvalidTarget) as refusal:
        ask(outside)
    assert refusal.value.pointer == f"/targets/0/{field}"
    assert refusal.value.facts == {"slices": 10, "rows": 8, "columns": 6}


@pytest.mark.parametrize(
    ("of_model", "observed"),
    [
        ("age", {"of": "bone_age", "score": 0.5}),
        ("age", {"of": "bone_age", "positive": True}),
        ("cysts", {"of": "nodule", "score": 0.5}),
        ("one", {"of": "nodule", "score": 5, "scale": "value"}),
    ],
)
def test_what_cannot_be_compared_with_the_models_answer_is_refused(of_model, observed):
    targets = [{"kind": "regression", "of": 0}] if of_model == "age" else [{"of": 0}]
    targets = [{"kind": "segmentation", "of": 0}] if of_model == "cysts" else targets
    with pytest.raises(InvalidRequest):
        check_against_catalog(request(model=of_model, targets=targets, observed=[observed]), KINDS)
    fine = {"of": "bone_age", "score": 125.0, "scale": "value", "tolerance": 1}
    age = [{"kind": "regression", "of": 0}]
    check_against_catalog(request(model="age", targets=age, observed=[fine]), KINDS)


@pytest.mark.parametrize(
    "region",
    [
        {"kind": "box", "box": [4, 4, 2, 8]},
        {"kind": "box", "box": [0, 0, 1]},
        {"kind": "mask"},
        {"kind": "point", "at": [-1, 0]},
    ],
)
def test_a_region_that_is_none_is_no_request(region):
    with pytest.raises(ValidationError):
        request(targets=[{"kind": "segmentation", "of": 0, "region": region}])


MARKS = "1.2.840.10008.5.1.4.1.1.66.4"


def admitted(*marks, **region):
    """Admit a request for a segment of a study of one image and some segmentations."""
    image = instance(id="in_0001")
    others = (instance(id=each, sop_class_uid=MARKS, modality="CR") for each in marks)
    target = {"kind": "segmentation", "of": 0, "region": {"kind": "segment", **region}}
    return admit(request(model="cysts", targets=[target]), KINDS, study(image, *others))


def test_the_one_segmentation_of_a_study_is_meant_and_never_explained():
    made = admitted("in_0002").request
    assert made.instance == "in_0001"
    assert made.targets[0].region.instance == "in_0002"
    assert admitted("in_0002", "in_0003", instance="in_0003").request.segments[0].instance == (
        "in_0003"
    )


@pytest.mark.parametrize(
    ("marks", "region"),
    [
        ((), {}),
        (("in_0002", "in_0003"), {}),
        (("in_0002",), {"instance": "in_0001"}),
        (("in_0002",), {"instance": "in_0009"}),
    ],
)
def test_a_segmentation_that_is_not_there_is_refused_with_those_that_are(marks, region):
    with pytest.raises(InvalidTarget) as refusal:
        admitted(*marks, **region)
    assert refusal.value.pointer == "/targets/0/region/instance"
    assert refusal.value.facts["segmentations"] == list(marks)


def test_a_bag_of_images_is_frozen_with_a_series_for_each_image():
    films = model(
        "films@1.0.0",
        "f",
        images=ImageCount(least=2, most=3),
        target_kinds=("class", "instance"),
        accept={"modalities": ["CR"]},
    )
    offered = CATALOG.model_copy(update={"models": (films,)})
    of = study(*(instance(id=f"in_000{k}", laterality=side) for k, side in ((1, "L"), (2, "R"))))

    def ask(**changes):
        return admit(request(model="films", **changes), offered, of)

    admitted = ask(artifacts=["dicom_sc"])
    assert admitted.request.instances == ("in_0001", "in_0002")
    assert {name.rpartition(".")[2] for name in admitted.addition.series} == {"in_0001", "in_0002"}
    one = {"kind": "instance", "of": "nodule"}
    assert ask(targets=[one | {"instance": "in_0002"}]).request.targets[0].instance == "in_0002"
    with pytest.raises(InvalidTarget) as refused:
        ask(targets=["nodule", one | {"instance": "in_0003"}])
    assert refused.value.pointer == "/targets/1/instance"
    assert refused.value.facts["instances"] == ["in_0001", "in_0002"]
    for none, field in (({"slice": 1}, "slice"), ({"instance": "in_0001", "frame": 1}, "frame")):
        with pytest.raises(InvalidTarget) as strange:
            ask(targets=[one | none])
        assert strange.value.pointer == f"/targets/0/{field}"
    box = {"of": "nodule", "box": [1, 1, 4, 4]}
    assert ask(annotations=[box | {"view": "in_0002"}])
    with pytest.raises(InvalidRequest) as unplaced:
        ask(annotations=[box])
    assert unplaced.value.pointer == "/annotations/0/view"
