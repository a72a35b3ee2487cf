"""Models at the terminal: what is wrong before anything is sent."""

import json
from argparse import Namespace
from functools import partial

import httpx
import jsonschema
import pytest
import yaml

from api.problems import describe
from service.command import models, packages
from service.command.failure import CommandFailure
from service.command.stack import free_port
from service.errors.requests import UnknownModel
from tests.support.packages import write_manifest, write_package

NOBODY = f"http://127.0.0.1:{free_port('127.0.0.1')}"


def test_without_a_key_the_command_says_where_one_comes_from(whylight, tmp_path):
    status, _, err = whylight("models", "list", "--home", tmp_path)
    assert status == 1
    assert "WHYLIGHT_API_KEY" in err
    assert "whylight keys create" in err


def test_without_a_gateway_the_command_says_how_to_start_one(whylight, tmp_path, monkeypatch):
    monkeypatch.setenv("WHYLIGHT_API_KEY", "wl_live_x_y")
    status, _, err = whylight("models", "list", "--home", tmp_path, "--url", NOBODY)
    assert status == 1
    assert "whylight up" in err


@pytest.mark.parametrize(
    ("manifest", "pointer"),
    [(None, "model.yaml"), ("id: Chest Model", "/id"), ("schema_number: 2", "/schema_number")],
)
def test_a_package_that_does_not_hold_is_told_field_by_field(
    whylight, tmp_path, monkeypatch, manifest, pointer
):
    monkeypatch.setenv("WHYLIGHT_API_KEY", "wl_live_x_y")
    if manifest is not None:
        (tmp_path / "model.yaml").write_text(manifest)
    status, _, err = whylight("models", "add", tmp_path, "--home", tmp_path, "--url", NOBODY)
    assert status == 1
    assert pointer in err


def test_a_version_must_be_named_to_be_withdrawn(whylight, tmp_path, monkeypatch):
    monkeypatch.setenv("WHYLIGHT_API_KEY", "wl_live_x_y")
    status, _, err = whylight("models", "remove", "chest", "--home", tmp_path, "--url", NOBODY)
    assert status == 1
    assert "name@version" in err


def test_a_gateways_refusal_is_printed_with_the_lists_that_it_names(
    whylight, tmp_path, monkeypatch
):
    refusal = UnknownModel("No such model; 'models' lists those there are.", models=["a@1.0.0"])
    problem = describe(refusal, "rq_1").model_dump(mode="json")
    gateway = httpx.MockTransport(lambda _: httpx.Response(404, json=problem))
    monkeypatch.setattr(httpx, "Client", partial(httpx.Client, transport=gateway))
    monkeypatch.setenv("WHYLIGHT_API_KEY", "wl_live_x_y")
    status, _, err = whylight("models", "remove", "b@1.0.0", "--home", tmp_path, "--url", NOBODY)
    assert status == 1
    assert "'models': a@1.0.0." in err


def test_the_schema_is_printed_and_holds_what_is_written(whylight, tmp_path):
    status, out, _ = whylight("models", "schema")
    assert status == 0
    fields = yaml.safe_load((write_package(tmp_path / "small") / "model.yaml").read_text())
    schema = json.loads(out)
    jsonschema.validate(fields, schema)
    fields["inputs"][0]["steps"][0]["name"] = "rezise"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(fields, schema)


def test_sealing_fills_in_sizes_and_digests(whylight, tmp_path):
    folder = write_package(tmp_path / "small")
    fields = yaml.safe_load((folder / "model.yaml").read_text())
    bare = [
        {k: v for k, v in each.items() if k not in ("sha256", "bytes")} for each in fields["files"]
    ]
    write_manifest(folder, {**fields, "files": bare})
    status, out, err = whylight("models", "seal", folder)
    assert (status, err) == (0, "")
    assert "small@1.0.0 is sound" in out
    assert yaml.safe_load((folder / "model.yaml").read_text()) == fields


@pytest.mark.parametrize("count", [1, 2])
def test_sealing_asks_for_a_second_self_test(whylight, tmp_path, count):
    folder = write_package(tmp_path / "small")
    fields = yaml.safe_load((folder / "model.yaml").read_text())
    tests = [{**fields["selftests"][0], "logits": [0.5 + each]} for each in range(count)]
    write_manifest(folder, {**fields, "selftests": tests})
    status, out, _ = whylight("models", "seal", folder)
    assert status == 0
    assert ("one self-test" in out) == (count == 1)


def test_sealing_tells_what_it_cannot_mend(whylight, tmp_path):
    folder = write_package(tmp_path / "small", licence="MIT")
    (folder / "weights.safetensors").write_bytes(b"\x80\x04pickled")
    status, _, err = whylight("models", "seal", folder)
    assert status == 1
    assert "/licence" in err
    fields = yaml.safe_load((folder / "model.yaml").read_text())
    write_manifest(folder, {k: v for k, v in fields.items() if k != "licence"})
    status, _, err = whylight("models", "seal", folder)
    assert status == 1
    assert "/files/0/format: The file is a Python pickle" in err
    write_package(folder, license="bogus-license")
    status, _, err = whylight("models", "seal", folder)
    assert status == 1
    assert "/license: Expected an SPDX expression" in err
    for text in ("files: 3", "files: [3]"):
        (folder / "model.yaml").write_text(text)
        status, _, err = whylight("models", "seal", folder)
        assert "no model.yaml that lists files" in err
    (folder / "model.yaml").write_text("id: [1,\n")
    status, _, err = whylight("models", "seal", folder)
    assert "not valid YAML at line 2" in err


def test_sealing_names_a_file_that_is_not_there(whylight, tmp_path):
    folder = write_package(tmp_path / "small")
    before = (folder / "model.yaml").read_text()
    (folder / "weights.safetensors").unlink()
    status, _, err = whylight("models", "seal", folder)
    assert status == 1
    assert "/files/0/path: The package has no such file" in err
    assert (folder / "model.yaml").read_text() == before


def test_sealing_prints_the_lists_that_a_refusal_names(whylight, tmp_path):
    targets = [{"of": "zzz"}, {"kind": "regression", "of": "nodule"}]
    folder = write_package(tmp_path / "small", explain={"default_targets": targets})
    status, _, err = whylight("models", "seal", folder)
    assert status == 1
    first, second = err.splitlines()[-2:]
    assert first.startswith("  /explain/default_targets/0/of: The model has no such class")
    assert first.endswith("'classes': nodule.")
    assert second.startswith("  /explain/default_targets/1/kind: ")
    assert second.endswith("'kinds': class, contrast.")


def test_sealing_tells_of_steps_and_networks_that_no_worker_would_take(whylight, tmp_path):
    folder = write_package(tmp_path / "small")
    fields = yaml.safe_load((folder / "model.yaml").read_text())
    fields["inputs"][0]["steps"] = [{"name": "crop", "parameters": {"sizes": [8, 8]}}]
    fields["architecture"] = {"name": "densnet"}
    write_manifest(folder, fields)
    status, _, err = whylight("models", "seal", folder)
    assert status == 1
    assert "/inputs/0/steps/0/parameters/sizes: The step has no parameter 'sizes'" in err
    assert "/architecture/name: There is no network 'densnet'" in err
    assert "The nearest names are: densenet" in err


FAILURE = {"detail": "No.", "facts": {"field": "/head", "missing": ["fc.bias"]}}


def probe(state, **changes):
    """A probe as a gateway tells of it."""
    told = {"state": state, "attempt": 0, "pool": "default", "workers": 1, "starting": 0}
    return told | {"failure": None} | changes


READY = {
    "name": "small",
    "version": "1.0.0",
    "runtime": "onnx",
    "state": "ready",
    "methods": ["rise", "lime"],
    "refused": {
        "saliency": "It has operators that are not interpreted: Det.",
        "smooth_grad": "It has operators that are not interpreted: Det.",
        "grad_cam": "It needs layer gradient.",
    },
    "refused_layers": {"nowhere": "The network has no layer 'nowhere'."},
    "unnoticed": {"/inputs/0/steps/0": "No self-test would fail without it."},
}


class Served:
    """Answers as a gateway does: to each question about a probe the next of what is given."""

    def __init__(self, *entries, probes=()):
        self.entries = entries
        self.probes = list(probes)

    def json(self, verb, path, **_):
        if verb == "PUT" or path.endswith("/probe"):
            found = self.probes.pop(0) if self.probes else None
            return found if path.endswith("/probe") else {"probe": found}
        return {"models": self.entries} if path == "/v1/models" else self.entries[0]


def added(tmp_path, *entries, probes=()):
    folder = write_package(tmp_path / "small")
    models._add(Namespace(folder=folder, tenant=[]), Served(*entries, probes=probes))


def test_adding_follows_the_probe_and_tells_what_the_model_cannot_do_and_why(tmp_path, capsys):
    states = ("queued", "queued", "running", "succeeded")
    added(tmp_path, READY, probes=[probe(each) for each in states])
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "small@1.0.0 is ready: rise, lime",
        "  /inputs/0/steps/0: No self-test would fail without it.",
        "  layer nowhere is refused: The network has no layer 'nowhere'.",
        "  3 of 5 methods are refused:",
        "    saliency, smooth_grad: It has operators that are not interpreted: Det.",
        "    grad_cam: It needs layer gradient.",
    ]
    assert err.splitlines() == [
        "small@1.0.0 waits for a worker.",
        "A worker loads small@1.0.0.",
    ]


def test_adding_what_a_worker_serves_already_waits_for_nothing(tmp_path, capsys):
    added(tmp_path, READY)
    out, err = capsys.readouterr()
    assert out.startswith("small@1.0.0 is ready")
    assert err == ""


def test_what_a_worker_found_wrong_is_told_with_its_particulars(tmp_path, capsys):
    probes = [probe("queued"), probe("running", attempt=2), probe("failed", failure=FAILURE)]
    with pytest.raises(CommandFailure, match="cannot be used") as told:
        added(tmp_path, READY, probes=probes)
    assert told.value.mend.splitlines() == ["No.", '  field: "/head"', '  missing: ["fc.bias"]']
    assert "Attempt 2: workers ended before." in capsys.readouterr().err


ALONE = "No worker of pool 'default' is alive. small@1.0.0 is registered; its probe waits for one."


def test_with_no_worker_alive_adding_says_so_at_once_and_waits_for_one(tmp_path, capsys):
    alone = probe("queued", workers=0)
    added(tmp_path, READY, probes=[alone, alone, probe("running"), probe("succeeded")])
    assert capsys.readouterr().err.splitlines() == [ALONE, "A worker loads small@1.0.0."]


def test_a_worker_that_is_starting_is_waited_for_and_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(packages, "NO_WORKER_FOR", 0.0)
    starting = probe("queued", starting=1)
    added(tmp_path, READY, probes=[starting, starting, probe("running"), probe("succeeded")])
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("A worker is starting and loads what is registered;")
    assert second == "A worker loads small@1.0.0."


def test_when_no_worker_comes_adding_ends_and_the_probe_stays_queued(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(packages, "NO_WORKER_FOR", 0.0)
    with pytest.raises(CommandFailure, match="No worker of pool 'default' is alive") as told:
        added(tmp_path, READY, probes=[probe("queued", workers=0)])
    assert "stays registered, and its probe queued" in told.value.mend
    assert capsys.readouterr().err.splitlines() == [ALONE]


def test_a_model_that_cannot_be_used_is_listed_with_the_reason(capsys):
    failure = {"detail": "The weights do not fit.", "facts": {"field": "/architecture"}}
    bad = {**READY, "name": "bad", "methods": [], "state": "unavailable", "failure": failure}
    models._list(Namespace(), Served(READY, bad))
    assert capsys.readouterr().out.splitlines() == [
        "small@1.0.0  onnx  ready",
        "  rise, lime",
        "bad@1.0.0  onnx  unavailable",
        "  The weights do not fit.",
        '  field: "/architecture"',
    ]


def test_many_methods_are_told_in_lines_of_a_terminal(tmp_path, capsys):
    methods = [f"method_{number:02}" for number in range(40)]
    added(tmp_path, {**READY, "methods": methods})
    models._list(Namespace(), Served({**READY, "methods": methods}))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= packages.WIDTH
    assert sum(line.count("method_") for line in lines) == 2 * len(methods)
