"""Models and methods: told of, registered, withdrawn."""

import jsonschema
import pytest
import yaml

from service.contents import pack
from service.domain.catalog import Catalog
from service.domain.job import INSTALLATION
from service.fleet.base import Leave
from service.keys import Scope
from service.queue.base import Filter
from tests.support.fake_fleet import BROKEN, CATALOG, FakeWorker, model
from tests.support.packages import write_package
from tests.support.problems import problem

ZIP = {"Content-Type": "application/zip"}
PLACE = "/v1/models/small/versions/1.0.0"


@pytest.fixture
def package(tmp_path):
    """Bytes of a valid package."""
    pack(write_package(tmp_path / "small"), tmp_path / "small.zip")
    return (tmp_path / "small.zip").read_bytes()


def probe_record(served):
    """The one probe there is."""
    (job,) = served.backends.queue.list(INSTALLATION, Filter()).jobs
    return job


def test_models_tell_what_they_can_be_asked(client):
    models = client.get("/v1/models").json()["models"]
    listed = {f"{each['name']}@{each['version']}": each for each in models}
    assert set(listed) == {"blackbox@1.0.0", "broken@1.0.0", "chest@1.0.0", "chest@1.1.0"}
    assert listed["blackbox@1.0.0"]["methods"] == ["occlusion"]
    assert "input gradient" in listed["blackbox@1.0.0"]["refused"]["saliency"]
    assert listed["broken@1.0.0"]["failure"]["code"] == "model_unavailable"


def test_one_model_and_one_version_can_be_asked_for(client):
    versions = [each["version"] for each in client.get("/v1/models/chest").json()["models"]]
    assert versions == ["1.0.0", "1.1.0"]
    assert client.get("/v1/models/chest/versions/1.0.0").json()["version"] == "1.0.0"


@pytest.mark.parametrize(
    "path", ["unheard-of", "chest/versions/9.9.9", "chest/versions/x", "CHEST"]
)
def test_an_unknown_model_is_not_found(client, path):
    problem(client.get(f"/v1/models/{path}"), 404, "unknown_model")


def test_a_package_is_registered_and_waits_for_a_worker(client, package):
    answer = client.put(PLACE, content=package, headers=ZIP)
    assert answer.status_code == 201, answer.text
    (waiting,) = client.get("/v1/models").json()["registered"]
    assert (waiting["name"], waiting["version"]) == ("small", "1.0.0")
    assert waiting["package"] == answer.json()["package"]
    body = problem(client.get(PLACE), 404, "unknown_model")
    assert "no worker has probed it" in body["detail"]


def test_the_same_package_again_changes_nothing_while_its_probe_waits_or_runs(
    worker, client, package
):
    first = client.put(PLACE, content=package, headers=ZIP)
    assert client.put(PLACE, content=package, headers=ZIP).json() == first.json()
    worker.lease_probe()
    again = client.put(PLACE, content=package, headers=ZIP).json()
    assert (again["probe"]["state"], again["probe"]["attempt"]) == ("running", 1)
    assert again["registered"] == first.json()["registered"]


def test_registering_queues_a_probe_that_can_be_followed(worker, client, package):
    probe = client.put(PLACE, content=package, headers=ZIP).json()["probe"]
    assert (probe["state"], probe["attempt"], probe["failure"]) == ("queued", 0, None)
    assert (probe["pool"], probe["workers"]) == ("default", 1)
    assert probe["href"].endswith(f"{PLACE}/probe")
    worker.publish(loading=True)
    probe = client.get(f"{PLACE}/probe").json()
    assert (probe["workers"], probe["starting"]) == (1, 1)
    assert client.get(f"{PLACE}/probe").json() == probe
    (waiting,) = client.get("/v1/models").json()["registered"]
    assert waiting["probe"] == probe
    assert worker.probe().model == "small@1.0.0"
    ended = client.get(f"{PLACE}/probe", params={"wait": 30}).json()
    assert (ended["state"], ended["attempt"]) == ("succeeded", 1)
    assert ended["ended"] >= ended["started"] >= ended["created"]


def test_a_probe_is_no_explanation(worker, client, package):
    client.put(PLACE, content=package, headers=ZIP)
    lease = worker.lease_probe()
    assert client.get("/v1/explanations").json()["explanations"] == []
    problem(client.get(f"/v1/explanations/{lease.job.id}"), 404, "not_found")
    problem(client.post(f"/v1/explanations/{lease.job.id}/cancel"), 404, "not_found")


FAILURE = next(each.failure for each in CATALOG.models if each.package == BROKEN)


def told_of(digest):
    """The catalog of a worker that could not load the package `small`."""
    broken = next(each for each in CATALOG.models if each.package == BROKEN)
    small = broken.model_copy(update={"name": "small", "package": digest})
    return CATALOG.model_copy(update={"models": (*CATALOG.models, small)})


def test_a_failed_probe_tells_why_and_the_same_package_is_then_tried_anew(
    worker, served, client, package
):
    first = client.put(PLACE, content=package, headers=ZIP).json()
    fleet = served.backends.fleet
    for _ in range(3):
        fleet.begin_load(first["package"], "w1", seconds=9)
    worker.probe(FAILURE)
    worker.publish(told_of(first["package"]))
    assert client.get(f"{PLACE}/probe").json()["failure"] == FAILURE.model_dump(mode="json")
    again = client.put(PLACE, content=package, headers=ZIP).json()
    assert again["registered"] > first["registered"]  # by this all shelves try it again
    assert (again["probe"]["state"], again["probe"]["attempt"]) == ("queued", 0)
    assert again["probe"]["failure"] is None
    assert fleet.begin_load(first["package"], "w1", seconds=9) is Leave.BEGUN
    assert worker.probe().attempt == 1


def test_a_package_that_is_served_is_not_probed_again(worker, client, package):
    first = client.put(PLACE, content=package, headers=ZIP).json()
    worker.probe()
    worker.publish(packages=(first["package"],))
    again = client.put(PLACE, content=package, headers=ZIP).json()
    assert again == {**first, "probe": None}
    assert client.get(f"{PLACE}/probe").json()["state"] == "succeeded"
    assert client.get("/v1/queue").json()["pools"][0]["waiting"]["normal"] == 0


def test_with_no_worker_alive_a_probe_waits_and_moves_to_where_one_is(
    worker, served, client, package
):
    worker.retire()
    probe = client.put(PLACE, content=package, headers=ZIP).json()["probe"]
    assert (probe["state"], probe["workers"]) == ("queued", 0)
    other = FakeWorker(served.backends, "w2", pool="gpu")
    other.publish(packages=())
    moved = client.put(PLACE, content=package, headers=ZIP).json()["probe"]
    assert (moved["state"], moved["pool"], moved["workers"]) == ("queued", "gpu", 1)
    assert other.probe().pool == "gpu"


def test_a_probe_that_waits_where_no_worker_is_goes_once_one_elsewhere_serves_the_package(
    worker, served, client, package
):
    worker.retire()
    first = client.put(PLACE, content=package, headers=ZIP).json()
    other = FakeWorker(served.backends, "w2", pool="gpu")
    other.publish(packages=(first["package"],))
    assert client.put(PLACE, content=package, headers=ZIP).json()["probe"] is None
    assert probe_record(served).state == "cancelled"
    assert served.backends.queue.depth()[0].waiting["normal"] == 0


def test_a_probe_that_is_not_there_is_told(served, client, package):
    problem(client.get(f"{PLACE}/probe"), 404, "unknown_model")
    client.put(PLACE, content=package, headers=ZIP)
    served.backends.queue.cancel(INSTALLATION, (job := probe_record(served)).id)
    served.backends.queue.forget(INSTALLATION, job.id)
    problem(client.get(f"{PLACE}/probe"), 404, "not_found")


def test_a_probe_that_was_given_up_is_a_dead_letter(worker, served, client, package):
    client.put(PLACE, content=package, headers=ZIP)
    for _ in range(3):
        worker.lease_probe()
        served.backends.queue.reclaim(worker.name)
    (letter,) = client.get("/v1/dead-letters").json()["dead_letters"]
    assert (letter["kind"], letter["model"]) == ("probe", "small@1.0.0")
    assert letter["reason"]["code"] == "worker_lost"
    assert client.get(f"{PLACE}/probe").json()["failure"]["code"] == "worker_lost"


def test_other_content_under_the_same_version_is_refused(client, package, tmp_path):
    client.put(PLACE, content=package, headers=ZIP)
    pack(write_package(tmp_path / "other", title="Another"), tmp_path / "other.zip")
    other = (tmp_path / "other.zip").read_bytes()
    problem(client.put(PLACE, content=other, headers=ZIP), 409, "conflict")


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("/v1/models/other/versions/1.0.0", ("/id", "'small'", "'other'")),
        ("/v1/models/small/versions/2.0.0", ("/version", "'1.0.0'", "'2.0.0'")),
    ],
)
def test_a_package_under_another_name_or_version_is_refused(served, client, package, place, told):
    body = problem(client.put(place, content=package, headers=ZIP), 422, "invalid_package")
    (error,) = body["errors"]
    pointer, *values = told
    assert error["pointer"].endswith(pointer)
    assert all(value in error["detail"] for value in values)
    assert served.stored("models") == []


def test_a_package_with_defects_is_refused_with_each(served, client, tmp_path):
    folder = write_package(tmp_path / "small")
    pack(folder, tmp_path / "small.zip")
    data = (tmp_path / "small.zip").read_bytes().replace(b"license: MIT", b"licence: MIT")
    problem(client.put(PLACE, content=data, headers=ZIP), 422, "unsafe_archive")  # its CRC is off
    body = problem(
        client.put(PLACE, content=b"PK\x05\x06" + bytes(18), headers=ZIP), 422, "invalid_package"
    )
    assert body["errors"][0]["detail"] == "The package has no model.yaml at its root."
    assert served.stored("models") == []
    assert served.uploads() == []


def test_a_package_that_is_no_archive_is_refused(client):
    problem(client.put(PLACE, content=b"weights", headers=ZIP), 422, "unsafe_archive")
    answer = client.put(PLACE, content=b"x", headers={"Content-Type": "text/plain"})
    problem(answer, 415, "unsupported_media_type")


def test_a_withdrawn_package_is_gone_and_tried_anew_if_it_comes_again(served, client, package):
    digest = client.put(PLACE, content=package, headers=ZIP).json()["package"]
    fleet = served.backends.fleet
    for _ in range(3):
        leave = fleet.begin_load(digest, "w1", seconds=9)
    assert leave is Leave.GIVEN_UP
    assert client.delete(PLACE).status_code == 204
    assert served.stored("models") == []
    assert probe_record(served).state == "cancelled"
    assert fleet.begin_load(digest, "w1", seconds=9) is Leave.BEGUN
    problem(client.delete(PLACE), 404, "unknown_model")


@pytest.mark.parametrize("alive", [True, False])
def test_a_withdrawn_model_is_unknown_at_once_though_no_worker_has_let_go_of_it(
    worker, client, package, ask, alive
):
    digest = client.put(PLACE, content=package, headers=ZIP).json()["package"]
    entry = model("small@1.0.0", digest)
    worker.publish(Catalog(methods=CATALOG.methods, models=(entry,)), packages=(digest,))
    if not alive:
        worker.retire()
    assert client.get(PLACE).json()["state"] == "ready"
    assert client.delete(PLACE).status_code == 204
    assert "small" not in names(client)
    problem(client.get(PLACE), 404, "unknown_model")
    problem(client.get("/v1/models/small"), 404, "unknown_model")
    problem(client.post("/v1/explanations", json={**ask, "model": "small"}), 404, "unknown_model")
    client.put(PLACE, content=package, headers=ZIP)
    assert client.get(PLACE).json()["state"] == "ready"  # as it was known: the content is the same


def test_methods_tell_their_parameters(client):
    body = client.get("/v1/methods").json()
    assert [each["name"] for each in body["methods"]] == [each.name for each in CATALOG.methods]
    assert [each["name"] for each in body["formats"]] == ["dicom_sc", "png", "npy", "json"]
    one = client.get("/v1/methods/integrated_gradients").json()
    assert one["parameters"]["properties"]["steps"]["maximum"] == 512
    assert one["version"] == 2


def test_an_unknown_method_is_not_found_and_the_known_ones_are_told(client):
    body = problem(client.get("/v1/methods/tea_leaves"), 404, "unknown_method")
    assert "saliency" in body["facts"]["methods"]


def test_the_schema_of_a_manifest_is_given_and_holds(client, tmp_path):
    schema = client.get("/v1/models:schema").json()
    written = (write_package(tmp_path / "small") / "model.yaml").read_text()
    jsonschema.validate(yaml.safe_load(written), schema)
    with pytest.raises(jsonschema.ValidationError, match="licence"):
        jsonschema.validate({**yaml.safe_load(written), "licence": "MIT"}, schema)


def reader(served, tenant):
    """A client of a tenant that may read models and ask for explanations, no more."""
    scopes = (Scope.MODELS_READ, Scope.EXPLANATIONS_WRITE, Scope.STUDIES_WRITE)
    return served.client(served.key(tenant, scopes))


def names(client):
    body = client.get("/v1/models").json()
    return {each["name"] for each in (*body["models"], *body["registered"])}


def test_a_package_is_seen_only_by_the_tenants_it_is_given_to(served, client, package):
    answer = client.put(PLACE, params={"tenant": ["clinic", "lab"]}, content=package, headers=ZIP)
    assert answer.json()["tenants"] == ["clinic", "lab"]
    with reader(served, "clinic") as ours, reader(served, "other") as others:
        assert "small" in names(ours)
        assert "small" not in names(others)
        assert "no worker has probed it" in ours.get(PLACE).json()["detail"]
        hidden = problem(others.get(PLACE), 404, "unknown_model")
        nowhere = problem(others.get(PLACE.replace("small", "none")), 404, "unknown_model")
        unseen = problem(others.get(f"{PLACE}/probe"), 404, "unknown_model")
        assert unseen["detail"] == hidden["detail"]
        assert hidden["detail"] == nowhere["detail"]
        (waiting,) = ours.get("/v1/models").json()["registered"]
        assert waiting["tenants"] == []  # to whom else is nobody's business
        client.put(PLACE, content=package, headers=ZIP)  # names none: nothing changes
        assert "small" not in names(others)
        client.put(PLACE, params={"tenant": "*"}, content=package, headers=ZIP)
        assert "small" in names(others)


def test_a_tenant_that_cannot_be_is_refused(client, package):
    answer = client.put(PLACE, params={"tenant": "The Clinic"}, content=package, headers=ZIP)
    problem(answer, 422, "invalid_request")


def given_to(worker, *tenants):
    """Have the worker tell of the model `chest`, given to these tenants."""
    models = tuple(
        each.model_copy(update={"tenants": tenants}) if each.name == "chest" else each
        for each in CATALOG.models
    )
    worker.publish(CATALOG.model_copy(update={"models": models}))


def test_a_model_of_others_is_as_if_it_were_not_there(worker, served, client, ask):
    given_to(worker, "lab")
    with reader(served, "clinic") as ours:
        assert "chest" not in names(ours)
        body = problem(ours.post("/v1/explanations", json=ask), 404, "unknown_model")
        assert "chest@1.1.0" not in body["facts"]["models"]
        problem(ours.get("/v1/models/chest"), 404, "unknown_model")
    assert "chest" in names(client)  # an administrator sees all
    given_to(worker, "clinic", "lab")
    with reader(served, "clinic") as ours:
        assert ours.post("/v1/explanations", json=ask).status_code == 202
        assert ours.get("/v1/models/chest").json()["models"][0]["tenants"] == []
