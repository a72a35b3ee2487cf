"""``whylight models convert``: foreign weights to safetensors or ONNX, in a throw-away process."""

import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from service.command.failure import CommandFailure
from service.sniff import PICKLE, ZIP, contradiction

GIB: Final = 1024**3
MOST_ANSWER: Final = 64 * 1024
FORMATS: Final = {".safetensors": "safetensors", ".onnx": "onnx"}
NAME: Final = re.compile(r"[\w.-]{1,100}", re.ASCII)
SHAPE: Final = re.compile(r"[1-9]\d{0,5}(,[1-9]\d{0,5}){1,5}", re.ASCII)
UNREADABLE: Final = (
    "The file cannot be read as a checkpoint, a TorchScript or an exported program.",
    "It is damaged, or tries what the confinement refuses; see what else its publisher has.",
)
REFUSALS: Final[Mapping[str, tuple[str, str]]] = {
    "unconfined": (
        "This machine cannot confine the process that would load the file.",
        "Convert it on Linux, x86-64, where system calls can be filtered (seccomp).",
    ),
    "no_weights": (
        "The file holds no weights by name.",
        "A frozen TorchScript has them in its code: name a target that ends in .onnx.",
    ),
    "several": ("The file holds several sets of weights.", "Name one with --key:"),
    "no_such_key": ("The file holds no weights under this key.", "It holds:"),
    "no_network": (
        "The file holds weights and no network, so it cannot become ONNX.",
        "Name a target that ends in .safetensors.",
    ),
    "no_shape": (
        "An ONNX graph is recorded from an input; its shape is not known.",
        "Give it with --input, such as --input 1,1,224,224.",
    ),
    "memory": ("The process needed more memory than it may have.", "Raise --memory (GiB)."),
    "time": ("The process took longer than it may.", "Raise --seconds."),
    "too_large": ("The result is larger than it may be.", "Raise --size (GiB)."),
    "unreadable": UNREADABLE,
}
"""By the child's code: what is wrong, and what to do."""
READINGS: Final[Mapping[str, str]] = {
    "program": "exported program",
    "script": "TorchScript",
    "plain": "plain weights",
    "unrestricted": "checkpoint that needs unrestricted unpickling",
}
"""By the child's code: what the file was read as. Its own words are never shown."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's words."""
    parser.add_argument("source", type=Path, help="a .pt, .pth, .pt2 or TorchScript file")
    parser.add_argument("target", type=Path, help="ends in .safetensors or .onnx; must not exist")
    parser.add_argument("--key", help="where in a checkpoint its weights lie: network_weights")
    parser.add_argument("--input", type=_shape, help="shape of one input, for ONNX: 1,1,224,224")
    parser.add_argument("--memory", type=float, default=8, help="most memory, in GiB")
    parser.add_argument("--seconds", type=int, default=300, help="longest time")
    parser.add_argument("--size", type=float, default=4, help="largest result, in GiB")


def run(options: Namespace) -> int:
    """Convert one file and tell what came of it, and behind which walls."""
    format_ = FORMATS.get(options.target.suffix)
    if format_ is None:
        raise CommandFailure("The target must end in .safetensors or .onnx.")
    if not options.target.parent.is_dir():
        raise CommandFailure("The folder of the target does not exist.", "Make it first.")
    if options.target.exists():
        raise CommandFailure("The target exists already.", "Name another, or remove it.")
    if not options.source.is_file():
        raise CommandFailure("There is no such file to convert.")
    if contradiction(options.source, "safetensors") is None:
        raise CommandFailure(
            "The file is safetensors already, whatever its name says.", "Use it as it is."
        )
    if contradiction(options.source, "onnx") is None:
        raise CommandFailure(
            "The file is ONNX already, whatever its name says.",
            "Use it as it is: `whylight models import` begins a package of it.",
        )
    if not _may_hold(options.source):
        raise CommandFailure(
            "The file is no checkpoint, no TorchScript and no exported program: those are zip"
            " archives or pickles.",
            "Name the file that holds the weights.",
        )
    if find_spec("torch") is None:
        raise CommandFailure(
            "Converting needs torch, which is not installed here.",
            "Run the command where a worker is installed: pip install 'whylight[worker]'.",
        )
    with tempfile.TemporaryDirectory(dir=options.target.parent, prefix=".convert-") as folder:
        made = Path(folder) / f"made{options.target.suffix}"
        how, protections = _converted(options, format_, made)
        if contradiction(made, format_) is not None:  # the process is believed in nothing
            raise CommandFailure(*UNREADABLE)
        made.rename(options.target)
    _print(options.target, format_, how, protections)
    return 0


def _converted(options: Namespace, format_: str, made: Path) -> tuple[str, list[str]]:
    """Have the throw-away process write `made`; return what it read and what confined it."""
    with (
        options.source.open("rb") as source,
        made.open("xb") as target,
        tempfile.TemporaryDirectory(prefix="whylight-convert-") as empty,
    ):
        request = {
            "source": source.fileno(),
            "target": target.fileno(),
            "to": format_,
            "program": _is_program(options.source),
            "key": options.key,
            "shape": options.input,
            "memory": int(options.memory * GIB),
            "seconds": options.seconds,
            "bytes": int(options.size * GIB),
        }
        answers = _answers(request, empty, options.seconds)
    first, last = answers[0], answers[-1]
    how = READINGS.get(str(last.get("done")))
    if how is None:
        code = str(last.get("refused", "unreadable"))
        what, mend = REFUSALS.get(code, UNREADABLE)
        names = [each for each in last.get("names", ()) if NAME.fullmatch(str(each))]
        raise CommandFailure(what, " ".join([mend, *names]).strip())
    return how, [str(each) for each in first["protections"]]


def _may_hold(path: Path) -> bool:
    """Tell whether a file begins as any does that torch writes."""
    with path.open("rb") as file:
        return file.read(len(ZIP)).startswith((ZIP, *PICKLE))


def _is_program(path: Path) -> bool:
    """Tell whether a file is an archive with what makes an exported program."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("archive_format") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def _answers(request: Mapping[str, Any], empty: str, seconds: int) -> list[dict[str, Any]]:
    """Return what the process said: at the start by itself, at the end by who knows."""
    descriptors = (request["source"], request["target"])
    with tempfile.TemporaryFile() as said:
        fcntl.fcntl(said, fcntl.F_SETFL, os.O_APPEND)  # what was said first stays
        process = subprocess.Popen(  # noqa: S603 - our own program, no shell
            [sys.executable, "-m", "workers.convert_main", json.dumps(request)],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.DEVNULL,
            pass_fds=descriptors,
            cwd=empty,
            env=_environment(empty),
            start_new_session=True,
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return [{"refused": "time"}]
        said.seek(0)
        lines = said.read(MOST_ANSWER).splitlines()
    answers = [each for line in lines if isinstance(each := _parsed(line), dict)]
    if not answers or (status != 0 and len(answers) == 1):
        return [{"refused": "time" if status == -24 else "memory"}]  # noqa: PLR2004 - SIGXCPU
    return answers


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _environment(empty: str) -> dict[str, str]:
    """Return the whole environment of the process: no secret, no proxy, one thread."""
    source = str(Path(__file__).resolve().parents[2])
    return {
        "PATH": "",
        "HOME": empty,
        "LANG": "C.UTF-8",
        "PYTHONPATH": source,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TORCHINDUCTOR_CACHE_DIR": empty,
    }


def _print(target: Path, format_: str, how: str, protections: list[str]) -> None:
    with target.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    print(f"{target} is written, from what was read as {how}. For model.yaml:")
    print(f"  - {{role: {'weights' if format_ == 'safetensors' else 'forward'}, format: {format_},")
    print(f"     path: {target.name}, bytes: {os.path.getsize(target)},")  # noqa: PTH202 - no Path
    print(f"     sha256: {digest}}}")
    print("The file was loaded in a process that is gone, behind:")
    for each in protections:
        print(f"  - {each}")
    print("  - empty environment, empty folder of its own, descriptors of source and target alone")


def _shape(text: str) -> list[int]:
    if not SHAPE.fullmatch(text):
        raise ArgumentTypeError("expected whole numbers with commas, such as 1,1,224,224")
    return [int(each) for each in text.split(",")]
