"""Foreign weights made ready in a process that is thrown away, whatever it loads."""

import ctypes
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from service.command import convert
from tests.support import doctored

ONNX = Path(__file__).parents[3] / "models" / "chest-phantom" / "model.onnx"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="confinement is Linux's")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)

    def forward(self, image):
        return self.head(torch.relu(self.norm(self.body(image))).mean((2, 3)))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def exported(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "net.pt2"
    rows = {"image": {0: torch.export.Dim("rows", min=1, max=64)}}
    torch.export.save(
        torch.export.export(net, (torch.zeros(2, 1, 8, 8),), dynamic_shapes=rows), path
    )
    return path


def same(path, weights):
    found = load_file(path)
    assert set(found) == set(weights)
    for name, each in weights.items():
        torch.testing.assert_close(found[name], each)


def nnunet(path, weights):
    """A checkpoint as nnU-Net writes it: numpy scalars and its own classes beside weights."""
    content = {
        "network_weights": weights,
        "optimizer_state": {"param_groups": [{"lr": 1e-2}]},
        "logging": {"train_losses": [np.float64(0.5)]},
        "current_epoch": np.int64(3),
        "init_args": {"plans": {"spacing": np.array([1.0, 0.5, 0.5])}},
    }
    torch.save(content, path)
    return path


@LINUX
def test_a_checkpoint_that_needs_unpickling_becomes_safetensors(whylight, net, tmp_path):
    source = nnunet(tmp_path / "checkpoint_final.pth", net.state_dict())
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        torch.load(source, weights_only=True)
    status, out, err = whylight("models", "convert", source, tmp_path / "weights.safetensors")
    assert (status, err) == (0, "")
    same(tmp_path / "weights.safetensors", net.state_dict())
    assert "format: safetensors" in out
    assert "filter of system calls" in out
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "checkpoint_final.pth",
        "weights.safetensors",
    ]


@LINUX
def test_several_sets_of_weights_are_told_and_one_is_named(whylight, net, tmp_path):
    source, target = tmp_path / "both.pt", tmp_path / "one.safetensors"
    torch.save({"model": net.state_dict(), "ema": {"shadow": net.state_dict()}}, source)
    status, _, err = whylight("models", "convert", source, target)
    assert status == 1
    assert "--key: ema.shadow model" in err
    assert whylight("models", "convert", source, target, "--key", "ema.shadow")[0] == 0
    same(target, net.state_dict())


@LINUX
def test_torchscript_becomes_onnx(whylight, net, tmp_path):
    torch.jit.script(net).save(tmp_path / "net.ts")
    target = tmp_path / "net.onnx"
    status, _, err = whylight(
        "models", "convert", tmp_path / "net.ts", target, "--input", "1,1,8,8"
    )
    assert (status, err) == (0, "")
    says_the_same(target, net)


@LINUX
def test_a_frozen_torchscript_has_no_weights_by_name(whylight, net, tmp_path):
    torch.jit.freeze(torch.jit.script(net.eval())).save(tmp_path / "net.ts")
    target = tmp_path / "net.safetensors"
    status, _, err = whylight("models", "convert", tmp_path / "net.ts", target)
    assert status == 1
    assert "ends in .onnx" in err
    assert not target.exists()


@LINUX
def test_an_exported_program_becomes_safetensors_and_onnx(whylight, net, exported, tmp_path):
    assert whylight("models", "convert", exported, tmp_path / "w.safetensors")[0] == 0
    same(tmp_path / "w.safetensors", net.state_dict())
    target = tmp_path / "net.onnx"
    assert whylight("models", "convert", exported, target, "--input", "1,1,8,8")[0] == 0
    says_the_same(target, net)


def says_the_same(path, net):
    images = torch.randn(3, 1, 8, 8)
    (logits,) = onnxruntime.InferenceSession(path).run(None, {"image": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), net(images).detach())


@pytest.fixture
def harm(tmp_path, monkeypatch):
    """What a doctored file goes for: a secret, a file, a port."""
    monkeypatch.setenv("WHYLIGHT_API_KEY", "wl_live_secret")
    flag, victim = tmp_path / "flag", tmp_path / "victim"
    victim.write_text("precious")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        yield doctored.attempts(flag, victim, server.getsockname()[1])
        with pytest.raises(TimeoutError):
            server.accept()
    assert not flag.exists()
    assert victim.read_text() == "precious"
    assert victim.stat().st_mode & 0o777 != 0o777


@LINUX
def test_a_doctored_checkpoint_can_touch_nothing(whylight, harm, tmp_path):
    """What it gives as its weights is how far each attempt came: it ran, and got nowhere."""
    source = doctored.checkpoint(tmp_path / "evil.pth", harm)
    status, out, err = whylight("models", "convert", source, tmp_path / "evil.safetensors")
    assert (status, err) == (0, "")
    tried = load_file(tmp_path / "evil.safetensors")
    assert len(tried) > 25
    assert [name for name, done in tried.items() if done] == ["thread"]  # threads are harmless
    assert "own network namespace" in out or os.geteuid() != 0


def child(source, stderr, **options):
    """Start the throw-away process on a file, as the command does, but hear its errors."""
    with Path(source).open("rb") as given, (source.parent / "made").open("wb") as target:
        request = {
            "source": given.fileno(),
            "target": target.fileno(),
            "to": "safetensors",
            "program": source.suffix == ".pt2",
            "key": None,
            "shape": None,
            "memory": 4 << 30,
            "seconds": 100,
            "bytes": 1 << 30,
        }
        return subprocess.run(
            [sys.executable, "-m", "workers.convert_main", json.dumps(request)],
            stderr=stderr,
            stdout=subprocess.PIPE,
            pass_fds=(request["source"], request["target"]),
            env={**convert._environment(str(source.parent)), "TELL": "1"},
            check=False,
            text=True,
            **options,
        )


def without_admin():
    """Take the power to make namespaces from a root process, as other users are without it."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(24, 21, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_SYS_ADMIN


@LINUX
def test_a_doctored_exported_program_can_touch_nothing(harm, exported, tmp_path):
    source = doctored.program(tmp_path / "evil.pt2", exported, harm)
    ran = child(source, subprocess.PIPE, preexec_fn=without_admin)
    assert ran.stderr.splitlines()[0] == "[]", "it must have run, and none of it succeeded"
    assert "filter of system calls" in ran.stdout
    assert "own user namespace" in ran.stdout or "namespace" not in ran.stdout


@LINUX
def test_loaded_without_walls_the_same_files_would_have_done_harm(exported, tmp_path):
    """Else the two tests before this one would prove nothing."""
    flag = tmp_path / "flag"
    payload = f"import os; found = {{}}; os.system('touch {flag}')"
    source = doctored.program(tmp_path / "evil.pt2", exported, payload)
    load = "import sys, torch; torch.export.load(sys.argv[1])"
    subprocess.run([sys.executable, "-c", load, str(source)], check=False, capture_output=True)
    assert flag.exists()


@LINUX
@pytest.mark.parametrize(
    ("payload", "option", "words"),
    [
        ("import torch; found = {'x': torch.zeros(1 << 43)}", [], "more memory"),
        ("import torch; found = {'x': torch.zeros(1 << 20)}", ["--size", "0.001"], "larger"),
        ("import os; os.write(1, b'x' * 100000 + b'\\n'); found = {}", [], "cannot be read"),
    ],
)
def test_limits_hold_and_lies_are_not_believed(whylight, tmp_path, payload, option, words):
    source = doctored.checkpoint(tmp_path / "evil.pth", payload)
    target = tmp_path / "evil.safetensors"
    status, _, err = whylight("models", "convert", source, target, *option)
    assert status == 1
    assert words in err
    assert not target.exists()


@LINUX
@pytest.mark.parametrize(
    ("lines", "after", "told"),
    [
        ([{"protections": ["FORGED"]}, {"done": "FORGED"}], "os._exit(0)", (1, "cannot be read")),
        ([{"protections": ["FORGED"]}], "found = {'x': torch.zeros(1)}", (0, "system calls")),
    ],
)
def test_no_word_of_a_foreign_file_is_shown(whylight, tmp_path, lines, after, told):
    """It claims a reading of its own, or writes over what was said before it was loaded."""
    forged = "".join(json.dumps(each) + "\n" for each in lines).encode()
    payload = f"import os, torch; os.lseek(1, 0, 0); os.write(1, {forged!r}); {after}"
    source = doctored.checkpoint(tmp_path / "evil.pth", payload)
    status, out, err = whylight("models", "convert", source, tmp_path / "evil.safetensors")
    assert status == told[0]
    assert told[1] in out + err
    assert "FORGED" not in out + err


@LINUX
def test_what_takes_too_long_is_ended(whylight, net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "net.pt")
    status, _, err = whylight(
        "models", "convert", tmp_path / "net.pt", tmp_path / "w.safetensors", "--seconds", "0"
    )
    assert status == 1
    assert "longer than it may" in err


def test_what_needs_no_process_is_told_at_once(whylight, net, tmp_path, monkeypatch):
    save_file(net.state_dict(), tmp_path / "named.pth")
    torch.save(net.state_dict(), tmp_path / "net.pt")
    shutil.copyfile(ONNX, tmp_path / "graph.pt")
    (tmp_path / "picture.pth").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    (tmp_path / "there.onnx").touch()
    for source, target, words in (
        ("named.pth", "x.safetensors", "safetensors already"),
        ("graph.pt", "x.safetensors", "ONNX already"),
        ("picture.pth", "x.safetensors", "no checkpoint"),
        ("net.pt", "x.pt", "must end in"),
        ("net.pt", "there.onnx", "exists already"),
        ("net.pt", "nowhere/x.onnx", "folder of the target"),
        ("nothing.pt", "x.onnx", "no such file"),
    ):
        status, _, err = whylight("models", "convert", tmp_path / source, tmp_path / target)
        assert status == 1
        assert words in err
    monkeypatch.setattr(convert, "find_spec", lambda _: None)
    _, _, err = whylight("models", "convert", tmp_path / "net.pt", tmp_path / "x.onnx")
    assert "needs torch" in err
    assert "whylight[worker]" in err
