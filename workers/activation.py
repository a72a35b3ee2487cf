r"""Networks that put out probabilities: how everything here sees logits all the same.

Of classes that are each their own, :math:`z = \log p - \log(1 - p)`; of classes that exclude
each other, :math:`z = \log p`, of which a softmax is :math:`p` again and every contrast is that
of the network's own logits. A probability that was rounded to 0 or 1 has lost its logit: it is
clamped to `LEAST` and `MOST`, and leads no gradient back.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from service.domain.manifest import Manifest
from service.errors.models import ModelUnavailable, NonFiniteScore

LEAST: Final = 2.0**-100
"""Least probability, of logit -69.3: far above the least float."""

MOST: Final = 1 - 2.0**-24
"""The largest 32-bit float below 1, of logit 16.6."""

OUTSIDE: Final = 1e-3
"""How far rounding may carry a probability beyond 0 or 1."""

SUM: Final = 0.05
"""How far rounding may carry the sum of classes that exclude each other from 1; of 8-bit files."""

EXTREMES: Final = (0.0, -1.0, 30.0, -30.0, 1000.0, -1000.0)
"""Factors of a self-test's input. Logits that stay within 0 and 1 on all of them are none."""

MOVED: Final = 1e-6
"""Answers that move less tell nothing."""


@dataclass(frozen=True, slots=True)
class Activation:
    """The last activation of a network, which is part of it."""

    exclusive: bool
    """Whether it was a softmax over the classes, along axis 1; else a sigmoid of each."""

    @classmethod
    def of(cls, manifest: Manifest) -> "Activation | None":
        """Return what the manifest tells; `None` of a network that puts out logits."""
        return cls(manifest.exclusive) if manifest.activation == "probabilities" else None

    def logits(self, given: Tensor) -> Tensor:
        """Return logits of probabilities ``(N, classes, ...)``; NaN of what are none."""
        sound = (given >= -OUTSIDE) & (given <= 1 + OUTSIDE)
        if self.exclusive:
            sound = sound & ((given.sum(1, keepdim=True) - 1).abs() <= SUM)
            logits = given.clamp(min=LEAST).log()
        else:
            clamped = given.clamp(LEAST, MOST)
            logits = clamped.log() - torch.log1p(-clamped)
        return torch.where(sound, logits, torch.nan)

    def said(self, _image: Tensor, outputs: Tensor) -> Tensor:
        """Return the logits of outputs, whatever image they are of."""
        return self.logits(outputs)

    def join(self, network: nn.Module) -> None:
        """Have a network put out logits, computed from its probabilities."""
        network.register_forward_hook(self)

    def undo(self, network: nn.Module, row: Tensor) -> None:
        """Have a network put out logits: its own, if a module at its end makes probabilities.

        Parameters
        ----------
        row
            A batch of one, to see which modules run, and in which order.
        """
        name = self._last(network, row)
        if name is None:
            self.join(network)
        else:
            network.set_submodule(name, nn.Identity())

    def _last(self, network: nn.Module, row: Tensor) -> str | None:
        """Return the name of the module that makes the probabilities, and does nothing else."""
        made: list[tuple[nn.Module, Tensor, int]] = []
        makers = {module: name for name, module in network.named_modules() if self._makes(module)}

        def keep(module: nn.Module, _given: object, output: Tensor) -> None:
            made.append((module, output, output._version))  # noqa: SLF001 - torch's count of writes

        hooks = [each.register_forward_hook(keep) for each in makers]
        try:
            with torch.no_grad():
                outputs = network(row)
        finally:
            for hook in hooks:
                hook.remove()
        ran = [module for module, *_ in made]
        if not made or ran.count(ran[-1]) > 1:
            return None
        _, output, version = made[-1]
        # what is written over afterwards is the same tensor, and another probability
        if output is not outputs or output._version != version:  # noqa: SLF001 - likewise
            return None
        return makers[ran[-1]] or None

    def _makes(self, module: nn.Module) -> bool:
        """Tell whether a module makes the probabilities of logits ``(N, classes, ...)``."""
        if self.exclusive:
            return type(module) is nn.Softmax and module.dim == 1
        return type(module) is nn.Sigmoid

    def __call__(self, _network: nn.Module, _given: object, outputs: Tensor) -> Tensor:
        """Return what the network puts out in place of its probabilities.

        Raises
        ------
        ModelUnavailable
            It puts out something else than a tensor.
        """
        if not isinstance(outputs, Tensor):
            raise ModelUnavailable(
                "The model must put out one tensor with one row for each input; have its network"
                " return the probabilities alone.",
                pointer="/architecture",
            )
        return self.logits(outputs)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probabilities of logits ``(N, classes, ...)``."""
        return logits.softmax(1) if self.exclusive else logits.sigmoid()


def told(manifest: Manifest, outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return one image's logits ``(classes, ...)`` as its self-tests list them."""
    activation = Activation.of(manifest)
    if activation is None:
        return outputs
    return activation.probabilities(torch.from_numpy(outputs)[None])[0].numpy()


@contextmanager
def demanded_probabilities(manifest: Manifest) -> Iterator[None]:
    """Refuse a network of which the manifest says that it puts out probabilities, if it does not.

    Raises
    ------
    ModelUnavailable
        Some of its answers are none.
    """
    try:
        yield
    except NonFiniteScore:
        if manifest.activation == "logits":
            raise
        raise ModelUnavailable(
            "The manifest says that the network puts out probabilities, and some of its answers"
            " are below 0 or above 1 or, of classes that exclude each other, do not add up to 1."
            " Say 'activation: logits' if they are logits, or mend 'task' or the file.",
            pointer="/activation",
        ) from None


def demand_logits(
    manifest: Manifest,
    answers: list[NDArray[np.float64]],
    ask: Callable[[float], NDArray[np.float64]],
) -> None:
    """Refuse a network that seems to put out probabilities where the manifest says logits.

    A probability that is taken for a logit gives another probability, and other decisions,
    and nothing looks wrong. Only where all self-tests' answers lie within 0 and 1 is the
    network asked about images far beyond any: a logit leaves these bounds there.

    Parameters
    ----------
    answers
        Of the self-tests, each ``(classes, ...)``.
    ask
        Returns the answer to a self-test's input times a factor.

    Raises
    ------
    ModelUnavailable
        All that it says lies within 0 and 1.
    """
    if manifest.activation != "logits" or not manifest.decides:
        return
    seen = list(answers)
    if not all(map(_within, seen)):
        return
    for factor in EXTREMES:
        try:
            answer = ask(factor)
        except NonFiniteScore:  # it overflows so far out, which tells nothing
            continue
        if not _within(answer):
            return
        seen.append(answer)
    if np.ptp([each[0].mean() for each in seen]) < MOVED:
        return
    raise ModelUnavailable(
        "The manifest says that the network puts out logits, and all its answers lie from 0 to 1,"
        " as probabilities do: on the self-tests, and on images far darker and brighter. Say"
        " 'activation: probabilities', or leave out the last sigmoid or softmax. If they are"
        " logits, add a self-test of which some are outside.",
        pointer="/activation",
        least=min(float(each.min()) for each in seen),
        greatest=max(float(each.max()) for each in seen),
        add_up_to_one=all(bool(np.allclose(each.sum(0), 1, atol=1e-4)) for each in seen),
    )


def _within(answer: NDArray[np.float64]) -> bool:
    """Tell whether all numbers lie from 0 to 1; a NaN does not."""
    return bool(((answer >= 0) & (answer <= 1)).all())
