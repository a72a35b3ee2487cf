"""``whylight up`` and its sisters, on a real stack."""

import json
import os
import re
import signal
import socket
import stat

import httpx
import psutil
import pytest

from service.domain.trust import ALWAYS, STATEMENTS, Flag
from tests.support import journey
from tests.support.packages import write_package
from tests.support.redis_server import any_server
from tests.support.up import COMMAND, up

pytestmark = [pytest.mark.e2e, pytest.mark.redis]

WAIT = {"Prefer": "wait=60"}


@pytest.fixture(scope="module", autouse=True)
def _redis():
    any_server()


def test_the_first_start_shows_a_key_once_and_a_signal_drains_everything(tmp_path):
    home = tmp_path / "home"
    with up(home) as first:
        key, children = first.key, first.children()
        assert set(children) == {"redis", "api.main", "workers.main"}
        assert f"Documentation  {first.url}/docs" in first.printed
        with first.client() as client:
            assert client.get("/v1/models").status_code == 200
            job = client.post(
                "/v1/explanations",
                json=journey.request(journey.upload(client)["id"], targets=["nodule"]),
            ).json()
        assert first.stop(signal.SIGINT) == 0
        assert not any(each.is_running() for each in children.values())
    with up(home) as second:
        assert "API key " not in second.printed
        assert "whylight keys" in second.printed
        with second.client(key) as client:
            followed = client.get(f"/v1/explanations/{job['id']}", params={"wait": 60}).json()
        assert followed["state"] == "succeeded"
        assert second.stop() == 0


def test_the_key_is_in_no_log_and_in_no_file(stack):
    secret = stack.key.rpartition("_")[2].encode()
    for path in stack.home.rglob("*"):
        if path.is_file() and not stat.S_ISSOCK(path.stat().st_mode):
            assert secret not in path.read_bytes(), path


def test_nothing_listens_beyond_loopback(stack):
    for name, process in stack.children().items():
        listening = [each for each in process.net_connections("inet") if each.status == "LISTEN"]
        assert all(each.laddr.ip == "127.0.0.1" for each in listening), name
        assert len(listening) == {"redis": 0, "api.main": 2, "workers.main": 1}[name]


def test_the_stages_of_a_job_can_be_scraped(stack, client):
    study = journey.upload(client)["id"]
    job = client.post(
        "/v1/explanations", json=journey.request(study, targets=["nodule"]), headers=WAIT
    ).json()
    assert job["state"] == "succeeded"
    worker = httpx.get(stack.metrics("worker"), trust_env=False).text
    for stage in ("fetch", "decode", "prepare", "attribute", "judge", "render", "deliver"):
        (count,) = re.findall(
            rf'^whylight_job_stage_duration_seconds_count{{[^}}]*stage="{stage}"[^}}]*}} (\S+)$',
            worker,
            re.MULTILINE,
        )[:1]
        assert float(count) >= 1
    gateway = httpx.get(stack.metrics("gateway"), trust_env=False).text
    assert "whylight_http_requests_total" in gateway


@pytest.mark.parametrize(
    "variable", ["WHYLIGHT_HTTP__METRICS_PORT", "WHYLIGHT_WORKER__METRICS_PORT"]
)
def test_a_metrics_port_that_is_taken_is_told_before_anything_starts(stack, tmp_path, variable):
    home = tmp_path / "home"
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        answer = stack.command("up", "--home", str(home), "--port", "0", **{variable: str(port)})
    assert answer.returncode == 1
    assert f"Port {port} on 127.0.0.1, for the" in answer.stderr
    assert variable in answer.stderr
    assert "Traceback" not in answer.stderr
    assert "Starting" not in answer.stdout


def test_a_second_stack_in_the_same_home_is_refused(stack):
    answer = stack.command("up", "--home", str(stack.home), "--port", "0")
    assert answer.returncode == 1
    assert "Another stack" in answer.stderr


def test_a_port_that_is_taken_is_told_before_anything_starts(stack, tmp_path):
    port = stack.url.rpartition(":")[2]
    answer = stack.command("up", "--home", str(tmp_path / "h"), "--port", port)
    assert answer.returncode == 1
    assert f"Port {port}" in answer.stderr


def test_the_doctor_finds_a_running_stack_healthy(stack):
    answer = stack.command("check", "--home", str(stack.home))
    assert answer.returncode == 0, answer.stdout
    assert "FAIL" not in answer.stdout


def test_a_key_made_at_the_terminal_works_and_a_revoked_one_does_not(stack):
    made = stack.command("keys", "create", "--label", "console", "--home", str(stack.home))
    key = made.stdout.strip()
    with stack.client(key) as client:
        assert client.get("/v1/models").status_code == 200
        assert client.delete("/v1/models/chest-phantom/versions/1.0.0").status_code == 403
    revoked = stack.command("keys", "revoke", key.split("_")[2], "--home", str(stack.home))
    assert revoked.returncode == 0


def test_the_models_command_lists_adds_and_removes(stack, tmp_path):
    words = ("--home", str(stack.home))
    bundled = journey.STUDIES.parents[2] / "models" / "chest-phantom"
    added = stack.command("models", "add", str(bundled), *words, WHYLIGHT_API_KEY=stack.key)
    assert added.returncode == 0, added.stderr
    assert "grad_cam" in added.stdout
    listed = stack.command("models", "list", *words, WHYLIGHT_API_KEY=stack.key)
    assert "chest-phantom@" in listed.stdout
    folder = write_package(tmp_path / "small")
    for _ in range(2):  # the second time it is tried anew
        wrong = stack.command("models", "add", str(folder), *words, WHYLIGHT_API_KEY=stack.key)
        assert wrong.returncode == 1
        assert "small@1.0.0 cannot be used." in wrong.stderr
    missing = stack.command("models", "remove", "no-such@1.0.0", *words, WHYLIGHT_API_KEY=stack.key)
    assert missing.returncode == 1
    assert "No such model" in missing.stderr
    with stack.client() as client:
        assert client.delete("/v1/models/small/versions/1.0.0").status_code == 204


@pytest.mark.parametrize("part", ["api.main", "workers.main", "redis"])
def test_when_a_part_dies_everything_stops_and_the_command_says_which(part):
    with up(models=()) as running:
        children = running.children()
        children[part].send_signal(signal.SIGKILL)
        rest, _ = running.process.communicate(timeout=60)
        assert running.process.returncode == 1
        assert "ended by itself" in rest
        gone, alive = psutil.wait_procs(list(children.values()), timeout=5)
        assert not alive
        assert len(gone) == 3


def test_the_demo_leaves_every_file_and_stops_what_it_started(tmp_path):
    output = tmp_path / "out"
    before = set(psutil.pids())
    answer = psutil.Popen(
        [*COMMAND, "demo", "--output", str(output)],
        env=os.environ | {"WHYLIGHT_QUEUE__URL": "redis://127.0.0.1:1/0"},
        stdout=-1,
        stderr=-1,
        text=True,
    )
    out, err = answer.communicate(timeout=240)
    assert answer.returncode == 0, out + err
    left = [p for p in psutil.process_iter(["cmdline"]) if p.pid not in before]
    assert not [p for p in left if "whylight-demo-" in " ".join(p.info["cmdline"] or ())]
    summary = (output / "SUMMARY.md").read_text()
    for study in ("nodule", "effusion", "pneumothorax"):
        assert study in summary
        assert (output / study / "job.json").exists()
        for method in ("saliency", "integrated_gradients", "grad_cam", "occlusion"):
            for extension in ("dcm", "png", "json", "npy"):
                assert list((output / study).glob(f"{method}.*.{extension}"))
    assert "peak in lesion" in out
    flagged = {
        line.split("|")[1].strip(): line.split("|")[-2].strip()
        for line in out.splitlines()
        if line.startswith("| chest-phantom-")
    }
    assert flagged == {"chest-phantom-marker": "yes", "chest-phantom-control": "no"}
    assert ALWAYS in summary
    assert STATEMENTS[Flag.DEPENDS_OUTSIDE_EXPECTED_REGION] in summary
    job = json.loads((output / "marker-marker" / "job.json").read_text())
    fall = next(each for each in job["results"][0]["checks"] if each["name"] == "expected_region")
    assert f"the logit falls by {fall['values']['fall']:.2f}, " in summary
    on_marker = [line for line in out.splitlines() if line.startswith("| chest-phantom-marker")]
    assert [line.split("|")[5].strip() for line in on_marker] == ["yes", "yes"]
    assert "mismatched" not in out
