"""How a map that was computed again differs from the original one."""

import hashlib
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.command.client import Client
from service.command.failure import CommandFailure
from service.domain.artifact import Artifact
from service.domain.explanation import Explanation, Result

TOLERANCE: Final = 2e-6
"""Share of a map's range by which one device's results may differ between batches."""

READABLE: Final = ("npy", "json")
"""Formats that hold a map's values, the exact one first."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One map, then and now."""

    method: str
    target: str
    largest: float | None
    """Largest absolute difference; `None` where the original values are lost."""

    relative: float | None
    """The same as a share of the original map's range."""

    same_digest: bool | None
    """Whether the maps are equal to the byte; `None` where a digest was not kept."""

    @property
    def within(self) -> bool:
        """Whether the map was reproduced; equal ones are, whatever is lost."""
        return bool(self.same_digest) or (self.relative is not None and self.relative <= TOLERANCE)


class Values:
    """Where the values of an explanation's maps are to be had.

    Parameters
    ----------
    client
        A gateway that may still have the artifacts.
    explanation
        Whose maps.
    folder
        Where artifacts may lie as files; `None` to ask the gateway alone.
    """

    def __init__(self, client: Client, explanation: Explanation, folder: Path | None) -> None:
        self._client = client
        self._base = f"/v1/explanations/{explanation.id}/artifacts"
        self._folder = folder

    def of(self, result: Result) -> NDArray[np.float32] | None:
        """Return a map's values, shape ``(C, rows, columns)``; `None` if they are lost.

        Raises
        ------
        CommandFailure
            A file in the folder is not the one that was computed.
        """
        files = [each for each in result.artifacts if each.format in READABLE]
        for each in sorted(files, key=lambda file: READABLE.index(file.format)):
            data = self._bytes(each)
            values = None if data is None else _values(each, data)
            if values is not None:
                return values
        return None

    def _bytes(self, artifact: Artifact) -> bytes | None:
        data = self._beside(artifact)
        if data is None:
            data = self._client.find(f"{self._base}/{artifact.name}")
        if data is not None and hashlib.sha256(data).hexdigest() != artifact.sha256:
            raise CommandFailure(
                f"{artifact.name} is not the file that was computed for this explanation.",
                "Move it away, or fetch it again.",
            )
        return data

    def _beside(self, artifact: Artifact) -> bytes | None:
        """Return the file that lies beside the document, if one does."""
        if self._folder is None:
            return None
        try:
            return (self._folder / Path(artifact.name).name).read_bytes()
        except FileNotFoundError:
            return None


def difference(
    original: Result,
    again: Result,
    values: NDArray[np.float32] | None,
    values_again: NDArray[np.float32] | None,
) -> Difference:
    """Compare two maps of one method and target."""
    largest = relative = None
    if values is not None and values_again is not None:
        largest, relative = distance(values, values_again)
    digests = (_map_digest(original), _map_digest(again))
    return Difference(
        method=original.method,
        target=original.target.key if original.target else "-",
        largest=largest,
        relative=relative,
        same_digest=None if None in digests else digests[0] == digests[1],
    )


def distance(original: NDArray[np.float32], again: NDArray[np.float32]) -> tuple[float, float]:
    """Return the largest absolute difference, and its share of the original's range.

    Both are infinite for maps of different shapes, and where one map is finite
    and the other is not. A constant map has no range: any difference counts.
    """
    if original.shape != again.shape:
        return math.inf, math.inf
    then, now = original.astype(np.float64), again.astype(np.float64)
    same = (then == now) | (np.isnan(then) & np.isnan(now))
    gaps = np.abs(then - now)[~same]
    if not gaps.size:
        return 0.0, 0.0
    largest = float(gaps.max()) if np.isfinite(gaps).all() else math.inf
    finite = then[np.isfinite(then)]
    extent = float(np.ptp(finite)) if finite.size else 0.0
    return largest, largest / extent if extent else math.inf


def _values(artifact: Artifact, data: bytes) -> NDArray[np.float32] | None:
    """Return the values in a file; `None` when they were too many to stand in it."""
    if artifact.format == "npy":
        array: NDArray[np.float32] = np.load(io.BytesIO(data), allow_pickle=False)
        return array
    values = json.loads(data)["map"]["values"]
    return None if values is None else np.array(values, np.float32)


def _map_digest(result: Result) -> str | None:
    """Return the digest of the raw map, which its binding holds."""
    trust = result.trust
    return None if trust is None or trust.binding is None else trust.binding.map
