"""Whether a map says something of this image, or the same as of everybody's."""

from typing import ClassVar

import numpy as np
from pydantic import Field
from typing_extensions import override

from service.domain.explanation import Check
from service.domain.trust import Flag
from workers.measures.base import MEASURES, Case, Measure
from workers.measures.bearing import brought


@MEASURES.register("template")
class Template(Measure):
    """Cosine of the map with the method's mean map of this class on this model.

    Parameters
    ----------
    alike
        Cosine from which on the map counts as the same for everybody.
    """

    title = "Template"
    meaning = "The map differs from the mean map that this method gives for this class."
    limits = "A finding that always lies in the same place gives maps that rightly look alike."
    words: ClassVar = {
        "pass": "The map differs from the mean map of its class.",
        "fail": (
            "The map is much like this method's mean map of this class: it says little about this"
            " image in particular."
        ),
        "partial": (
            "The method was stopped early: that the map differs from the mean of whole maps of its"
            " class does not tell that it says more of this image."
        ),
        "not_applicable": "No mean map of this class is known for this method and model.",
    }

    alike: float = Field(default=0.9, gt=0, le=1)

    @override
    def judge(self, case: Case) -> Check:
        """Return the similarity with the mean map."""
        if case.template is None or not np.isfinite(case.values).all():
            return self.check("not_applicable")
        coarse = brought(case.values, case.grid, case.extent, case.template.shape[0])
        length = float(np.linalg.norm(coarse))
        if length == 0:
            return self.check("not_applicable")
        similarity = float((coarse * case.template).sum()) / length
        values = {"similarity": similarity, "alike_from": self.alike}
        if similarity < self.alike:
            said = ("not_applicable", Flag.PARTIAL) if case.partial else ("pass",)
            return self.check(*said, values=values)
        return self.check("fail", Flag.SAME_FOR_EVERYBODY, values=values)
