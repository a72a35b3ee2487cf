"""The tables of results in the conformance statement, out of what the tests found.

``make conformance`` and ``make fuzz`` leave their findings as JUnit XML, of all files and all
damaged objects; ``python -m tests.conformance.statement FILE...`` writes the tables of the
findings that the files hold, and leaves the others as they are.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

STATEMENT = Path("docs/dicom-conformance.md")
END = "<!-- end -->"
COLUMNS = (
    *("object", "made", "not applicable", "errors", "lacking", "STOW-RS", "C-STORE"),
    *("DCMTK reads", "DCMTK shows", "Orthanc renders"),
)


def found(files: Sequence[Path]) -> Iterator[tuple[str, Any]]:
    """Yield name and value of what tests recorded."""
    for file in files:
        for each in ET.parse(file).iter("property"):  # noqa: S314 - written by our own tests
            yield each.get("name", ""), each.get("value", "")


def results(findings: Sequence[tuple[str, Any]], what: str) -> list[str]:
    """Return the table of the verdicts on objects of `what`, ``images`` or ``series``."""
    verdicts = [each for name, value in findings if name == what for each in json.loads(value)]
    omitted = Counter(
        f"`{each}`"
        for name, value in findings
        if name == f"{what}_omitted"
        for each in json.loads(value)
    )
    kinds = sorted({each["kind"] for each in verdicts})
    head = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    rows = (_row(each, verdicts, omitted[each]) for each in kinds)
    return [_asked(findings, what), "", *head, *rows]


def _asked(findings: Sequence[tuple[str, Any]], what: str) -> str:
    """Return how many sources were asked for objects, and why some gave none."""
    judged = sum(name == what for name, _ in findings)
    refused = Counter(value for name, value in findings if name == f"{what}_refused")
    told = ", ".join(f"{count} by `{code}`" for code, count in sorted(refused.items()))
    return f"Objects of {judged} {what} were judged. Refused: {told or 'none'}."


def _row(kind: str, verdicts: Sequence[Mapping[str, Any]], omitted: int) -> str:
    mine = [each for each in verdicts if each["kind"] == kind]
    cells = [kind, len(mine), omitted, *(sum(len(each[x]) for each in mine) for x in LISTS)]
    for question in QUESTIONS:
        asked = [each[question] for each in mine if each[question] is not None]
        cells.append(f"{sum(asked)} of {len(asked)}" if asked else "cannot")
    return f"| {' | '.join(map(str, cells))} |"


LISTS = ("errors", "lacking")
QUESTIONS = ("stow", "c_store", "dumped", "shown", "rendered")


def mutations(findings: Sequence[tuple[str, Any]], name: str) -> list[str]:
    """Return the table of what became of damaged objects, in gateway and decoder."""
    ends: Counter[tuple[str, str]] = Counter()
    for each, value in findings:
        if each == name:
            ends.update({(intake, decoder): n for intake, decoder, n in json.loads(value)})
    taken, read = Counter[str](), Counter[str]()
    for (intake, decoder), number in ends.items():
        taken[intake] += number
        read[decoder] += number
    codes = sorted({*taken, *read}, key=lambda code: (-taken[code], code))
    rows = (f"| {_outcome(code)} | {taken[code]} | {read[code]} |" for code in codes)
    total = f"| all | {taken.total()} | {read.total()} |"
    return ["| outcome | in the gateway | in the decoder |", "|---|---|---|", *rows, total]


def _outcome(code: str) -> str:
    return code if code in {"taken", "decoded"} else f"`{code}`"


TABLES = {"images": results, "series": results, "mutations": mutations}


def main(files: Sequence[Path]) -> None:
    """Write each table of which the files hold findings."""
    findings = list(found(files))
    text = STATEMENT.read_text()
    for name, table in TABLES.items():
        if any(each == name for each, _ in findings):
            lines = "\n".join([f"<!-- {name} -->", *table(findings, name), END])
            text = re.sub(
                rf"<!-- {name} -->.*?{END}", lambda _, new=lines: new, text, flags=re.DOTALL
            )
    STATEMENT.write_text(text)


if __name__ == "__main__":
    main([Path(each) for each in sys.argv[1:]])
