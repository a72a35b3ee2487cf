"""What is told of a network that does not take what the package's steps prepare.

A trial at load finds it. The network says what it wants only where it breaks, so the
trial is repeated with an eye on its layers, or the graph's own words are read.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from service.errors.base import WhylightError
from service.errors.models import InvalidPackage
from workers.device import is_device_fault, is_out_of_memory

T = TypeVar("T")

STEPS: Final = "/inputs/0/steps"
LAYOUT: Final = "/inputs/0/layout"
FILES: Final = "/files"

OF_IMAGE: Final = 3
"""Axes of one row: channels, rows, columns."""

OF_EDGES: Final = (
    "prepare it with the rows and columns that it was made for: 'resize', 'crop' or 'pad' among the"
    " steps, or 'sliding_window'"
)

OF_ROWS: Final = (
    "export it for any number of rows, or for one: nothing in it may have the number of the export"
    " (in torch, 'x.shape[0]' where it says 'len(x)')"
)


def tried(run: Callable[[], T], told: Callable[[], InvalidPackage]) -> T:
    """Return what a trial gives; if the network raises, raise what `told` says of it.

    Raises
    ------
    InvalidPackage
        The network does not take what it was given.
    """
    try:
        return run()
    except Exception as error:
        own = isinstance(error, WhylightError)
        if own or is_out_of_memory(error) or is_device_fault(error):
            raise
        raise told() from None


def untaken(expected: str, given: Sequence[int], fix: str, pointer: str = STEPS) -> InvalidPackage:
    """Return what is told: what is expected, what the steps give, and what mends it.

    Parameters
    ----------
    given
        Shape of one row as it is handed to the network, without the axis of rows.
    """
    facts: dict[str, JsonValue] = {"expected": expected, "given": [*given]}
    return InvalidPackage(
        f"The network does not take the prepared input: it expects {expected}, and 'inputs' gives"
        f" 32-bit floats of shape (N, {_listed(given)}). {fix[0].upper()}{fix[1:]}.",
        pointer=pointer,
        **facts,
    )


def of_channels(wanted: int) -> str:
    """Return what to do where a network wants another number of channels."""
    return (
        f"give 'mean' and 'std' of 'normalize' {wanted} values each: a gray image is repeated into"
        " as many channels"
        if wanted > 1
        else "give 'mean' and 'std' of 'normalize' one value each, and accept gray images alone"
    )


# ------------------------------------------------------------------------ of torch


def try_network(network: nn.Module, shape: Sequence[int], device: torch.device) -> Tensor:
    """Give a network one blank row, and return that.

    Parameters
    ----------
    shape
        Of one row as prepared, ``(C, *spatial)``.

    Raises
    ------
    InvalidPackage
        It does not take it.
    """
    network = network.to(device).eval()
    types = (each.dtype for each in network.parameters() if each.is_floating_point())
    row = torch.zeros(1, *shape, dtype=next(types, torch.float32), device=device)

    def run() -> object:
        with torch.no_grad():
            return network(row)

    tried(run, lambda: _told_of_network(network, run, shape))
    return row


def _told_of_network(
    network: nn.Module, run: Callable[[], object], shape: Sequence[int]
) -> InvalidPackage:
    """Run a network again, and return which of its layers breaks on what."""
    entered: list[tuple[str, nn.Module, tuple[int, ...]]] = []

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def enter(layer: nn.Module, given: tuple[Any, ...]) -> None:
            if given and isinstance(given[0], Tensor):
                entered.append((name, layer, tuple(given[0].shape)))

        return enter

    handles = [
        layer.register_forward_pre_hook(hook(name)) for name, layer in network.named_modules()
    ]
    try:
        run()
    except Exception:  # noqa: BLE001 - it did before; only the way there counts
        name, layer, got = entered[-1] if entered else ("", network, (1, *shape))
    else:
        name, layer, got = "", network, (1, *shape)
    finally:
        for handle in handles:
            handle.remove()
    wanted, axis = _width(layer)
    where = f"at its layer '{name}' " if name else ""
    if wanted is None or len(got) <= axis or got[axis] == wanted:
        return untaken(f"{where}another shape than {_shape(got)}", shape, OF_EDGES)
    expected = f"{where}{wanted} channels, not {got[axis]}"
    first = axis == 1 and got[1:] == tuple(shape)
    return untaken(expected, shape, of_channels(wanted) if first else OF_EDGES)


def _width(layer: nn.Module) -> tuple[int | None, int]:
    """Return how many channels a layer takes, and along which axis; `None` if it does not say."""
    for name, axis in (("in_channels", 1), ("num_features", 1), ("in_features", -1)):
        width = getattr(layer, name, None)
        if isinstance(width, int):
            return width, axis
    return None, 1


# ------------------------------------------------------------------------- of ONNX


def told_of_graph(
    name: str, kind: str, declared: Sequence[Any], shape: Sequence[int], *, channels_last: bool
) -> InvalidPackage:
    """Return why a graph does not take a row, by what it says of its input.

    Parameters
    ----------
    name, kind, declared
        Of the input: its name, its type as of onnxruntime, its shape, in which words stand
        for any length.
    shape
        Of one row as prepared, ``(C, *spatial)``.
    channels_last
        Whether the row is handed over as ``(*spatial, C)``.
    """
    given = (*shape[1:], shape[0]) if channels_last else tuple(shape)
    wanted = [each if isinstance(each, int) and each > 0 else None for each in declared[1:]]
    type_ = kind.removeprefix("tensor(").removesuffix(")")
    words = ", ".join(["N", *("any" if each is None else str(each) for each in wanted)])
    expected = f"{type_} of shape ({words}) at '{name[:64]}'"
    if type_ != "float":
        fix = (
            "export it with an input of 32-bit floats (float32), and convert inside the graph if it"
            " must compute in another type"
        )
        return untaken(expected, given, fix, FILES)
    rows = declared[0] if declared else None
    if isinstance(rows, int) and rows > 1:
        expected = f"batches of {rows}, each image a {expected}"
        return untaken(expected, given, OF_ROWS, FILES)
    if _fits(wanted, given):
        expected += ", and breaks within on this one"
    return untaken(expected, given, *_mended(wanted, given, channels_last=channels_last))


def _mended(
    wanted: Sequence[int | None], given: Sequence[int], *, channels_last: bool
) -> tuple[str, str]:
    """Return what to do about a shape, and the field to mend; `None` stands for any length."""
    if len(wanted) != len(given):
        return "prepare it with as many axes", "/inputs/0"
    if _fits(wanted, given):
        return f"{OF_EDGES}, or see 'layout'; if the size is right, {OF_ROWS}", STEPS
    image = len(given) == OF_IMAGE
    if image and not channels_last and _fits(wanted[:-1], given[1:]):
        return "write 'layout: NHWC' beside the steps", LAYOUT
    if channels_last and _fits(wanted[1:], given[:-1]):
        return "leave out 'layout: NHWC'", LAYOUT
    axis = -1 if channels_last else 0
    channels = wanted[axis]
    if channels is not None and channels != given[axis]:
        return of_channels(channels), STEPS
    return OF_EDGES, STEPS


def _fits(wanted: Sequence[int | None], given: Sequence[int]) -> bool:
    return all(each in (None, size) for each, size in zip(wanted, given, strict=True))


def _listed(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))


def _shape(shape: Sequence[int]) -> str:
    return f"({_listed(shape)})"
