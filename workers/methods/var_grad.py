"""VarGrad: how much the gradient varies at the image under noise."""

from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from workers.methods.base import METHODS, Maps, cut_short, require_half, zeros
from workers.methods.noise import FEWEST, NoiseMethod, maps_of
from workers.passes import Gradient, Plan, Step, Targets, TimeUp
from workers.rows import INPUT


@METHODS.register("var_grad")
class VarGrad(NoiseMethod):
    r"""Variance of the gradient over images with Gaussian noise.

    .. math:: A = \frac{1}{n - 1} \sum_{i=1}^{n}
              \left(\nabla f(x + \varepsilon_i) - \bar{g}\right)^2, \qquad
              \bar{g} = \frac{1}{n} \sum_{i=1}^{n} \nabla f(x + \varepsilon_i)

    Noise is independent from sample to sample: pairs of opposite sign would
    hold about the same squares twice. The divisor ``n - 1`` makes the variance
    unbiased. The standard deviation is the parameter `noise` times the image's
    range, and is stated with the map as `sigma`.

    When time is up after half of the samples, or 16 of more than 32, the variance of
    those done so far is returned, marked as partial; how many `samples` that were is
    stated with it. On the demo model the map of 16 of 32 samples correlates with the
    full one at 0.95 (median of eight maps; the least 0.91).

    Parameters
    ----------
    samples
        Noisy images, an even number.
    noise
        Standard deviation of the noise, as a share of the image's range.
    seed
        Where the noise starts; equal seeds give equal maps.

    References
    ----------
    Adebayo, Gilmer, Goodfellow, Kim (2018). Local explanation methods for deep
    neural networks lack sensitivity to parameter values. arXiv:1810.03307,
    section 2.
    """

    title: ClassVar = "VarGrad"
    signed: ClassVar = False
    paper: ClassVar = "Adebayo et al. (2018), arXiv:1810.03307, section 2"
    weaknesses: ClassVar = (
        "It shows where the gradient is unsteady, not for or against what: it has no sign, "
        "and it is zero wherever the model is linear, however much depends on that place."
    )

    @override
    def plan(self, image: Tensor, targets: Targets) -> Plan[Maps]:
        """Attribute `image`, shape ``(C, *spatial)``; maps ``(K, C, *spatial)``."""
        rows = self.noisy(image, antithetic=False)
        mean, squares = (zeros((len(targets), *image.shape), image) for _ in range(2))
        done = 0

        def fold(_start: int, step: Step) -> None:
            nonlocal done
            for row in step.gradients[INPUT].double():
                done += 1  # Welford's update: no difference of two large sums
                change = row - mean
                mean.add_(change / done)
                squares.add_(change * (row - mean))

        partial = yield from cut_short(Gradient(rows, targets, fold=fold))
        require_half(done, self.samples, FEWEST)
        if done == 1:
            raise TimeUp  # of one there is no variance
        return maps_of(squares / (done - 1), rows, done, partial=partial)
