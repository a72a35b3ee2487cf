"""What methods share that look at gradients under noise."""

from collections.abc import Sequence
from typing import ClassVar, Final

from pydantic import Field
from torch import Tensor
from typing_extensions import override

from workers.methods.base import Maps, Method, cells
from workers.passes import Ability, Cost
from workers.rows import Noisy

FEWEST: Final = 16
"""Samples that make a partial map; half of them if they are fewer."""


class NoiseMethod(Method):
    """A statistic of the gradients at the image with Gaussian noise.

    Parameters
    ----------
    samples
        Noisy images.
    noise
        Standard deviation of the noise, as a share of the image's range (its
        largest less its smallest value).
    seed
        Where the noise starts; equal seeds give equal noise on every device.
    """

    needs: ClassVar = frozenset({Ability.INPUT_GRADIENT})
    sense: ClassVar = "sensitivity"
    partial_map: ClassVar = True
    cost: ClassVar = "samples gradient rows"

    samples: int = Field(default=32, ge=2, le=2048, multiple_of=2, description="Noisy images.")
    noise: float = Field(
        default=0.15,
        gt=0,
        le=2,
        description="Standard deviation of the noise, as a share of the image's range.",
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Where the noise starts.")

    @override
    def estimate(self, shape: Sequence[int], targets: int) -> Cost:
        """Return `samples` gradient rows."""
        return Cost(gradient_rows=self.samples)

    def noisy(self, image: Tensor, *, antithetic: bool) -> Noisy:
        """Return the rows: `image` under noise."""
        sigma = self.noise * (image.max() - image.min()).item()
        return Noisy(image, sigma, self.seed, self.samples, antithetic)


def maps_of(values: Tensor, rows: Noisy, done: int, *, partial: bool) -> Maps:
    """Return maps ``(K, C, *spatial)``, with the noise that was used."""
    spatial = rows.image.shape[1:]
    figures = {"sigma": rows.sigma, "samples": float(done)}
    extras = (figures,) * len(values)
    return Maps(values.to(rows.image.dtype), cells(spatial, spatial), extras, partial=partial)
