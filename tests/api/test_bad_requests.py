"""Every wrong request for an explanation has its own status and code, and queues nothing."""

import json

import pytest

from service.domain.catalog import Catalog, LayerEntry
from service.packages import PackageRecord
from tests.support.fake_fleet import CATALOG, FakeWorker, method, model
from tests.support.phantom_dicom import encoded, image
from tests.support.problems import problem
from tests.support.served import NO_STUDY
from workers.methods.occlusion import Occlusion

pytestmark = pytest.mark.usefixtures("nothing_is_queued")


@pytest.mark.parametrize(
    ("change", "status", "code", "pointer"),
    [
        ({"model": "unheard-of"}, 404, "unknown_model", "/model"),
        ({"model": "chest@9.9.9"}, 404, "unknown_model", "/model"),
        ({"values": {"age": 9}}, 422, "invalid_request", "/values/age"),
        ({"values": {"age": True}}, 422, "invalid_request", "/values/age"),
        ({"values": {"AGE": 9}}, 422, "invalid_request", "/values/AGE"),
        ({"model": "broken"}, 409, "model_unavailable", "/model"),
        ({"methods": ["tea_leaves"]}, 404, "unknown_method", "/methods/0/name"),
        ({"artifacts": ["tiff"]}, 422, "unknown_format", "/artifacts/0"),
        ({"targets": ["nodule", "fracture"]}, 422, "invalid_target", "/targets/1/of"),
        ({"targets": [2]}, 422, "invalid_target", "/targets/0/of"),
        ({"study": NO_STUDY}, 404, "not_found", None),
        ({"study": "st_other"}, 404, "not_found", None),
        ({"instance": "in_0002"}, 404, "not_found", "/instance"),
        ({"methods": []}, 422, "invalid_request", "/methods"),
        ({"methods": ["saliency", "saliency"]}, 422, "invalid_request", "/methods"),
        ({"priority": "urgent"}, 422, "invalid_request", "/priority"),
        ({"label": "DOE JOHN"}, 422, "invalid_request", "/label"),
        ({"lable": "x"}, 422, "invalid_request", "/lable"),
        ({"study": None}, 422, "invalid_request", "/study"),
        ({"observed": [{"of": "fracture", "score": 0.5}]}, 422, "invalid_target", "/observed/0/of"),
        ({"observed": [{"of": 2, "positive": True}]}, 422, "invalid_target", "/observed/0/of"),
        ({"observed": [{"of": "nodule"}]}, 422, "invalid_request", "/observed/0"),
        ({"observed": [{"of": 0, "score": 1.5}]}, 422, "invalid_request", "/observed/0"),
        ({"observed": [{"of": 0, "score": "1e999"}]}, 422, "invalid_request", "/observed/0/score"),
        (
            {"observed": [{"of": "nodule", "score": 0.5}, {"of": 0, "positive": True}]},
            422,
            "invalid_request",
            "/observed/1/of",
        ),
        (
            {"annotations": [{"of": 2, "box": [0, 0, 1, 1]}]},
            422,
            "invalid_target",
            "/annotations/0/of",
        ),
        (
            {"annotations": [{"of": 0, "box": [0, 0, 99_999, 4]}]},
            422,
            "invalid_request",
            "/annotations/0/box",
        ),
        (
            {"checks": "none", "annotations": [{"of": 0, "box": [0, 0, 4, 4]}]},
            422,
            "invalid_request",
            "",
        ),
    ],
)
def test_a_wrong_field_is_named(client, ask, change, status, code, *, pointer):
    body = problem(client.post("/v1/explanations", json=ask | change), status, code)
    pointers = [each["pointer"] for each in body["errors"]]
    assert pointers == ([] if pointer is None else [pointer])


@pytest.mark.parametrize(
    ("change", "pointer", "detail"),
    [
        ({"targets": "nodule"}, "/targets", "Expected a list."),
        ({"targets": []}, "/targets", "Entries expected: at least 1."),
        ({"targets": [*range(33)]}, "/targets", "Entries expected: at most 32."),
        (
            {"methods": [{"name": "saliency", "int": 1}]},
            "/methods/0/int",
            "There is no such field.",
        ),
        ({"grid": "fine"}, "/grid", "Expected 'native' or 'source'."),
        ({"allow_mismatch": "maybe"}, "/allow_mismatch", "Expected true or false."),
        ({"observed": [{"of": 0, "score": "high"}]}, "/observed/0/score", "Expected a number."),
        (
            {"annotations": [{"of": 0, "box": [0, 0, 1]}]},
            "/annotations/0/box",
            "Entries expected: at least 4.",
        ),
    ],
)
def test_each_wrong_field_is_told_once_and_in_our_words(client, ask, change, pointer, detail):
    body = problem(client.post("/v1/explanations", json=ask | change), 422, "invalid_request")
    assert body["errors"] == [{"pointer": pointer, "detail": detail}]


@pytest.mark.parametrize(
    ("parameters", "pointer"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": 513}, "steps"),
        ({"steps": "many"}, "steps"),
        ({"steps": 1.5}, "steps"),
        ({"steps": 32.0}, "steps"),
        ({"steps": "32"}, "steps"),
        ({"steps": True}, "steps"),
        ({"path": "winding"}, "path"),
        ({"stepps": 3}, "stepps"),
        ({"baseline": 0}, "baseline"),
    ],
)
def test_a_wrong_parameter_is_named_and_its_value_is_not(client, ask, parameters, pointer):
    request = ask | {"methods": [{"name": "integrated_gradients", "parameters": parameters}]}
    answer = client.post("/v1/explanations", json=request)
    body = problem(answer, 422, "invalid_parameter")
    assert [each["pointer"] for each in body["errors"]] == [f"/methods/0/parameters/{pointer}"]
    assert body["facts"]["parameters"] == ["path", "steps"]
    assert "winding" not in answer.text
    assert "many" not in answer.text


def test_every_wrong_parameter_is_told_at_once(client, ask):
    wrong = {"steps": 0, "path": "winding", "extra": 1}
    request = ask | {"methods": [{"name": "integrated_gradients", "parameters": wrong}]}
    body = problem(client.post("/v1/explanations", json=request), 422, "invalid_parameter")
    assert len(body["errors"]) == 3


def test_a_method_that_the_model_cannot_serve_is_refused_with_reason_and_choice(client, ask):
    answer = client.post("/v1/explanations", json=ask | {"model": "blackbox"})
    body = problem(answer, 422, "method_not_applicable")
    assert "input gradient" in body["detail"]
    assert body["facts"]["methods"] == ["occlusion"]
    assert body["errors"][0]["pointer"] == "/methods/0/name"


def test_an_invalid_target_comes_with_the_valid_ones(client, ask):
    answer = client.post("/v1/explanations", json=ask | {"targets": ["fracture"]})
    body = problem(answer, 422, "invalid_target")
    assert body["facts"]["classes"] == ["nodule", "effusion"]


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity"])
def test_a_score_that_is_no_finite_number_is_no_json(client, ask, number):
    observed = [{"of": "nodule", "score": 0, "scale": "logit"}]
    text = json.dumps(ask | {"observed": observed}).replace('"score": 0', f'"score": {number}')
    headers = {"Content-Type": "application/json"}
    answer = client.post("/v1/explanations", content=text, headers=headers)
    problem(answer, 400, "malformed_body")
    assert number not in answer.text


def test_a_model_that_failed_its_self_test_says_so(client, ask):
    body = problem(
        client.post("/v1/explanations", json=ask | {"model": "broken"}), 409, "model_unavailable"
    )
    assert body["facts"]["reason_detail"] == "Self-test 'one' gave other logits."
    assert body["facts"]["reason_facts"] == {"field": "/selftests"}


def test_a_request_too_long_for_its_record_is_refused(client, ask):
    deep = {"windows": [list(range(100, 999)) for _ in range(2)]}
    request = ask | {"methods": [{"name": "sweeping", "parameters": deep}]}
    body = problem(client.post("/v1/explanations", json=request), 413, "too_large")
    assert body["facts"]["limit"] == 6 * 1024
    assert body["facts"]["observed"] > 6 * 1024


def test_the_wrong_modality_is_refused_with_the_rule_it_breaks(client, ask, send):
    study = send(Modality="MR", StudyInstanceUID="2.25.4").json()["id"]
    body = problem(
        client.post("/v1/explanations", json=ask | {"study": study}), 422, "not_accepted_by_model"
    )
    assert body["facts"]["refused"] == {"in_0001": ["modalities"]}
    assert body["facts"]["accepts"]["modalities"] == ["CR", "DX"]


def test_several_fitting_images_are_offered(client, ask, two_images):
    answer = client.post("/v1/explanations", json=ask | {"study": two_images})
    body = problem(answer, 422, "ambiguous_study")
    assert body["facts"]["instances"] == ["in_0001", "in_0002"]
    chosen = ask | {"study": two_images, "instance": "in_0002"}
    answer = client.post("/v1/explanations:validate", json=chosen)
    assert answer.json()["request"]["instance"] == "in_0002"


def test_images_are_offered_by_what_people_call_them(client, ask):
    files = [
        ("file", (name, encoded(image(SOPInstanceUID=f"2.25.{uid}", InstanceNumber=uid))))
        for name, uid in (("b", 12), ("a", 5))
    ]
    study = client.post("/v1/studies", files=files).json()["id"]
    answer = client.post("/v1/explanations", json=ask | {"study": study})
    body = problem(answer, 422, "ambiguous_study")
    assert body["facts"]["choices"] == [
        {"id": "in_0001", "part": 1, "series_number": None, "instance_number": 12},
        {"id": "in_0002", "part": 2, "series_number": None, "instance_number": 5},
    ]


def test_a_frame_of_several_must_be_named(client, ask, send):
    several = {
        "study": send(StudyInstanceUID="2.25.4", NumberOfFrames=3, Rows=4, Columns=4).json()["id"]
    }
    body = problem(client.post("/v1/explanations", json=ask | several), 422, "ambiguous_study")
    assert (body["errors"][0]["pointer"], body["facts"]["number_of_frames"]) == ("/frame", 3)
    refused = client.post("/v1/explanations", json=ask | several | {"frame": 4})
    assert problem(refused, 422, "invalid_request")["errors"][0]["pointer"] == "/frame"
    answer = client.post("/v1/explanations:validate", json=ask | several | {"frame": 3})
    assert answer.json()["request"]["frame"] == 3


def test_a_series_for_a_model_of_single_images_says_what_to_name(client, ask, two_images):
    asked = ask | {"study": two_images, "series": "se_0001"}
    answer = client.post("/v1/explanations", json=asked)
    body = problem(answer, 422, "single_image_model")
    assert "takes single images" in body["detail"]
    assert "'instance'" in body["detail"]
    assert body["errors"][0]["pointer"] == "/series"
    assert body["facts"]["instances"] == ["in_0001", "in_0002"]
    answer = client.post("/v1/explanations:validate", json=asked | {"instance": "in_0002"})
    assert answer.json()["request"]["instance"] == "in_0002"


def test_an_enhanced_volume_for_a_model_of_single_images_says_what_to_name(
    served, client, ask, send
):
    flat = model("slices@1.0.0", "e" * 64, accept={"modalities": ["CT"]})
    models = (*CATALOG.models, flat)
    FakeWorker(served.backends).publish(CATALOG.model_copy(update={"models": models}))
    study = send(
        StudyInstanceUID="2.25.4", Modality="CT", NumberOfFrames=3, Rows=4, Columns=4
    ).json()["id"]
    asked = ask | {"model": "slices", "study": study}
    body = problem(client.post("/v1/explanations", json=asked), 422, "single_image_model")
    assert "volume of several frames" in body["detail"]
    assert (body["errors"][0]["pointer"], body["facts"]["number_of_frames"]) == ("/frame", 3)
    answer = client.post("/v1/explanations:validate", json=asked | {"frame": 2})
    assert answer.json()["request"]["frame"] == 2


@pytest.mark.parametrize(
    ("parameters", "pointer", "detail"),
    [
        ({"window": 8, "stride": 9}, "stride", "'stride' must be at most 'window'."),
        ({"window": [24, 8], "stride": 9}, "stride", "'stride' must be at most 'window'."),
        ({"stride": 17}, "stride", "'stride' must be at most 'window'."),
        ({"window": 64}, "window", "Must be under 64, the longest edge of the model's input."),
        ({"window": [8, 80]}, "window", "Must be under 64, the longest edge of the model's input."),
    ],
)
@pytest.mark.parametrize("path", ["/v1/explanations", "/v1/explanations:validate"])
def test_parameters_that_do_not_go_together_are_refused_before_anything_is_queued(
    served, client, ask, *, path, parameters, pointer, detail
):
    catalog = CATALOG.model_copy(
        update={
            "models": (model("wide@1.0.0", "d" * 64, shape=(1, 48, 64)),),
            "methods": (method("occlusion", **Occlusion.model_json_schema()["properties"]),),
        }
    )
    FakeWorker(served.backends).publish(catalog)
    asked = ask | {"model": "wide", "methods": [{"name": "occlusion", "parameters": parameters}]}
    body = problem(client.post(path, json=asked), 422, "invalid_parameter")
    assert body["errors"] == [{"pointer": f"/methods/0/parameters/{pointer}", "detail": detail}]
    fitting = {"name": "occlusion", "parameters": {"window": [24, 63], "stride": 24}}
    answer = client.post("/v1/explanations:validate", json=asked | {"methods": [fitting]})
    assert answer.status_code == 200


@pytest.mark.parametrize("layer", ["shared", "unused"])
def test_a_declared_layer_that_cannot_be_used_is_refused_with_the_probes_reason(
    served, client, ask, layer
):
    refused = {
        "shared": "The layer 'shared' was reached more than once.",
        "unused": "The layer 'unused' was not reached.",
    }
    entry = model(
        "reused@1.0.0",
        "e" * 64,
        methods=("grad_cam",),
        layers=(LayerEntry(name="last", shape=(8, 4, 4)),),
        refused_layers=refused,
    )
    catalog = CATALOG.model_copy(
        update={
            "models": (*CATALOG.models, entry),
            "methods": (*CATALOG.methods, method("grad_cam", layer={"type": "string"})),
        }
    )
    FakeWorker(served.backends).publish(catalog)
    choice = {"name": "grad_cam", "parameters": {"layer": layer}}
    asked = ask | {"model": "reused", "methods": [choice]}
    body = problem(client.post("/v1/explanations", json=asked), 422, "invalid_parameter")
    assert body["errors"][0]["pointer"] == "/methods/0/parameters/layer"
    assert body["facts"]["reason"] == refused[layer]
    assert body["facts"]["layers"] == ["last"]
    assert refused[layer] in body["detail"]


def test_without_a_worker_the_request_waits_for_nobody(served, client, ask):
    FakeWorker(served.backends).retire()
    body = problem(client.post("/v1/explanations", json=ask), 503, "no_worker")
    assert body["retryable"] is True


def test_a_worker_that_drains_gets_no_more_work(served, client, ask):
    FakeWorker(served.backends).publish(draining=True)
    problem(client.post("/v1/explanations", json=ask), 503, "no_worker")


def test_while_a_worker_still_loads_a_model_the_request_is_to_come_again(served, client, ask):
    starting = FakeWorker(served.backends)
    starting.publish(packages=(), loading=True)
    body = problem(client.post("/v1/explanations", json=ask), 503, "no_worker")
    assert "has not loaded this model yet" in body["detail"]
    starting.publish(Catalog(methods=CATALOG.methods), loading=True)
    with served.backends.server.client() as redis:
        redis.delete(*redis.keys("*:fleet:last"))  # nobody knows any model
    problem(client.post("/v1/explanations", json=ask), 404, "unknown_model")
    chest = PackageRecord(
        name="chest", version="1.0.0", package="a" * 64, title="", registered=1, bytes=1
    )
    served.backends.store.put("models/index/chest/1.0.0.json", chest.model_dump_json().encode())
    for known in ("chest", "chest@1.0.0"):
        answer = client.post("/v1/explanations", json={**ask, "model": known})
        assert "has not loaded this model yet" in problem(answer, 503, "no_worker")["detail"]
    answer = client.post("/v1/explanations", json={**ask, "model": "chest@2.0.0"})
    problem(answer, 404, "unknown_model")


def test_a_service_that_never_had_a_worker_says_so(served, client, ask):
    with served.backends.server.client() as redis:
        redis.flushall()
    problem(client.post("/v1/explanations", json=ask), 503, "no_worker")
