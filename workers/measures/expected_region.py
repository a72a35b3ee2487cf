"""Whether the score needs what lies outside the region that the model's maker declared."""

from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from service.domain.explanation import Check
from service.domain.trust import STATEMENTS, Flag
from workers.measures.bank import blurred, said
from workers.measures.base import MEASURES, Case, Inquiry, Measure, Scene
from workers.passes import Forward, Plan, Step
from workers.rows import Blurred

BLUR: Final = 1 / 12
"""Width of the blur, as a share of the edge: it hides marks and keeps the body's outline."""


def outside_hidden(scene: Scene) -> Plan[NDArray[np.float64]]:
    """Ask for the scalars, shape ``(scalars,)``, with all outside of the region blurred."""
    image = scene.image
    inside = torch.from_numpy(np.asarray(scene.inside)).to(image)
    outside = (1 - inside)[None]
    everywhere = (slice(None),) * (image.dim() - 1)
    hidden = Blurred(image, (everywhere,), blurred(image, BLUR), lambda _: outside)
    step: Step = yield Forward(hidden, scene.scalars, outputs=not scene.scalars)
    return np.asarray(said(step)[0])


def _rows(scene: Scene) -> int:
    """Return one row, or none where no region is declared or it covers the whole image."""
    return 0 if scene.inside is None or bool((scene.inside >= 1).all()) else 1


REGION: Final = Inquiry("expected_region", outside_hidden, _rows)


@MEASURES.register("expected_region")
class ExpectedRegion(Measure):
    r"""The fall of the score when everything outside the declared region is blurred.

    .. math:: f(x) - f(x_{\text{outside blurred}}) > s\,(\bar f_1 - \bar f_0)

    with :math:`\bar f_1` and :math:`\bar f_0` the mean scores of the model's
    validation cases with and without the finding: a yardstick that is the same
    for models of any scale. A percentile of the falls themselves would bless a
    shortcut that the validation cases share. One pass. It asks the model and not
    the map: a coarse map spills over the region's border on ordinary images too.

    Parameters
    ----------
    share
        Share of that distance from which on a fall counts as leaning on what
        is outside, `s`.
    """

    title = "Expected region"
    passes = "1 forward row an image"
    inquiry = REGION
    meaning = "The score does not need what lies outside the region declared for the model."
    limits = "It cannot see a wrong use of what lies inside the region."
    words: ClassVar = {
        "pass": "Hiding what lies outside the declared region did not lower the score by much.",
        "fail": STATEMENTS[Flag.DEPENDS_OUTSIDE_EXPECTED_REGION],
        "not_applicable": "The model declares no expected region, or did not answer.",
        "no_yardstick": (
            "How far the score fell when all outside the declared region was hidden is told, but"
            " not judged: the model has no known cases of both kinds."
        ),
    }

    share: float = Field(default=0.2, gt=0, le=1)

    @override
    def judge(self, case: Case) -> Check:
        """Return the fall of the score."""
        answer: Any = case.answers.get(REGION.name)
        if answer is None or not np.isfinite(answer[case.target]):
            return self.check("not_applicable")
        fall = case.score - float(answer[case.target])
        if case.gap is None:
            return self.check("not_applicable", "no_yardstick", values={"fall": fall}, passes=1)
        values = {"fall": fall, "share": fall / case.gap, "share_from": self.share}
        if fall <= self.share * case.gap:
            return self.check("pass", values=values, passes=1)
        return self.check("fail", Flag.DEPENDS_OUTSIDE_EXPECTED_REGION, values=values, passes=1)
