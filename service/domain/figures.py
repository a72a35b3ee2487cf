"""The numbers that stand beside the sentences of a report, as a person reads them.

The sentences come from a fixed table; these lines hold what was measured in the
study, for pictures and summaries alike.
"""

from collections.abc import Iterable

from service.domain.boxes import BoxWindows
from service.domain.explanation import Check, Restriction


def probed(checks: Iterable[Check]) -> str | None:
    """Return what the evidence stands on, for brackets; `None` where there is no p."""
    bank = next((each for each in checks if each.name == "probe_bank"), None)
    p = None if bank is None else bank.values.get("p")
    if bank is None or not isinstance(p, float):
        return None
    return f"p = {p:.3f}, {bank.passes} places hidden in turn"


def largest_fall(checks: Iterable[Check]) -> str | None:
    """Return how far hiding one place lowers the score, of a map that marks none."""
    bank = next((each for each in checks if each.name == "probe_bank"), None)
    fall = None if bank is None else bank.values.get("largest_fall")
    if not isinstance(fall, float):
        return None
    return f"Hiding one place of this image lowers the score by {max(fall, 0.0):.2g} at most."


def fall_outside(checks: Iterable[Check]) -> str | None:
    """Return how far the logit fell with all outside the expected region hidden, if it was asked.

    The usual distance is that of the mean logits of known cases with and without the finding.
    """
    region = next((each for each in checks if each.name == "expected_region"), None)
    values = {} if region is None else region.values
    fall, share, start = (values.get(name) for name in ("fall", "share", "share_from"))
    if not isinstance(fall, float):
        return None
    moves = "falls" if round(fall, 2) >= 0 else "rises"
    said = f"With all outside the declared region hidden the logit {moves} by {abs(fall):.2f}"
    if isinstance(share, float) and isinstance(start, float):
        said += f", {abs(share):.2f} of the usual distance (flagged above {start:.2f})"
    return f"{said}."


def same_as_mean(checks: Iterable[Check]) -> str | None:
    """Return how alike a map is to its class's mean map, if that was flagged."""
    template = next((each for each in checks if each.name == "template"), None)
    if template is None or template.outcome != "fail":
        return None
    likeness, start = template.values.get("similarity"), template.values.get("alike_from")
    if not isinstance(likeness, float) or not isinstance(start, float):
        return None
    return f"Likeness to the class's mean map {likeness:.2f} (flagged from {start:.2f} on)."


def in_windows(windows: BoxWindows) -> str:
    """Return in how much of the image a box is explained, of a model that sees windows."""
    return (
        f"The model sees windows of the image, and this is explained in {windows.count} of"
        f" {windows.of}: outside of them the map is empty, whatever is there."
    )


def seen(share: float) -> str:
    """Return how much of the image a model sees whose steps crop."""
    return (
        f"The model was given {share:.0%} of the image: what its steps cropped away has no"
        " evidence, whatever is there."
    )


def kept_to(restriction: Restriction) -> str:
    """Return where evidence is shown, and how much of it lay elsewhere."""
    return (
        "Evidence is shown and counted inside the image's ultrasound regions alone;"
        f" {restriction.outside_share:.0%} of it lay outside."
    )
