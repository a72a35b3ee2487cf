r"""Where the cells of a network's tensors lie in its image, followed through one run.

A cell is centered where its receptive field is. Of a convolution of kernel `k`, stride `s`,
padding `p` and dilation `d` that is, along an axis on which the cells before it lie at
``first + step * i``,

.. math:: \text{first}' = \text{first} + \text{step}\left(\frac{d (k - 1)}{2} - p\right),
          \qquad \text{step}' = \text{step} \cdot s

Cells of a kernel of 3, a stride of 2 and a padding of 1 lie on every second pixel, and not
between two: taken for tiles of the image, a map of five such layers would lie 15.5 pixels off.
Every operation of the run is seen, whether a module makes it or a function. What does not keep
places, such as attention, leaves none; where it is added to what has some, those stay.

References
----------
Araujo, Norris, Sim (2019). Computing receptive fields of convolutional neural networks.
Distill. doi:10.23915/distill.00021.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import starmap
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary
from typing_extensions import override

ROUNDING: Final = 1e-6
"""Pixels within which two ways say the same."""


@dataclass(frozen=True, slots=True)
class Line:
    """Cells along one axis of a tensor, and where they lie along one of the image's."""

    axis: int
    """Of the image's spatial axes."""

    first: float = 0.0
    """Center of the first cell, in pixels; 0 is the center of the first pixel."""

    step: float = 1.0
    """Pixels from one cell to the next."""

    field: float = 1.0
    """Pixels that a cell sees."""

    def windowed(self, kernel: float, stride: float, padding: float, dilation: float) -> "Line":
        """Return cells of windows that slide over these."""
        reach = dilation * (kernel - 1)
        return replace(
            self,
            first=self.first + self.step * (reach / 2 - padding),
            step=self.step * stride,
            field=self.field + self.step * max(reach, 0),
        )

    def scaled(self, cells: int, into: int) -> "Line":
        """Return as many cells as share the same place evenly."""
        share = cells / into
        return self.windowed(kernel=share, stride=share, padding=0, dilation=1)

    def agrees(self, other: "Line") -> bool:
        """Tell whether cells lie in the same places."""
        apart = max(abs(self.first - other.first), abs(self.step - other.step))
        return self.axis == other.axis and apart < ROUNDING


Lines = tuple[Line | None, ...]
"""For each axis of a tensor; `None` where it is none of the image's, or not known."""


class Places(TorchDispatchMode):
    """Follows the cells of an image's tensors while it is entered.

    Parameters
    ----------
    batch
        The image, shape ``(N, C, *spatial)``.
    """

    def __init__(self, batch: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known = WeakTensorKeyDictionary()
        self._known[batch] = (None, None, *map(Line, range(batch.dim() - 2)))

    def of(self, tensor: Tensor) -> Lines:
        """Return where the cells of a tensor lie, for each of its axes."""
        lines: Lines = self._known.get(tensor, (None,) * tensor.dim())
        return lines

    @override
    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        before = [(each, self.of(each)) for each in _tensors(args)]
        made = func(*args, **(kwargs or {}))
        if any(any(lines) for _, lines in before):
            given = {**_named(func, args), **(kwargs or {})}
            for each in _tensors((made,)):
                self._known[each] = _told(_rule(func), before, given, each)
        return made


Known = Sequence[tuple[Tensor, Lines]]
"""Tensors that an operation was given, with where their cells lay before it."""

Rule = Callable[[Known, Mapping[str, Any], Tensor], Lines]


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among values, also those in lists of them."""
    for each in values:
        if isinstance(each, Tensor):
            yield each
        elif isinstance(each, list | tuple):
            yield from _tensors(each)


def _named(func: Any, args: Sequence[Any]) -> dict[str, Any]:
    """Return an operation's arguments by name, with the defaults of the rest."""
    schema = func._schema.arguments  # noqa: SLF001 - torch names its arguments nowhere else
    defaults = {each.name: each.default_value for each in schema if each.has_default_value()}
    return defaults | {each.name: value for each, value in zip(schema, args, strict=False)}


def _told(rule: Rule, known: Known, given: Mapping[str, Any], made: Tensor) -> Lines:
    """Return what a rule says of a tensor; nothing where it does not fit the operation."""
    try:
        lines = rule(known, given, made)
    except (IndexError, KeyError, TypeError, ValueError):  # a form of it that no network here has
        lines = ()
    return lines if len(lines) == made.dim() else (None,) * made.dim()


def _rule(func: Any) -> Rule:
    name = func.overloadpacket.__name__
    if name in RULES:
        return RULES[name]
    if torch.Tag.pointwise in func.tags:
        return _joined
    return _lost


# ------------------------------------------------------------------ what keeps places


def _lost(known: Known, given: Mapping[str, Any], made: Tensor) -> Lines:
    """Nothing is known of where cells went."""
    del known, given
    return (None,) * made.dim()


def _kept(known: Known, given: Mapping[str, Any], made: Tensor) -> Lines:
    """Every cell stays where it was."""
    del given
    first, lines = known[0]
    return lines if first.shape == made.shape else (None,) * made.dim()


def _joined(known: Known, given: Mapping[str, Any], made: Tensor) -> Lines:
    """Cells of the same place meet; those of shorter tensors are spread over all."""
    del given
    found: Lines = (None,) * made.dim()
    for tensor, lines in known:
        missing = made.dim() - tensor.dim()
        wide = zip((None,) * missing + lines, (1,) * missing + tuple(tensor.shape), strict=True)
        own = [
            line if size == n else None for (line, size), n in zip(wide, made.shape, strict=True)
        ]
        found = tuple(starmap(_nearer, zip(found, own, strict=True)))
    return found


def _nearer(one: Line | None, other: Line | None) -> Line | None:
    """Return where cells lie that two ways lead to.

    Where the ways disagree it is that of the smaller field which keeps places: a shortcut, or
    the finer side of a U-Net.
    """
    if one is None or other is None:
        return one or other
    if one.agrees(other):
        return replace(one, field=max(one.field, other.field))
    if one.axis != other.axis or abs(one.step - other.step) >= ROUNDING:
        return None
    return min(one, other, key=lambda each: each.field)


# ------------------------------------------------------------------ windows and sizes


def _each(value: Any, axes: int) -> list[float]:
    """Return a number for each spatial axis, of one for all or of as many."""
    several = list(value) if isinstance(value, list | tuple) else [value]
    return several * axes if len(several) == 1 else several


def _spatial(lines: Lines, change: Callable[[int, Line], Line], axes: int) -> Lines:
    """Return lines with those of the last axes changed, by their number among these."""
    start = len(lines) - axes
    return (None,) * start + tuple(
        None if line is None else change(k, line) for k, line in enumerate(lines[start:])
    )


def _convolved(known: Known, given: Mapping[str, Any], made: Tensor) -> Lines:
    del made
    lines, kernel = known[0][1], given["weight"].shape[2:]
    axes = len(kernel)
    strides, pads, dilations = (
        _each(given[name], axes) for name in ("stride", "padding", "dilation")
    )

    def change(k: int, line: Line) -> Line:
        if not given["transposed"]:
            return line.windowed(kernel[k], strides[k], pads[k], dilations[k])
        reach = dilations[k] * (kernel[k] - 1)
        step = line.step / strides[k]
        first = line.first + step * (pads[k] - reach / 2)
        return replace(line, first=first, step=step, field=line.field + step * reach)

    return _spatial(lines, change, axes)


def _pooled(known: Known, given: Mapping[str, Any], made: Tensor) -> Lines:
    del made
    axes = len(given["kernel_size"])
    kernel = _each(given["kernel_size"], axes)
    strides = _each(given["stride"] or kernel, axes)
    pads, dilations = (_each(given.get(name, none), axes) for name, none in OF_POOLS.items())

    def change(k: int, line: Line) -> Line:
        return line.windowed(kernel[k], strides[k], pads[k], dilations[k])

    return _spatial(known[0][1], change, axes)


OF_POOLS: Final = {"padding": 0, "dilation": 1}


def _resized(known: Known, given: Mapping[str, Any], made: Tensor) -> Lines:
    """Cells are averaged or repeated so that another number of them shares the same place."""
    before, lines = known[0]
    axes = before.dim() - 2
    sizes = list(zip(before.shape[2:], made.shape[2:], strict=True))

    def change(k: int, line: Line) -> Line:
        cells, into = sizes[k]
        if given.get("align_corners"):
            return replace(line, step=line.step * (cells - 1) / max(into - 1, 1))
        return line.scaled(cells, into)

    return _spatial(lines, change, axes)


def _padded(known: Known, given: Mapping[str, Any], made: Tensor) -> Lines:
    del made
    _, lines = known[0]
    pads: list[Any] = list(given["pad"] if "pad" in given else given["padding"])[::2]
    before = [0] * (len(lines) - len(pads)) + pads[::-1]
    return tuple(
        None if line is None else replace(line, first=line.first - line.step * pad)
        for line, pad in zip(lines, before, strict=True)
    )


def _sliced(known: Known, given: Mapping[str, Any], made: Tensor) -> Lines:
    del made
    tensor, lines = known[0]
    at = given["dim"] % len(lines)
    start, _, step = slice(given["start"], given["end"], given["step"]).indices(tensor.shape[at])
    line = lines[at]
    moved = None if line is None else line.windowed(1, step, -start, 1)
    return (*lines[:at], moved, *lines[at + 1 :])


# ---------------------------------------------------------------------- axes moved


def _permuted(known: Known, given: Mapping[str, Any], made: Tensor) -> Lines:
    del made
    return tuple(known[0][1][at] for at in given["dims"])


def _transposed(known: Known, given: Mapping[str, Any], made: Tensor) -> Lines:
    del made
    lines = list(known[0][1])
    one, other = given.get("dim0", 0), given.get("dim1", -1)
    lines[one], lines[other] = lines[other], lines[one]
    return tuple(lines)


def _viewed(known: Known, given: Mapping[str, Any], made: Tensor) -> Lines:
    """Axes stay that are neither cut nor laid together with others."""
    del given
    tensor, lines = known[0]
    found: list[Line | None] = [None] * made.dim()
    ends = {math.prod(made.shape[: k + 1]): k for k in reversed(range(made.dim()))}
    for k, line in enumerate(lines):
        at = ends.get(math.prod(tensor.shape[: k + 1]))
        if line is not None and at is not None and made.shape[at] == tensor.shape[k]:
            found[at] = line
    return tuple(found)


def _chosen(known: Known, given: Mapping[str, Any], made: Tensor) -> Lines:
    """One of an axis is taken, or all are taken apart."""
    del made
    lines = known[0][1]
    at = given["dim"] % len(lines)
    return lines[:at] + lines[at + 1 :]


def _reduced(known: Known, given: Mapping[str, Any], made: Tensor) -> Lines:
    """Cells of an axis are taken together."""
    if "other" in given:  # the larger of two tensors
        return _joined(known, given, made)
    lines, dims = known[0][1], given.get("dim")
    taken = range(len(lines)) if dims is None else [dims] if isinstance(dims, int) else dims
    gone = {at % len(lines) for at in taken} or set(range(len(lines)))
    if given.get("keepdim"):
        return tuple(None if at in gone else line for at, line in enumerate(lines))
    return tuple(line for at, line in enumerate(lines) if at not in gone)


def _parted(known: Known, given: Mapping[str, Any], made: Tensor) -> Lines:
    """Tensors are laid side by side, or cut: along that axis no place is known."""
    at = given.get("dim", 0) % made.dim()
    level = (made.shape[:at], made.shape[at + 1 :])
    found: Lines = (None,) * made.dim()
    for tensor, lines in known:
        if tensor.dim() == made.dim() and (tensor.shape[:at], tensor.shape[at + 1 :]) == level:
            found = tuple(starmap(_nearer, zip(found, lines, strict=True)))
    return (*found[:at], None, *found[at + 1 :])


_BY_RULE: Final = (
    (
        _kept,
        (
            "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training"
            " _batch_norm_no_update cudnn_batch_norm miopen_batch_norm native_group_norm"
            " native_layer_norm _softmax _log_softmax _prelu_kernel hardswish hardswish_ hardtanh"
            " hardtanh_ native_dropout _to_copy detach detach_ alias lift_fresh"
        ),
    ),
    (_convolved, "convolution"),
    (_pooled, "max_pool2d_with_indices max_pool3d_with_indices avg_pool2d avg_pool3d"),
    (
        _resized,
        (
            "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d"
            " upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d"
            " upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d"
        ),
    ),
    (
        _padded,
        (
            "constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d"
            " replication_pad2d replication_pad3d"
        ),
    ),
    (_sliced, "slice"),
    (_permuted, "permute"),
    (_transposed, "transpose"),
    (_viewed, "view _unsafe_view _reshape_alias reshape squeeze unsqueeze"),
    (_joined, "expand"),
    (_chosen, "select unbind"),
    (_reduced, "mean sum amax amin max min"),
    (_parted, "cat split split_with_sizes"),
)

RULES: Final[Mapping[str, Rule]] = {
    name: rule for rule, names in _BY_RULE for name in names.split()
}
"""By the name of the operation; others keep places if they act on each cell alone."""
