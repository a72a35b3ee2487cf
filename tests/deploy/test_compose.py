"""The compose stack: of the specification's form, closed to the outside, without secrets."""

import json
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from jsonschema.validators import validator_for

from service.command.environment import known
from tests.support import dockerfile

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
OURS = ("api", "worker", "worker-gpu")


def validator():
    """Return a validator of the Compose specification, as check-jsonschema carries it."""
    path = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(path.read_text())
    return validator_for(schema)(schema)


def test_has_the_form_of_the_compose_specification():
    faults = [
        f"{'/'.join(map(str, each.path))}: {each.message}"
        for each in validator().iter_errors(COMPOSE)
    ]
    assert faults == []


def test_the_specification_would_notice_a_misspelt_key():
    wrong = {**COMPOSE, "services": {"api": {**SERVICES["api"], "helthcheck": {}}}}
    assert not validator().is_valid(wrong)


@pytest.mark.parametrize("name", OURS)
def test_our_services_are_built_from_targets_that_exist(name):
    assert SERVICES[name]["build"]["target"] in dockerfile.read(ROOT / "Dockerfile")


@pytest.mark.parametrize("name", OURS)
def test_our_services_may_do_no_more_than_they_need(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", OURS)
def test_every_setting_of_a_service_is_one_that_is_read(name):
    assert set(SERVICES[name]["environment"]) <= known()


def test_every_published_port_is_on_loopback():
    ports = [port for each in SERVICES.values() for port in each.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_redis_writes_each_second_never_evicts_and_is_reached_only_from_inside():
    redis = SERVICES["redis"]
    options = dict(zip(redis["command"][1::2], redis["command"][2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "everysec"
    assert options["--maxmemory-policy"] == "noeviction"
    assert redis["networks"] == ["inside"]
    assert COMPOSE["networks"]["inside"]["internal"] is True
    assert "ports" not in redis


def test_what_must_outlive_a_container_lies_in_a_named_volume():
    for service in SERVICES.values():
        for volume in service["volumes"]:
            assert volume.partition(":")[0] in COMPOSE["volumes"]


def test_uploads_lie_on_disk_and_memory_for_work_has_a_size():
    scratch = SERVICES["api"]["environment"]["WHYLIGHT_HTTP__SCRATCH"]
    assert f"scratch:{scratch}" in SERVICES["api"]["volumes"]
    for name in OURS:
        (tmp,) = SERVICES[name]["tmpfs"]
        assert re.fullmatch(r"/tmp:size=\d+[mg]", tmp)  # noqa: S108 - the container's own


def test_the_metrics_of_every_part_can_be_scraped_from_inside_and_from_nowhere_else():
    for name in ("worker", "worker-gpu"):
        environment = SERVICES[name]["environment"]
        assert environment["WHYLIGHT_WORKER__METRICS_PORT"] == 9465
        assert environment["WHYLIGHT_WORKER__METRICS_HOST"] == "0.0.0.0"  # noqa: S104 - read
        assert SERVICES[name]["networks"] == ["inside"]
        assert "ports" not in SERVICES[name]
    assert not any("946" in port for each in SERVICES.values() for port in each.get("ports", ()))


def test_a_gpu_is_reserved_only_under_its_profile():
    for name, service in SERVICES.items():
        wants = "gpu" in json.dumps(service.get("deploy", {}))
        assert wants == (name == "worker-gpu")
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]


def test_a_worker_is_given_longer_than_its_own_grace():
    grace = SERVICES["worker"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > 30


def test_no_file_of_the_deployment_holds_a_secret():
    for name in ("docker-compose.yml", "Dockerfile", ".dockerignore"):
        text = (ROOT / name).read_text()
        assert not re.search(r"(?i)(password|secret|token|key)[\"']?\s*[:=]\s*[\"']?\w", text), name


def test_the_file_passes_the_checker_as_people_run_it():
    subprocess.run(
        [
            sys.executable,
            "-m",
            "check_jsonschema",
            "--builtin-schema",
            "vendor.compose-spec",
            ROOT / "docker-compose.yml",
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
