"""A session of onnxruntime, and the names of what goes in and comes out of it."""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import onnx
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema
from torch import Tensor

from service.errors.models import InvalidPackage
from service.wording import nearest
from workers.runtimes.memory import Need, line, peaked
from workers.runtimes.torch_probe import Sized, noise

T = TypeVar("T")

A_VALUE: Final = 256
"""Guess at the bytes of a row for each of its values."""

SEEN: Final = 64 << 20
"""Bytes that the larger of two measured batches should take: less drowns in what pages hold."""

MOST_ROWS: Final = 64
"""Of that batch."""

MOST_SECONDS: Final = 120
"""Longest run of one row: of a slower model no method would end in time."""

SHOWN: Final = 5
"""Operators that an error tells."""


def session(model: bytes) -> Any:
    """Return a session with one thread: workers are as many as cores.

    It has no arena, which would keep the memory of its largest batch while other models need it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4  # its texts may quote what it read
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def ended(run: Callable[[Any], T]) -> T:
    """Return what a first run gives, which is ended after `MOST_SECONDS`.

    A graph may loop as often as it likes, and nothing in it tells how often it will.

    Parameters
    ----------
    run
        Runs the session with the options that it is handed.

    Raises
    ------
    InvalidPackage
        It took too long.
    """
    options, late = onnxruntime.RunOptions(), threading.Event()

    def end() -> None:
        late.set()
        options.terminate = True

    timer = threading.Timer(MOST_SECONDS, end)
    timer.start()
    try:
        return run(options)
    except Exception:
        if late.is_set():
            raise InvalidPackage(
                f"The graph has no answer on one row after {MOST_SECONDS} seconds. Look for a loop"
                " in it that does not end, or give it smaller inputs.",
                pointer="/files",
            ) from None
        raise
    finally:
        timer.cancel()


def memory_of(
    run: Callable[[Tensor], object], one: int | None, subject: Sized, *, alone: bool
) -> Need:
    """Return what memory a session takes of a batch, beside what goes in and what comes out.

    A batch of a size that it never had takes more than later ones: it is what counts.

    Parameters
    ----------
    run
        Runs a batch.
    one
        Peak of the first run, of one row; if `None`, this kernel does not count peaks, and
        `A_VALUE` is assumed.
    alone
        Whether it takes one row at a time.
    """
    guess = A_VALUE * math.prod(subject.shape)
    if one is None:
        return Need(0, guess)
    if alone:
        return line((1,), (one,))
    rows = max(3, min(MOST_ROWS, SEEN // guess))
    return line((1, rows), (one, peaked(partial(run, noise(subject, rows))) or one))


def unloadable(model: Any) -> InvalidPackage:
    """Return the refusal of a model that onnxruntime cannot load, with what it lacks for that."""
    functions = {(each.domain, each.name) for each in model.functions}
    used = {(node.domain, node.op_type) for node in model.graph.node} - functions
    known = {(each.domain, each.name) for each in get_all_operator_schema()}
    foreign = sorted(each for each in used if (plain(each[0]), each[1]) not in known)
    if not foreign:
        return InvalidPackage(
            "onnxruntime cannot load the ONNX model: it is damaged, or of a newer standard than"
            f" onnxruntime {onnxruntime.__version__}. Export it again, of a lower opset.",
            pointer="/files",
            opsets={each.domain or "ai.onnx": each.version for each in model.opset_import},
        )
    told = [f"{name[:40]} (domain '{plain(domain)[:40] or 'ai.onnx'}')" for domain, name in foreign]
    return InvalidPackage(
        "onnxruntime cannot load the ONNX model: it has operators that are none of the standard's:"
        f" {', '.join(told[:SHOWN])}. Export it again with standard operators in their place.",
        pointer="/files",
        operators=[*told[:SHOWN]],
        opsets={each.domain or "ai.onnx": each.version for each in model.opset_import},
    )


def plain(domain: str) -> str:
    """Return a domain by its first name: the standard's own has two."""
    return "" if domain == "ai.onnx" else domain


def exposed(model: Any, layers: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Append the layers' tensors to the graph's outputs; return those found, and why others not."""
    made = {name for node in model.graph.node for name in node.output}
    outputs = {output.name for output in model.graph.output}
    found = {layer: tensor for layer, tensor in layers.items() if tensor in made}
    for tensor in dict.fromkeys(found.values()):
        if tensor not in outputs:
            model.graph.output.append(onnx.ValueInfoProto(name=tensor))
    return found, {
        layer: f"The graph has no tensor '{tensor}' for '{layer}'.{nearest(tensor, made)}"
        for layer, tensor in layers.items()
        if layer not in found
    }


def image_of(session: Any, beside: Sequence[str]) -> str:
    """Return the name of the input that is the image: what is left when all others are named.

    Raises
    ------
    InvalidPackage
        There are other inputs, or the others do not take float32.
    """
    inputs: dict[str, str] = {each.name: each.type for each in session.get_inputs()}
    rest = [name for name in inputs if name not in beside]
    if len(rest) != 1 or len(inputs) != 1 + len(beside):
        raise InvalidPackage(
            "The ONNX model must have one input for the image and one for each tabular input of"
            " the manifest, by its name; those of 'inputs' it has.",
            pointer="/inputs",
            inputs=[*(name[:64] for name in [*inputs][:16])],
        )
    if any(inputs[name] != "tensor(float)" for name in beside):
        raise InvalidPackage(
            "The tabular inputs of the ONNX model must take 32-bit floats.", pointer="/inputs"
        )
    return rest[0]
