"""Whether the image has wider uniform margins than the model's known cases."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field, JsonValue
from typing_extensions import override

from service.domain.explanation import Check
from service.domain.trust import STATEMENTS, Flag
from workers.measures.base import MEASURES, Case, Measure


@MEASURES.register("margins")
class Margins(Measure):
    """The uniform margins of the model's input, beside those of its validation cases.

    Models take black borders for findings, and maps rightly show it. Edge by edge, because
    some are always there: air lies beside a chest, and not above it. It asks neither the map
    nor the model: it is a property of the prepared image.

    Parameters
    ----------
    beyond
        Share of an axis by which a margin may be wider than any of the known cases'.
    """

    title = "Margins"
    meaning = "The image has no wider uniform margins than the model's known cases."
    limits = "It cannot see margins with noise or text in them, or what else is unusual."
    words: ClassVar = {
        "pass": "The image's uniform margins are no wider than those of the model's known cases.",
        "fail": STATEMENTS[Flag.WIDE_MARGINS],
        "not_applicable": "The model brings no known cases to compare the margins with.",
    }

    beyond: float = Field(default=0.02, gt=0, le=1)

    @override
    def judge(self, case: Case) -> Check:
        """Return how wide the margins are."""
        if case.known_margins is None:
            return self.check("not_applicable")
        values: Mapping[str, JsonValue] = {
            "margins": [*case.margins],
            "widest_known": [*case.known_margins],
            "beyond": self.beyond,
        }
        pairs = zip(case.margins, case.known_margins, strict=True)
        if all(margin <= known + self.beyond for margin, known in pairs):
            return self.check("pass", values=values)
        return self.check("fail", Flag.WIDE_MARGINS, values=values)
