"""Logs say only what is declared; metrics are served on a port of their own."""

import json
import logging
import urllib.request
import warnings

import pytest

from service import telemetry
from service.telemetry import Log, Undeclared
from tests.support.ports import free_port


@pytest.fixture(autouse=True)
def logging_as_it_was():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    telemetry._Discipline.strict = False
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def lines(capsys):
    telemetry.configure("INFO", "gateway")
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_an_event_is_one_json_line_with_its_fields(lines):
    Log(worker="w1").info("leased", job="ex_1", attempt=2)
    (line,) = lines()
    assert line.pop("at").endswith("Z")
    assert line == {
        "level": "info",
        "component": "gateway",
        "event": "leased",
        "worker": "w1",
        "job": "ex_1",
        "attempt": 2,
    }


def test_in_service_an_undeclared_event_is_not_written(lines):
    Log().info("patient_arrived")
    assert lines() == []


def test_in_service_an_undeclared_field_is_left_out(lines):
    Log().info("leased", job="ex_1", patient_name="DOE")
    assert "DOE" not in json.dumps(lines())


@pytest.mark.parametrize(
    "value",
    ["DOE^JOHN", "1.2.840.10008.5.1.4", "two words", "x" * 200, {"a": 1}, b"bytes", "line\nbreak"],
)
def test_a_value_that_could_name_a_patient_is_dropped(lines, value):
    Log().info("leased", job=value)
    (line,) = lines()
    assert line["job"] == "dropped"


@pytest.mark.usefixtures("lines")
@pytest.mark.parametrize(
    ("event", "fields"),
    [("patient_arrived", {}), ("leased", {"patient_name": "x"}), ("leased", {"job": "A^B"})],
)
def test_in_tests_a_breach_is_an_error(event, fields):
    telemetry.be_strict()
    with pytest.raises(Undeclared):
        Log().info(event, **fields)


def test_an_exception_is_told_by_type_and_place_never_by_text(lines):
    try:
        int("DOE^JOHN")
    except ValueError as error:
        Log().bug(error, route="/v1/studies")
    (line,) = lines()
    assert line["error"] == "ValueError"
    assert line["location"].startswith(__name__)
    assert "DOE" not in json.dumps(line)


def test_a_librarys_text_is_not_written(lines):
    logging.getLogger("redis.client").warning("bad value %s", "DOE^JOHN")
    try:
        int("DOE^JOHN")
    except ValueError:
        logging.getLogger("uvicorn.error").exception("failed on DOE^JOHN")
    warnings.warn("DOE^JOHN is not a name", stacklevel=1)
    told = lines()
    assert [line["library"] for line in told] == ["redis", "uvicorn", "py"]
    assert "DOE" not in json.dumps(told)


def test_metrics_are_served_until_stopped():
    port = free_port()
    stop = telemetry.serve_metrics(port)
    telemetry.JOBS_FINISHED.labels(state="succeeded", error_type="").inc()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    stop()
    assert 'whylight_jobs_finished_total{error_type="",state="succeeded"}' in text
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)


def test_port_zero_serves_nothing():
    telemetry.serve_metrics(0)()
