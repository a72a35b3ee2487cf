"""``python -m workers.convert_main``: one foreign file to safetensors or ONNX, confined.

Loading such a file can run any code that it brings. So this process is thrown
away afterwards, and gives up network, files and processes before it looks at the
first byte (:mod:`workers.confinement`). It gets open descriptors, answers with
JSON lines, and whoever started it believes nothing of them but what he checks.
"""

import errno
import json
import os
import pickle
import sys
import tempfile
import types
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final

from typing_extensions import override

from workers.confinement import Limits, Unconfined, confine, leave_network

MOST_DEPTH: Final = 3
"""Of dictionaries within one another, in which weights are looked for."""

OPSET: Final = 17
SHOWN: Final = 10


class RefusedError(Exception):
    """The file cannot be converted; a code tells why."""

    def __init__(self, code: str, *names: str) -> None:
        super().__init__(code)
        self.code = code
        self.names = names


def main(request: Mapping[str, Any]) -> None:
    """Convert what the request says; see :mod:`service.command.convert`."""
    left = leave_network()  # while there is one thread
    import torch  # noqa: PLC0415 - after the namespaces, before the confinement

    if request["to"] == "onnx":
        import torch.onnx  # noqa: PLC0415
    if request["program"]:  # it makes folders when it is imported, which takes seconds
        import torch.export.pt2_archive  # noqa: PLC0415
    import safetensors.torch  # noqa: PLC0415, F401

    torch.set_num_threads(1)
    tempfile.tempdir = str(Path.cwd())  # torch asks for one, and no file can be tried
    limits = Limits(request["memory"], request["seconds"], request["bytes"])
    with os.fdopen(request["source"], "rb") as source:
        try:
            held = confine(limits)
        except Unconfined:
            _tell(refused="unconfined")
            return
        _tell(protections=[*left, *held])
        _convert(request, source)


def _convert(request: Mapping[str, Any], source: BinaryIO) -> None:
    """Convert the file, confined, and tell what came of it."""
    try:
        loaded, how = _load(source, request["program"])
        made = _onnx(loaded, request["shape"]) if request["to"] == "onnx" else None
        _write(request["target"], made or _safetensors(_weights(loaded, request["key"])))
    except RefusedError as error:
        _tell(refused=error.code, names=[*error.names[:SHOWN]])
    except MemoryError:
        _tell(refused="memory")
    except RuntimeError as error:
        _tell(refused="memory" if "allocate memory" in str(error) else "unreadable")
    except OSError as error:
        _tell(refused="too_large" if error.errno == errno.EFBIG else "unreadable")
    except Exception:  # noqa: BLE001 - whatever a foreign file does to its reader
        _tell(refused="unreadable")
    else:
        _tell(done=how)


def _tell(**facts: object) -> None:
    os.write(1, json.dumps(facts).encode() + b"\n")


def _write(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]


def _load(source: BinaryIO, program: bool) -> tuple[Any, str]:
    """Return what a file holds, and how it was read; any code that it brings runs here."""
    import torch  # noqa: PLC0415 - imported before the process was confined

    if program:
        return torch.export.load(source), "program"
    if any(name.endswith("constants.pkl") for name in _entries(source)):
        return torch.jit.load(source, map_location="cpu"), "script"
    try:
        return torch.load(source, map_location="cpu", weights_only=True), "plain"
    except (pickle.UnpicklingError, RuntimeError):
        source.seek(0)
    try:
        loaded = torch.load(source, "cpu", pickle_module=_pickles(), weights_only=False)
    except (pickle.UnpicklingError, EOFError, ValueError, KeyError, AttributeError):
        raise RefusedError("unreadable") from None
    return loaded, "unrestricted"


def _entries(source: BinaryIO) -> list[str]:
    """Return the names in a zip archive; none if it is no archive."""
    try:
        return zipfile.ZipFile(source).namelist()
    except zipfile.BadZipFile:
        return []
    finally:
        source.seek(0)


class _Unknown:
    """Stands for an object of a class that is not installed here; it holds nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Unpickler(pickle.Unpickler):
    """Unpickles what it knows, and stands in for classes that are not installed."""

    @override
    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return super().find_class(module_name, global_name)
        except (ImportError, AttributeError):
            return _Unknown


def _pickles() -> types.ModuleType:
    """Return a module that torch can use in the place of `pickle`."""
    module = types.ModuleType("pickles")
    module.__dict__.update(vars(pickle))
    module.__dict__["Unpickler"] = _Unpickler
    module.__dict__["load"] = lambda file, **options: _Unpickler(file, **options).load()
    return module


def _weights(loaded: Any, key: str | None) -> dict[str, Any]:
    """Return the state dict in what was loaded: the one named, else the only one."""
    from torch import nn  # noqa: PLC0415 - imported before the process was confined

    if isinstance(loaded, nn.Module):
        return dict(loaded.state_dict())
    if not isinstance(loaded, Mapping):  # an exported program
        return {name: each.detach() for name, each in loaded.state_dict.items()}
    found = dict(_state_dicts(loaded, ""))
    if not found:
        raise RefusedError("no_weights")
    if key is None and len(found) > 1:
        raise RefusedError("several", *sorted(found))
    if key is not None and key not in found:
        raise RefusedError("no_such_key", *sorted(found))
    return found[next(iter(found)) if key is None else key]


def _state_dicts(value: Any, path: str, depth: int = 0) -> list[tuple[str, dict[str, Any]]]:
    """Return every dictionary of names and tensors, by the keys that lead there."""
    from torch import Tensor, nn  # noqa: PLC0415 - imported before the process was confined

    if isinstance(value, nn.Module):
        return [(path, dict(value.state_dict()))]
    if not isinstance(value, Mapping) or depth > MOST_DEPTH:
        return []
    tensors = {name: each for name, each in value.items() if isinstance(each, Tensor)}
    if tensors and all(isinstance(name, str) for name in tensors):
        return [(path, {name: each.detach() for name, each in tensors.items()})]
    inner = [(f"{path}.{name}" if path else str(name), each) for name, each in value.items()]
    return [found for name, each in inner for found in _state_dicts(each, name, depth + 1)]


def _safetensors(weights: Mapping[str, Any]) -> bytes:
    from safetensors.torch import save  # noqa: PLC0415 - imported before the process was confined

    if not weights:
        raise RefusedError("no_weights")
    data: bytes = save({name: each.contiguous().clone() for name, each in weights.items()})
    return data


def _onnx(loaded: Any, shape: list[int] | None) -> bytes:
    """Return the graph of a whole network as ONNX, with any number of rows."""
    import torch  # noqa: PLC0415 - imported before the process was confined

    program = isinstance(loaded, torch.export.ExportedProgram)
    network = _traceable(loaded.module()) if program else loaded
    if not isinstance(network, torch.nn.Module):
        raise RefusedError("no_network")
    if shape is None:
        raise RefusedError("no_shape")
    kept = BytesIO()
    torch.onnx.export(
        network,
        (torch.zeros(shape),),
        kept,  # type: ignore[arg-type] # as the exporter takes it: no file may be opened
        dynamo=False,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "rows"}, "logits": {0: "rows"}},
    )
    return kept.getvalue()


def _traceable(program: Any) -> Any:
    """Return a program as a plain module, which alone can be traced."""
    from torch import fx, nn  # noqa: PLC0415 - imported before the process was confined

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = fx.GraphModule(program, program.graph)  # without checks of the shape

        @override
        def forward(self, image: Any) -> Any:
            return fx.Interpreter(self.steps).run(image)

    return Plain()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
