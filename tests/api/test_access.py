"""Who may do what: keys, their scopes, and what is another tenant's."""

import pytest

from service.keys import Scope
from tests.support.problems import problem
from tests.support.served import NO_STUDY, NOBODY

pytestmark = pytest.mark.usefixtures("nothing_is_queued")


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", "/v1/studies/{study}"),
        ("DELETE", "/v1/studies/{study}"),
        ("GET", "/v1/explanations/{job}"),
        ("GET", "/v1/explanations/{job}/events"),
        ("GET", "/v1/explanations/{job}/artifacts"),
        ("POST", "/v1/explanations/{job}/cancel"),
        ("DELETE", "/v1/explanations/{job}"),
    ],
)
def test_what_is_another_tenants_is_not_found(served, client, ask, verb, path):
    with served.client(served.key("other")) as other:
        mine = client.post("/v1/explanations", json=ask).json()
        answer = other.request(verb, path.format(study=ask["study"], job=mine["id"]))
        problem(answer, 404, "not_found")
        assert other.get("/v1/explanations").json()["explanations"] == []
        assert other.get("/v1/studies").json()["studies"] == []
    client.post(f"/v1/explanations/{mine['id']}/cancel")
    assert client.delete(f"/v1/explanations/{mine['id']}").status_code == 200


OPERATIONS = [
    ("POST", "/v1/studies", Scope.STUDIES_WRITE),
    ("GET", "/v1/studies", Scope.STUDIES_READ),
    ("GET", f"/v1/studies/{NO_STUDY}", Scope.STUDIES_READ),
    ("DELETE", f"/v1/studies/{NO_STUDY}", Scope.STUDIES_WRITE),
    ("POST", "/v1/explanations", Scope.EXPLANATIONS_WRITE),
    ("POST", "/v1/explanations:validate", Scope.EXPLANATIONS_WRITE),
    ("GET", "/v1/explanations", Scope.EXPLANATIONS_READ),
    ("GET", f"/v1/explanations/{NOBODY}", Scope.EXPLANATIONS_READ),
    ("DELETE", f"/v1/explanations/{NOBODY}", Scope.EXPLANATIONS_WRITE),
    ("POST", f"/v1/explanations/{NOBODY}/cancel", Scope.EXPLANATIONS_WRITE),
    ("GET", f"/v1/explanations/{NOBODY}/events", Scope.EXPLANATIONS_READ),
    ("GET", f"/v1/explanations/{NOBODY}/artifacts", Scope.EXPLANATIONS_READ),
    ("GET", f"/v1/explanations/{NOBODY}/artifacts/a", Scope.EXPLANATIONS_READ),
    ("GET", "/v1/methods", Scope.MODELS_READ),
    ("GET", "/v1/methods/saliency", Scope.MODELS_READ),
    ("GET", "/v1/models", Scope.MODELS_READ),
    ("GET", "/v1/models:schema", Scope.MODELS_READ),
    ("GET", "/v1/models/chest", Scope.MODELS_READ),
    ("GET", "/v1/models/chest/versions/1.0.0", Scope.MODELS_READ),
    ("GET", "/v1/models/chest/versions/1.0.0/probe", Scope.MODELS_READ),
    ("PUT", "/v1/models/chest/versions/1.0.0", Scope.MODELS_ADMIN),
    ("DELETE", "/v1/models/chest/versions/1.0.0", Scope.MODELS_ADMIN),
    ("GET", "/v1/queue", Scope.QUEUE_ADMIN),
    ("GET", "/v1/workers", Scope.QUEUE_ADMIN),
    ("GET", "/v1/dead-letters", Scope.QUEUE_ADMIN),
    ("GET", f"/v1/dead-letters/{NOBODY}", Scope.QUEUE_ADMIN),
]


def test_the_list_of_operations_is_complete(client):
    paths = client.get("/openapi.json").json()["paths"]
    listed = {(verb.upper(), path) for path, verbs in paths.items() for verb in verbs}
    assert len([each for each in listed if each[0] != "HEAD"]) == len(OPERATIONS) + 2  # health


@pytest.mark.parametrize(("verb", "path"), [each[:2] for each in OPERATIONS])
def test_without_a_key_nothing_is_served(served, verb, path):
    with served.client() as anonymous:
        answer = anonymous.request(verb, path)
    problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(("verb", "path", "scope"), OPERATIONS)
def test_each_operation_needs_its_scope(served, verb, path, scope):
    lacking = served.key(scopes=[each for each in Scope if each is not scope])
    with served.client(lacking) as other:
        body = problem(other.request(verb, path), 403, "forbidden")
    assert body["facts"] == {"scope": scope.value}
    with served.client(served.key(scopes=[scope])) as other:
        assert other.request(verb, path).status_code not in {401, 403}


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer nonsense",
        "Basic dXNlcjpwYXNz",
        "Bearer wl_live_" + "0" * 16 + "_" + "0" * 64,
    ],
)
def test_a_wrong_key_is_refused(served, header):
    with served.client(Authorization=header) as other:
        problem(other.get("/v1/studies"), 401, "unauthenticated")


def test_a_revoked_key_is_refused(served):
    text, record = served.backends.keys.create("clinic", list(Scope))
    with served.client(text) as other:
        assert other.get("/v1/studies").status_code == 200
        served.backends.keys.revoke(record.id)
        problem(other.get("/v1/studies"), 401, "unauthenticated")
