"""Gradient SHAP: gradients at random points between random references and the image."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from captum.attr import GradientShap as Engine
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from workers.methods.base import METHODS
from workers.methods.lent import ROWS, LentMethod, Part, grays
from workers.passes import Ability, Cost
from workers.rows import Given, Rows
from workers.twins import Scored


@METHODS.register("gradient_shap")
class GradientShap(LentMethod):
    r"""Mean of way times gradient, at random points on ways from random references.

    .. math:: A = \frac{1}{n} \sum_{i=1}^{n} (x + \varepsilon_i - r_i) \odot
              \nabla f\!\left(r_i + \alpha_i (x + \varepsilon_i - r_i)\right)

    References `r` are drawn from uniform images of every gray between the
    image's darkest and its brightest, shares :math:`\alpha` evenly from 0 to 1
    and the noise :math:`\varepsilon` from a normal distribution, each draw
    independent of the others. It estimates the same as expected gradients,
    which spread their draws evenly and so need fewer; this is the form in which
    it is published and compared. The maps sum to the score less the mean score
    of the references, up to the error of sampling.

    When time is up after half of every target's points, or 16 of more than 32, the mean
    over those done so far is returned, marked as partial; `gradient_rows` says how many.
    On the demo model the map of 16 of 64 points correlates with the full one at 0.92
    (median of eight maps; the least 0.90), but may miss what it should sum to by as much
    again or more: the residual tells.

    It is computed by captum, an optional extra. It takes plain gradients, which
    follow a network however it is written; whether they add up to the change in
    score is tried on every network when it is loaded, and a network on which
    they do not is refused. What the draws leave of it on an image is judged by
    the check of completeness: a map that misses more than 5 % is flagged, and
    weak at best.

    Parameters
    ----------
    samples
        Points, `n`, a multiple of 4.
    grays
        References that are drawn from.
    noise
        Standard deviation of the noise, as a share of the image's range (its
        largest less its smallest value).
    seed
        Where the draws start; equal seeds give equal maps.

    References
    ----------
    Lundberg, Lee (2017). A unified approach to interpreting model predictions.
    NeurIPS. arXiv:1705.07874.

    Erion, Janizek, Sturmfels, Lundberg, Lee (2021). Improving performance of
    deep learning models with axiomatic attribution priors and expected
    gradients. Nature Machine Intelligence 3. arXiv:1906.10670, eq. 3.
    """

    title: ClassVar = "Gradient SHAP"
    needs: ClassVar = frozenset({Ability.EXCLUSIVE, Ability.PATH_GRADIENT})
    partial_map: ClassVar = True
    paper: ClassVar = "Lundberg, Lee (2017), arXiv:1705.07874; Erion et al. (2021), eq. 3"
    cost: ClassVar = "samples gradient rows for each target; grays + 1 forward rows"
    weaknesses: ClassVar = (
        "It is a random estimate; few samples leave an error, which is stated. References are "
        "uniform images, not the model's training data: the map tells what sets the image apart "
        "from them, not from other patients. The model is lent to one job for four points at "
        "a time, so that nothing is shared with others; expected gradients give the same for less."
    )

    samples: int = Field(default=64, ge=4, le=1024, multiple_of=ROWS, description="Points.")
    grays: int = Field(default=16, ge=2, le=256, description="References that are drawn from.")
    noise: float = Field(
        default=0.0,
        ge=0,
        le=2,
        description="Standard deviation of the noise, as a share of the image's range.",
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Where the draws start.")

    @override
    def estimate(self, shape: Sequence[int], targets: int) -> Cost:
        """Return image and references, and each target's points."""
        return Cost(forward_rows=1 + self.grays, gradient_rows=self.samples * targets)

    @override
    def references(self, image: Tensor) -> Rows:
        """Return the uniform images that are drawn from."""
        return Given(grays(image, self.grays))

    @override
    def parts(self, image: Tensor) -> Sequence[Part]:
        """Return a call for each `ROWS` points; each draws where the one before it left off."""
        given, draws = grays(image, self.grays), Draws(self.seed, image.device)
        sigma = self.noise * (image.max() - image.min()).item()

        def mean(scored: Scored) -> Tensor:
            with draws.going_on():
                made: Tensor = Engine(scored).attribute(image[None], given, ROWS, sigma)
            return made

        return [mean] * (self.samples // ROWS)


class Draws:
    """The process's generators, from which captum draws, lent for a while at a time.

    Parameters
    ----------
    seed
        Where they start.
    device
        Of the tensors that are drawn.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._devices = [device] if device.type == "cuda" else []
        with self._kept():
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002 - captum draws from the global generator
            self._state = self._now()

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Draw on from where the last draws ended; nobody else's draws are disturbed."""
        with self._kept():
            self._set(self._state)
            yield
            self._state = self._now()

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Put everything back as it was in the end."""
        before = self._now()
        try:
            yield
        finally:
            self._set(before)

    def _now(self) -> tuple[Any, Tensor, list[Tensor]]:
        """Return the states of numpy's generator, of torch's and of the device's."""
        of_numpy = np.random.get_state()  # noqa: NPY002 - captum draws from the global generator
        of_devices = [torch.cuda.get_rng_state(each) for each in self._devices]
        return of_numpy, torch.get_rng_state(), of_devices

    def _set(self, state: tuple[Any, Tensor, list[Tensor]]) -> None:
        of_numpy, of_torch, of_devices = state
        np.random.set_state(of_numpy)  # noqa: NPY002 - likewise
        torch.set_rng_state(of_torch)
        for device, each in zip(self._devices, of_devices, strict=True):
            torch.cuda.set_rng_state(each, device)
