"""Guided backpropagation: the gradient without what works against the score."""

from typing import ClassVar

from workers.methods.base import METHODS
from workers.methods.guided import GuidedMethod
from workers.passes import Rule


@METHODS.register("guided_backprop")
class GuidedBackprop(GuidedMethod):
    r"""The score's gradient at the image, cut to its positive part at every ReLU.

    .. math:: R_{in} = [x > 0] \odot \max(R_{out}, 0)

    with `x` what the ReLU took in and `R` the gradient on its way back. A ReLU
    may be a module, a function, in-place, used twice, or a bound at zero. A
    model is refused, with the name of the operation, where something else is
    between image and score that could be part of a ReLU, such as a mask.

    References
    ----------
    Springenberg, Dosovitskiy, Brox, Riedmiller (2014). Striving for
    simplicity: the all convolutional net. arXiv:1412.6806, section 3.4.

    Adebayo et al. (2018). Sanity checks for saliency maps. NeurIPS.
    arXiv:1810.03292: the map hardly depends on the model's higher layers.
    """

    title: ClassVar = "Guided backpropagation"
    paper: ClassVar = "Springenberg et al. (2014), arXiv:1412.6806, section 3.4"
    rule: ClassVar = Rule.GUIDED
