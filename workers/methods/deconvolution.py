"""Deconvolution: the score led back through the network, rectified on its way."""

from typing import ClassVar

from workers.methods.base import METHODS
from workers.methods.guided import GuidedMethod
from workers.passes import Rule


@METHODS.register("deconvolution")
class Deconvolution(GuidedMethod):
    r"""The score's gradient at the image, rectified in place of every ReLU's own derivative.

    .. math:: R_{in} = \max(R_{out}, 0)

    with `R` the gradient on its way back; where the ReLU was active is not
    asked. Max pooling keeps its ordinary derivative, which is the paper's
    unpooling to where the maximum was.

    References
    ----------
    Zeiler, Fergus (2013). Visualizing and understanding convolutional
    networks. arXiv:1311.2901, section 2.1.

    Nie, Zhang, Patel (2018). A theoretical explanation for perplexing
    behaviors of backpropagation-based visualizations. ICML. arXiv:1805.07039:
    the map is in essence a recovery of the image.
    """

    title: ClassVar = "Deconvolution"
    paper: ClassVar = "Zeiler, Fergus (2013), arXiv:1311.2901, section 2.1"
    rule: ClassVar = Rule.DECONVOLUTION
