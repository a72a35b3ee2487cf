"""The OpenAPI document says everything that the gateway does, and it does nothing else."""

import base64
import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.config import SchemathesisConfig

from api import problems
from service.errors.base import Kind
from tests.support.problems import problem

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = int(os.environ.get("WHYLIGHT_REQUESTS", "20"))
"""Drawn requests an operation; `make fuzz` draws more."""

DOCS = Path(__file__).parents[2] / "docs"


@schemathesis.serializer("application/zip", "application/dicom")
def raw_bytes(_context, value):
    """Send whatever was generated as bytes."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


@pytest.fixture
def document(client):
    return client.get("/openapi.json").json()


def operations(document):
    """Yield (verb, path, operation) of a document."""
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            yield verb, path, operation


def test_the_document_is_openapi_3_1(document):
    assert document["openapi"].startswith("3.1")


def test_every_operation_has_an_id_a_summary_and_its_problems(document):
    ids = [each["operationId"] for _, _, each in operations(document)]
    assert len(set(ids)) == len(ids)
    for _, path, each in operations(document):
        assert each["summary"], path
        if path.startswith("/v1/"):
            assert each["security"] == [{"apiKey": []}], path
            assert {"401", "403", "422", "500", "503"} <= set(each["responses"]), path


def test_every_problem_has_an_example_that_fits(document):
    for _, path, each in operations(document):
        for status, answer in each["responses"].items():
            content = answer.get("content", {}).get("application/problem+json")
            if content is None:
                continue
            for code, example in content["examples"].items():
                value = example["value"]
                assert (value["code"], value["status"]) == (code, int(status)), path
                problems.Problem.model_validate(value)


def test_no_operation_shows_the_frameworks_own_error(document):
    assert "HTTPValidationError" not in str(document)


def test_every_problem_is_documented_with_its_status(document):
    text = (DOCS / "problems.md").read_text()
    of_requests, of_jobs = text.split("## Of jobs")
    answered = _codes(document)
    for code, kind in problems.catalog().items():
        (row,) = [line for line in text.splitlines() if f'<a id="{code}"></a>`{code}`' in line]
        assert f"| {kind.kind} |" in row
        if code in answered | {"method_not_allowed"}:
            assert row in of_requests
            assert f"| {problems.status_of(kind)} |" in row
        else:
            assert row in of_jobs
    assert text.count("<a id=") == len(problems.catalog())


def _codes(document):
    """Return the codes of all problems that operations answer with."""
    contents = (
        answer["content"]["application/problem+json"]
        for _, _, each in operations(document)
        for answer in each["responses"].values()
        if "application/problem+json" in answer.get("content", {})
    )
    return {code for content in contents for code in content["examples"]}


def test_codes_are_unique_and_kinds_lead_to_fitting_statuses():
    for kind in problems.catalog().values():
        status = problems.status_of(kind)
        match kind.kind:
            case Kind.CALLER | Kind.DATA:
                assert 400 <= status < 500
            case Kind.WAIT:
                assert status in {503, 507}
            case Kind.OURS:
                assert status in {409, 500}


@pytest.fixture
def page(served):
    """The page of documentation, as somebody without a key gets it."""
    with served.client() as anonymous:
        answer = anonymous.get("/docs")
    assert answer.status_code == 200
    return answer


def test_the_document_is_for_those_who_have_a_key(served):
    with served.client() as anonymous:
        problem(anonymous.get("/openapi.json"), 401, "unauthenticated")
    with served.client("wl_live_" + "0" * 16 + "_" + "0" * 64) as stranger:
        problem(stranger.get("/openapi.json"), 401, "unauthenticated")
    with served.client(served.key(scopes=[])) as holder:
        assert holder.get("/openapi.json").status_code == 200


def test_the_page_of_documentation_holds_nothing_itself(page, document):
    for path in document["paths"]:
        assert path not in page.text
    for code in document["x-problems"]:
        assert code not in page.text


def test_the_page_of_documentation_needs_no_other_host(page):
    assert "://" not in page.text
    assert "src=" not in page.text
    assert "href=" not in page.text


def test_the_browser_runs_the_pages_own_script_alone(page):
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = page.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", f"script-src 'sha256-{digest}'", "connect-src 'self'"} < {*policy}
    assert "innerHTML" not in script


def test_the_document_lists_every_problem(document):
    assert document["x-problems"].keys() == problems.catalog().keys()
    assert document["x-problems"]["not_found"] == {
        "type": "urn:whylight:problem:not_found",
        "status": 404,
        "title": "No such resource",
        "meaning": "No such resource, or it is another tenant's.",
    }


def _schema(served, headers):
    config = SchemathesisConfig.from_dict({})
    url = f"{served.url}/openapi.json"
    return schemathesis.openapi.from_url(url, config=config, headers=headers)


@pytest.mark.slow
@pytest.mark.parametrize("generation", ["positive", "negative"])
def test_generated_requests_find_no_500_and_nothing_undocumented(
    served, client, worker, ask, *, job, generation
):
    worker.succeed()
    mode = schemathesis.GenerationMode(generation)
    headers = {"Authorization": client.headers["authorization"]}
    real = {"explanation_id": job, "name": "saliency.nodule.png", "study_id": ask["study"]}
    for result in _schema(served, headers).get_all_operations():
        _try(result.ok(), mode, headers, real)


def _try(operation, mode, headers, real):
    """Call one operation with generated arguments, reading what is really there half the time."""
    strategy = operation.as_strategy(generation_mode=mode)

    @given(case=strategy, there=st.booleans())
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=os.environ.get("CI") == "true",
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def call(case, there):
        if there and operation.method in {"get", "head"} and case.path_parameters:
            names = case.path_parameters.keys() & real.keys()
            case.path_parameters |= {name: real[name] for name in names}
        # a long poll would only wait
        if isinstance(case.query, dict) and str(case.query.get("wait", "")).isdigit():
            case.query["wait"] = 0
        case.call_and_validate(headers=headers, checks=CHECKS, timeout=20)

    with suppress(Unsatisfiable):  # nothing can be wrong with an operation that takes nothing
        call()


@given(text=st.text(max_size=40))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_text_can_be_a_name_in_a_path(client, text):
    answer = client.get("/v1/explanations/" + "".join(f"%{b:02x}" for b in text.encode()))
    assert answer.status_code in {200, 404}
