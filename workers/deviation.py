r"""Autoencoders: everything here sees one number, how far what they give back is from the input.

.. math:: E(x) = \frac{1}{n} \sum_i \left(f(x)_i - x_i\right)^2

over all `n` numbers of the prepared image. Each row is held against itself, and not against the
unchanged image: where a method hides an anomaly, what stands in its place is what must be given
back, and the error falls. Against the unchanged image it would rise.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from service.errors.models import ModelUnavailable


@dataclass(frozen=True, slots=True)
class Deviation:
    """The mean squared error of a reconstruction."""

    def said(self, image: Tensor, outputs: Tensor) -> Tensor:
        """Return the error of each row, shape ``(N, 1)``.

        Parameters
        ----------
        image, outputs
            What the network was given and what it gives back, of one shape ``(N, ...)``.

        Raises
        ------
        ModelUnavailable
            They are not of one shape.
        """
        if image.shape != outputs.shape:
            raise ModelUnavailable(
                "A network of task 'reconstruction' must give back what it is given, in the same"
                " shape. Mend 'task', the network, or the steps: a network that halves its input"
                " several times needs edges that can be halved as often.",
                pointer="/task",
                expected=[*image.shape[1:]],
                found=[*outputs.shape[1:]],
            )
        return (outputs - image).square().flatten(1).mean(1, keepdim=True)

    def join(self, network: nn.Module) -> None:
        """Have a network put out its error."""
        network.register_forward_hook(self)

    def undo(self, network: nn.Module, _row: Tensor) -> None:
        """Have a network put out its error: nothing of it is in the way."""
        self.join(network)

    def __call__(self, _network: nn.Module, given: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
        """Return what the network puts out in place of its reconstruction."""
        return self.said(given[0], outputs)
