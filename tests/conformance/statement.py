"""The table of results in the conformance statement, made anew of images of the corpus.

Run as ``python -m tests.conformance.statement``, with ``WHYLIGHT_CORPUS`` set;
with a number, every how many-th file is taken.
"""

import io
import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pydicom

from service.dicom.header import read_header
from service.errors import WhylightError
from tests.support import corpus, orthanc
from tests.support.dciodvfy import IODS, complaints, ours
from tests.support.iod_tables import missing
from tests.support.series import DRAWN, FOLDERS, real, series_sheet
from tests.support.sheets import blob, sheet
from workers.formats.base import Sheet
from workers.sheets import write

STATEMENT = Path("docs/dicom-conformance.md")
END = "<!-- end -->"
HEAD = "| format | objects asked for | not applicable | errors | lacking | stored and equal |"


def tried(source: Path, folder: Path, pacs: orthanc.Orthanc) -> Iterator[tuple[str, str, int]]:
    """Yield format, what was counted, and how often, of one image's last frame."""
    frame = read_header(source, max_samples=corpus.LIMIT).number_of_frames
    relevance = blob((14, 14), signed=True)
    asked = sha256(str(source).encode()).hexdigest()  # another question of each image
    drawn = sheet(source, folder / "work", relevance, frame=frame, signed=True, digest=asked)
    yield from counted(drawn, source, folder, pacs)


def tried_series(name: str, folder: Path, pacs: orthanc.Orthanc) -> Iterator[tuple[str, str, int]]:
    """Yield the same of a series, drawn by us or of the corpus."""
    files = DRAWN[name](folder) if name in DRAWN else real(FOLDERS[name])
    for objects in ("multi_frame", "single_frame"):
        asked = sha256(f"{name}/{objects}".encode()).hexdigest()
        drawn = series_sheet(files, folder / objects, digest=asked, objects=objects)
        yield from counted(drawn, files[0], folder / objects, pacs)


def counted(
    drawn: Sheet, source: Path, folder: Path, pacs: orthanc.Orthanc
) -> Iterator[tuple[str, str, int]]:
    """Yield format, what was counted, and how often, of one map."""
    files, omitted = write(drawn, tuple(IODS), folder)
    for each in omitted:
        yield each.format, "omitted", 1
    for artifact, file in files:
        data = file.read_bytes()
        ds = pydicom.dcmread(io.BytesIO(data))
        stored = pacs.store(data).status_code == 200
        equal = stored and pydicom.dcmread(io.BytesIO(pacs.file(ds.SOPInstanceUID))) == ds
        yield artifact.format, "made", 1
        yield artifact.format, "errors", len(ours(complaints(artifact.format, file), source))
        yield artifact.format, "lacking", len(missing(ds))
        yield artifact.format, "equal", int(equal)


def main() -> None:
    """Try every image and write the table."""
    if not corpus.FILES:
        sys.exit(corpus.REASON)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    with orthanc.running() as pacs:
        for source in corpus.FILES[:: int(sys.argv[1]) if len(sys.argv) > 1 else 1]:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    for format_, what, number in tried(source, Path(folder), pacs):
                        counts[format_][what] += number
                except WhylightError:
                    continue  # no image, or one that is refused by name
        series: dict[str, Counter[str]] = defaultdict(Counter)
        for name in (*DRAWN, *FOLDERS):
            with tempfile.TemporaryDirectory() as folder:
                for format_, what, number in tried_series(name, Path(folder), pacs):
                    series[format_][what] += number
    text = STATEMENT.read_text()
    for mark, found in (("results", counts), ("series", series)):
        table = "\n".join(
            [f"<!-- {mark} -->", HEAD, "|---|---|---|---|---|---|", *rows(found), END]
        )
        text = re.sub(rf"<!-- {mark} -->.*?{END}", lambda _, new=table: new, text, flags=re.DOTALL)
    STATEMENT.write_text(text)


def rows(counts: dict[str, Counter[str]]) -> list[str]:
    """Return the lines of a table."""
    return [
        f"| `{each}` | {n['made'] + n['omitted']} | {n['omitted']} | {n['errors']}"
        f" | {n['lacking']} | {n['equal']} of {n['made']} |"
        for each, n in sorted(counts.items())
    ]


if __name__ == "__main__":
    main()
