"""Norms folded into the convolutions before them: the same function, memory read less often.

With fixed statistics a batch norm is a factor and an offset for each channel
(Ioffe and Szegedy 2015, section 3.1), which the convolution before it can apply
itself. Weights of these convolutions lie channels last, as its kernels like best.
"""

import copy
import weakref
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import chain
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from typing_extensions import override

from workers.runtimes.capture import hooked

CONVOLUTIONS: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

ABOUT: Final = (torch.Size, torch.dtype, torch.device, int, str)
"""What a tensor tells about itself without its values."""

EQUAL: Final = 100
"""Roundings of the largest output by which both ways may differ."""


def layout(shape: Sequence[int]) -> torch.memory_format:
    """Return the memory format with the channels innermost, where torch has one."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return formats.get(len(shape), torch.contiguous_format)


def folds(module: nn.Module | None) -> bool:
    """Tell whether a module is a norm with fixed statistics, one factor for each channel."""
    return (
        type(module) in NORMS
        and not cast("nn.BatchNorm2d", module).training
        and cast("nn.BatchNorm2d", module).running_mean is not None
    )


def folded(model: nn.Module, row: Tensor, kept: Collection[str]) -> nn.Module:
    """Return a model of the same outputs whose convolutions do the work of their norms.

    Parameters
    ----------
    model
        In evaluation mode. It stays as it is.
    row
        A batch of one to find out which layers follow each other, and to compare on.
    kept
        Layers that must put out what they do in `model`.

    Returns
    -------
    nn.Module
        All parameters and buffers but those of folded convolutions are those of `model`.
        It is `model` itself where nothing can be folded, or not with equal outputs, and where
        layers have hooks of their own: those of a copy may still write to the model.
    """
    if hooked(model):
        return model
    try:
        with torch.no_grad():
            pairs = _pairs(model, row, kept)
            twin = _twin(model, pairs) if pairs else model
            # on another row too: a copy may answer with what the model kept of the first
            rows = () if twin is model else (row, 3 - 2 * row)
            return twin if all(_equal(model(each), twin(each)) for each in rows) else model
    except Exception:  # noqa: BLE001 - a model is foreign code, and is right as it stands
        return model


def _pairs(model: nn.Module, row: Tensor, kept: Collection[str]) -> dict[str, str]:
    """Return, by name, which convolution's output goes to which norm; each runs once."""
    names = {module: name for name, module in model.named_modules()}
    ran: Counter[nn.Module] = Counter()
    last: list[tuple[nn.Module, Any]] = []
    found: dict[nn.Module, nn.Module] = {}

    def after(convolution: nn.Module, _inputs: Any, output: Any) -> None:
        ran[convolution] += 1
        last[:] = [(convolution, output)]
        uses.watch(convolution, output)

    def before(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        ran[norm] += 1
        if last and inputs[0] is last[0][1]:
            found[last[0][0]] = norm

    uses = _Uses()
    hooks = [
        *(each.register_forward_hook(after) for each in names if type(each) in CONVOLUTIONS),
        *(each.register_forward_pre_hook(before) for each in names if folds(each)),
    ]
    try:
        with uses:
            model(row)
    finally:
        for hook in hooks:
            hook.remove()
    return {
        names[convolution]: names[norm]
        for convolution, norm in found.items()
        if ran[convolution] == ran[norm] == 1
        and names[convolution] not in kept
        # what also goes elsewhere, as in a skip from before the norm, must stay as it is
        and uses.counts[convolution] == 1
    }


class _Uses(TorchFunctionMode):
    """Counts what computes with each convolution's output; shapes may be asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[nn.Module] = Counter()
        self._outputs: list[tuple[weakref.ref[Tensor], nn.Module]] = []

    def watch(self, convolution: nn.Module, output: Tensor) -> None:
        self._outputs.append((weakref.ref(output), convolution))

    @override
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, ABOUT):
            given = {id(each) for each in tree_leaves((args, kwargs))}
            self._outputs = [each for each in self._outputs if each[0]() is not None]
            self.counts.update(module for output, module in self._outputs if id(output()) in given)
        return result


def _twin(model: nn.Module, pairs: dict[str, str]) -> nn.Module:
    """Return a copy that shares all tensors, but for the convolutions of `pairs`."""
    shared = {id(each): each for each in chain(model.parameters(), model.buffers())}
    twin = copy.deepcopy(model, cast("dict[int, Any]", shared))
    for convolution, norm in pairs.items():
        _fold(twin.get_submodule(convolution), twin.get_submodule(norm))
        twin.set_submodule(norm, nn.Identity())
    return twin.requires_grad_(requires_grad=False)


def _fold(convolution: nn.Module, norm: nn.Module) -> None:
    """Give a convolution the weights of itself and the norm after it."""
    first, then = cast("nn.Conv2d", convolution), cast("nn.BatchNorm2d", norm)
    assert then.running_mean is not None  # noqa: S101 - see `folds`
    assert then.running_var is not None  # noqa: S101 - likewise
    weight, first.bias = fuse_conv_bn_weights(
        first.weight,
        first.bias,
        then.running_mean,
        then.running_var,
        then.eps,
        then.weight,
        then.bias,
    )
    first.weight = nn.Parameter(weight.contiguous(memory_format=layout(weight.shape)))


def _equal(expected: Any, found: Any) -> bool:
    """Tell whether outputs differ by rounding alone."""
    largest = EQUAL * torch.finfo(expected.dtype).eps * expected.abs().max()
    return bool(((found - expected).abs() <= largest).all())
