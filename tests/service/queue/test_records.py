"""Job records: the same job comes back, and nothing large goes in."""

import re
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.job import Job, JobKind, Priority, Stage, State
from service.errors.base import Failure, Kind
from service.errors.requests import TooLarge
from service.queue.records import failure_text, flat, from_fields, paired, to_fields

texts = st.text(max_size=20)
failures = st.builds(
    Failure,
    kind=st.sampled_from(Kind),
    code=texts,
    title=texts,
    detail=texts,
    facts=st.dictionaries(texts, st.none() | st.booleans() | st.integers() | texts, max_size=3),
)
jobs = st.builds(
    Job,
    kind=st.sampled_from(JobKind),
    id=texts,
    tenant=texts,
    pool=texts,
    priority=st.sampled_from(Priority),
    state=st.sampled_from(State),
    stage=st.none() | st.sampled_from(Stage),
    progress=st.integers(0, 1000),
    attempt=st.integers(0, 9),
    created=st.integers(0, 2**50),
    started=st.none() | st.integers(0, 2**50),
    ended=st.none() | st.integers(0, 2**50),
    cost=st.integers(0, 2**40),
    request=texts,
    model=texts,
    package=texts,
    label=st.none() | texts,
    worker=st.none() | texts,
    cancelling=st.booleans(),
    partial=st.booleans(),
    result=st.none() | texts,
    failure=st.none() | failures,
)


@given(job=jobs)
def test_a_job_comes_back_as_it_went(job: Job) -> None:
    assert from_fields(paired(flat(to_fields(job)))) == job


def test_fields_of_a_newer_version_are_passed_over() -> None:
    job = Job(
        id="ex_1", tenant="t", created=1, cost=1, request="{}", model="m@1.0.0", package="a" * 64
    )
    assert from_fields({**to_fields(job), "from_the_future": "1", "token": "t"}) == job


def test_a_record_of_the_version_before_is_an_explanation() -> None:
    job = Job(
        id="ex_1", tenant="t", created=1, cost=1, request="{}", model="m@1.0.0", package="a" * 64
    )
    before = {**to_fields(job), "schema_number": "1"}
    del before["kind"]
    assert from_fields(before) == job.model_copy(update={"schema_number": 1})


def test_a_record_holds_eight_kib_and_no_more() -> None:
    def job(size: int) -> Job:
        return Job(
            id="ex_1",
            tenant="t",
            created=1,
            cost=1,
            request="ä" * size,
            model="m@1.0.0",
            package="a" * 64,
        )

    to_fields(job(3900))
    with pytest.raises(TooLarge):
        to_fields(job(4096))


def test_a_failure_with_many_facts_keeps_its_words() -> None:
    facts: dict[str, object] = {str(i): "x" * 100 for i in range(100)}
    failure = Failure.model_validate(
        {"kind": "data", "code": "c", "title": "t", "detail": "d", "facts": facts}
    )
    kept = Failure.model_validate_json(failure_text(failure))
    assert kept == failure.model_copy(update={"facts": {}})


@pytest.mark.parametrize("package", ["service.queue", "service.fleet"])
def test_scripts_compute_with_integers_and_commands_of_redis_6(package: str) -> None:
    for script in (files(package) / "scripts").iterdir():
        text = script.read_text()
        assert not re.search(r"INCRBYFLOAT|HINCRBYFLOAT|FUNCTION|\d\.\d|[^/]/ (?!1000\b)", text)
