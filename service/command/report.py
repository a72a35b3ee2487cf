"""What the demo found, as tables for people."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

PEAK_WORDS = {True: "yes", False: "no", None: "-"}


@dataclass(frozen=True, slots=True)
class Explained:
    """One finished job of the demo."""

    study: str
    model: str
    job: dict[str, Any]
    drawn: frozenset[str]
    """The findings that the phantom really has."""

    hits: tuple[bool | None, ...]
    """For each result, whether the map's peak lies in the known lesion."""

    seconds: float


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table whose columns also line up at a terminal."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    padded = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([padded[0], rule, *padded[1:]])


def predictions(all_explained: Iterable[Explained]) -> str:
    """Tabulate what the model said of every class of every study, and what is true."""
    rows = [
        (
            each.study,
            said["label"],
            f"{said['probability']:.3f}",
            f"{said['threshold']:.3f}",
            "yes" if said["above_threshold"] else "no",
            "yes" if said["key"] in each.drawn else "no",
        )
        for each in all_explained
        for said in each.job["predictions"]
    ]
    return table(("study", "finding", "probability", "threshold", "above", "drawn"), rows)


def maps(all_explained: Iterable[Explained]) -> str:
    """Tabulate every map: its target, its peak against the lesion, its checks."""
    rows = [
        (
            each.study,
            each.model,
            result["method"],
            (result["target"] or {}).get("label", "-"),
            result["status"],
            PEAK_WORDS[hit],
            _checks(result),
        )
        for each in all_explained
        for result, hit in zip(each.job["results"], each.hits, strict=True)
    ]
    head = ("study", "model", "method", "target", "status", "peak in lesion", "checks")
    return table(head, rows)


def timings(all_explained: Sequence[Explained]) -> str:
    """Tabulate the seconds of each job by stage."""
    stages = list(dict.fromkeys(name for each in all_explained for name in each.job["timings"]))
    rows = [
        (
            each.study,
            each.model,
            *(f"{each.job['timings'].get(stage, 0.0):.2f}" for stage in stages),
            f"{each.seconds:.2f}",
        )
        for each in all_explained
    ]
    return table(("study", "model", *stages, "in all"), rows)


def summary(all_explained: Sequence[Explained], card: str) -> str:
    """Return the whole page."""
    return "\n".join(
        [
            "# What the demo found",
            "",
            card,
            "",
            "## Predictions",
            "",
            predictions(all_explained),
            "",
            "## Maps",
            "",
            "The phantoms' lesions are known to the pixel. *Peak in lesion* tells whether the",
            "map's most relevant point lies inside the lesion that was drawn.",
            "",
            maps(all_explained),
            "",
            "## Seconds by stage",
            "",
            timings(all_explained),
            "",
        ]
    )


def _checks(result: dict[str, Any]) -> str:
    """Return a map's checks in a few words."""
    said = [f"{each['name']}: {each['outcome']}" for each in result["checks"]]
    return ", ".join(said) or "-"
