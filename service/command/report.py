"""What the demo found, as tables for people."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from service.domain.explanation import Check
from service.domain.figures import fall_outside, probed, same_as_mean
from service.domain.parity import WORDS as PARITY_WORDS
from service.domain.parity import MapParity
from service.domain.resolved import ResolvedTarget
from service.domain.trust import SUPPORTED_TO, WEAK_TO, TrustReport

GUIDE = f"""\
The phantoms' lesions are known to the pixel. *Peak in lesion* tells whether the map's most
relevant point lies inside the lesion that was drawn. *Grade* tells whether hiding the places
that a map marks moves the model's score more than hiding the same shape elsewhere (*p* is the
share of shifted and turned copies of the map that do as well), and whether the method follows
this model's weights on known cases. *Parity* tells whether the model said of the target what the
issuing system reported of it; here that is what the same networks said on a way apart from the
service's.
A grade describes the model and never the patient.

| grade | means | so |
|---|---|---|
| supported | p is {SUPPORTED_TO:.2f} or less | look where it points, and judge for yourself |
| weak | p is up to {WEAK_TO:.2f}, or its method was not clear on known cases | take it for a hint |
| not supported | p is above {WEAK_TO:.2f}, or its method failed on known cases | do not go by it |
| uninformative | hiding moved the score nowhere more than elsewhere | the map was not tested |
| invalid, not checked | the map is damaged, or was not tested | do not go by it |

The *usual distance* is that between the mean scores of known cases with and without the finding.

*Method on this model* tells how alike (from -1 to 1) the method's maps stay on known cases when
something is exchanged: all weights (*all random*), those of the last layer (*head random*), the
class (*other class*), the patient (*other patient*). The first must be near 0, the next two well
below 1: else the maps do not show what this model has learned about this class. Likeness between
patients with one finding is information alone. Brackets hold 95 % intervals."""

SHORTCUT = """\
The study `marker` shows a side marker in a corner and no nodule. One model was trained on images
where that marker came with nodules, the control on images where it came at random. *Peak on
marker* tells whether the map's most relevant cell covers part of the marker; Occlusion's cells
are 80 pixels wide, Grad-CAM's 40. *Fall outside* is how far the score falls when all that lies
outside the region declared for the model is hidden, as a share of the usual distance: that of the
mean scores of known cases with and without a nodule."""

PEAK_WORDS = {True: "yes", False: "no", None: "-"}

REASONS = {
    "model_not_lent": "no weights of it could be exchanged here",
    "no_calibration_set": "its package has no known cases",
    "pending": "this is still being measured",
}
"""Why a method has no certificate, by code."""


@dataclass(frozen=True, slots=True)
class Explained:
    """One finished job of the demo."""

    study: str
    model: str
    job: dict[str, Any]
    drawn: frozenset[str]
    """The findings that the phantom really has."""

    folder: str
    """Where its files lie, below the output."""

    hits: tuple[bool | None, ...]
    """For each result, whether the map's peak lies in the known lesion."""

    marks: tuple[bool | None, ...]
    """For each result, whether the map's most relevant cell covers part of the planted marker."""

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
            each.model,
            said["label"],
            f"{said['probability']:.3f}",
            f"{said['threshold']:.3f}",
            "yes" if said["above_threshold"] else "no",
            "yes" if said["key"] in each.drawn else "no",
        )
        for each in all_explained
        for said in each.job["predictions"]
    ]
    head = ("study", "model", "finding", "probability", "threshold", "above", "lesion drawn")
    return table(head, rows)


def maps(all_explained: Iterable[Explained]) -> str:
    """Tabulate every map: its target, its grade, its peak against the lesion, its flags."""
    rows = [
        (
            each.study,
            each.model,
            result["method"],
            (result["target"] or {}).get("label", "-"),
            _grade(result),
            _figure(result, "probe_bank", "p"),
            _compared(each.job, result).outcome,
            PEAK_WORDS[hit],
            ", ".join(_flags(result)) or "-",
        )
        for each in all_explained
        for result, hit in zip(each.job["results"], each.hits, strict=True)
    ]
    head = ("study", "model", "method", "target", "grade", "p", "parity", "peak in lesion", "flags")
    return table(head, rows)


def shortcut(all_explained: Iterable[Explained]) -> str:
    """Tabulate what the models of the planted shortcut look at."""
    rows = [
        (
            each.model,
            result["method"],
            f"{result['target']['probability']:.3f}",
            "yes" if result["target"]["above_threshold"] else "no",
            PEAK_WORDS[mark],
            _figure(result, "expected_region", "share"),
            "yes" if "depends_outside_expected_region" in result["trust"]["flags"] else "no",
        )
        for each in all_explained
        for result, mark in zip(each.job["results"], each.marks, strict=True)
        if mark is not None
    ]
    head = ("model", "method", "nodule", "reported", "peak on marker", "fall outside", "flagged")
    return table(head, rows)


def beliefs(all_explained: Iterable[Explained]) -> str:
    """Say of every map, in the words of its report, how far it may be believed and why."""
    return "\n".join(
        line
        for each in all_explained
        for result in each.job["results"]
        for line in _belief(each, result)
    )


def _belief(explained: Explained, result: dict[str, Any]) -> Iterable[str]:
    """Yield a heading and a list for one map, or why there is none."""
    target = (result["target"] or {}).get("label", "nothing above its threshold")
    yield f"### {explained.folder}: {result['method']}, {target}"
    yield ""
    if result["trust"] is None:
        yield f"- No map. {(result['reason'] or {}).get('detail', '')}"
    else:
        checks = [Check.model_validate(each) for each in result["checks"]]
        yield f"- {explained.model}; files: {_files(result)}"
        yield f"- {_decided(result, checks)}"
        yield f"- {_parity(_compared(explained.job, result))}"
        yield from (f"- {sentence}" for sentence in result["trust"]["statements"])
        figures = (fall_outside(checks), same_as_mean(checks), _share(result["trust"]))
        yield from (f"- {each}" for each in figures if each)
        yield f"- {_certificate(result['trust']['certificate'])}"
        yield from (
            f"- *{each.name}*: {each.meaning}"
            for each in checks
            if each.outcome != "not_applicable"
            and each.meaning not in result["trust"]["statements"]
        )
    yield ""


def _decided(result: dict[str, Any], checks: Sequence[Check]) -> str:
    """Say the grade, what decided it where the map's own evidence did not, and its figures."""
    because, figures = TrustReport.model_validate(result["trust"]).because, probed(checks)
    said = f"**{_grade(result)}**"
    if because is not None:
        said, figures = f"{said} {because}", figures and f"this image alone: {figures}"
    return f"{said} ({figures})" if figures else said


def _compared(job: dict[str, Any], result: dict[str, Any]) -> MapParity:
    """Return how the issuing system compares: on what a map is about, without one on the whole."""
    parity, target = MapParity.model_validate(job["parity"]), result["target"]
    return parity if target is None else parity.about(ResolvedTarget.model_validate(target).about)


def _parity(parity: MapParity) -> str:
    """Say whether the issuing system said the same, with what both said, and where else not."""
    figures = (pair.said for pair in parity.pairs)
    return " ".join([PARITY_WORDS[parity.outcome], *figures, *parity.said_elsewhere])


def _files(result: dict[str, Any]) -> str:
    """Name the files of one map."""
    return ", ".join(f"`{each['name']}`" for each in result["artifacts"]) or "none"


def _share(trust: dict[str, Any]) -> str | None:
    """Say how many of the method's maps were supported on known cases."""
    known = trust["calibration"]
    if known is None:
        return None
    return f"Of {known['maps']} maps of known cases {known['supported']:.0%} were supported."


def _certificate(certificate: dict[str, Any] | None) -> str:
    """Say what was measured of the method on this model."""
    if certificate is None or not certificate["similarities"]:
        why = str((certificate or {}).get("reason") or (certificate or {}).get("outcome"))
        return f"Method on this model: not certified ({REASONS.get(why, why.replace('_', ' '))})."
    figures = ", ".join(
        f"{name.replace('_', ' ')} {each['value']:+.2f} [{each['low']:+.2f}, {each['high']:+.2f}]"
        for name, each in certificate["similarities"].items()
    )
    cases = f"{certificate['cases']} {'synthetic ' if certificate['synthetic'] else ''}cases"
    cases += f", {certificate['seeds']} shuffles of the weights each"
    cases += ", on the network that stands in for the file" if certificate["surrogate"] else ""
    outcome = certificate["outcome"].replace("_", " ")
    return f"Method on this model: {outcome}. Likeness of maps on {cases}: {figures}."


def _grade(result: dict[str, Any]) -> str:
    """Return the grade, or how the result ended where there is no map."""
    trust = result["trust"]
    return str(result["status"] if trust is None else trust["grade"].replace("_", " "))


def _flags(result: dict[str, Any]) -> list[str]:
    """Return what a reader should know beside the grade, in short."""
    trust = result["trust"]
    return [] if trust is None else [each.replace("_", " ") for each in trust["flags"]]


def _figure(result: dict[str, Any], check: str, name: str) -> str:
    """Return a figure of a check."""
    values: dict[str, Any] = next(
        (each["values"] for each in result["checks"] if each["name"] == check), {}
    )
    return f"{values[name]:.3f}" if name in values else "-"


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
            GUIDE,
            "",
            maps(all_explained),
            "",
            "## The planted shortcut",
            "",
            SHORTCUT,
            "",
            shortcut(all_explained),
            "",
            "## Each map in words",
            "",
            beliefs(all_explained),
            "## Seconds by stage",
            "",
            timings(all_explained),
            "",
        ]
    )
