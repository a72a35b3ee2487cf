"""Model packages on their way to a gateway: packed, sent, waited for."""

import json
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.command.client import Client
from service.command.failure import CommandFailure
from service.contents import pack
from service.domain.manifest import Manifest
from service.paths import MANIFEST_NAME

BUNDLED = Path(__file__).resolve().parents[2] / "models"
"""Models that come with the source tree."""

NO_WORKER_FOR = 60.0
"""Seconds for which a worker may be on its way, before it is heard of."""

WIDTH = 100
"""Columns of what is told."""

LOOK_EVERY = 1
"""Seconds for which the gateway is asked to wait for a probe's end."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A package that a gateway took."""

    manifest: Manifest
    probe: Mapping[str, Any] | None
    """Its probe; `None` while a worker serves it already."""

    @property
    def path(self) -> str:
        """The version's resource."""
        return _path(self.manifest)


class Waiting:
    """Tells how a probe goes on, on stderr."""

    def __init__(self, ref: str) -> None:
        self._ref = ref
        self._said = ""
        self._alone_since: float | None = None

    def tell(self, probe: Mapping[str, Any]) -> None:
        """Tell what was not told yet.

        Raises
        ------
        CommandFailure
            No worker that could run it was alive for a minute.
        """
        if probe["state"] == "running":
            self._say(f"A worker loads {self._ref}.", probe["attempt"])
        elif probe["workers"] > probe["starting"]:
            self._say(f"{self._ref} waits for a worker.", probe["attempt"])
        elif probe["starting"]:
            self._say(
                f"A worker is starting and loads what is registered; {self._ref} comes in between.",
                probe["attempt"],
            )
        else:
            self._alone(f"No worker of pool '{probe['pool']}' is alive")
            return
        self._alone_since = None

    def _alone(self, why: str) -> None:
        """Say at once that there is no worker; one that just starts is waited for."""
        self._say(f"{why}. {self._ref} is registered; its probe waits for one.")
        if self._alone_since is None:
            self._alone_since = time.monotonic()
        if time.monotonic() - self._alone_since >= NO_WORKER_FOR:
            raise CommandFailure(
                f"{why}.",
                f"{self._ref} stays registered, and its probe queued. Start a worker;"
                " `whylight models list` then tells what it found.",
            )

    def _say(self, line: str, attempt: int = 0) -> None:
        if attempt > 1:
            line = f"{line} Attempt {attempt}: workers ended before."
        if line != self._said:
            print(line, file=sys.stderr, flush=True)
        self._said = line


def bundled() -> Iterator[Path]:
    """Yield the folders of the models that come with the product."""
    return (each.parent for each in sorted(BUNDLED.glob(f"*/{MANIFEST_NAME}")))


def register(client: Client, folder: Path, tenants: Sequence[str] = ()) -> Registered:
    """Check a package, pack it and send it; one that a worker serves is not probed again.

    Raises
    ------
    InvalidPackage
        The folder is no valid package.
    CommandFailure
        The gateway refused it.
    """
    with tempfile.TemporaryDirectory(prefix="whylight-package-") as scratch:
        archive = Path(scratch) / "package.zip"
        manifest = pack(folder, archive)
        answer = client.json(
            "PUT",
            _path(manifest),
            params={"tenant": [*tenants]} if tenants else {},
            content=archive.read_bytes(),
            headers={"Content-Type": "application/zip"},
        )
    return Registered(manifest, answer["probe"])


def wait_until_probed(
    client: Client,
    registered: Registered,
    tell: Callable[[Mapping[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Follow a package's probe; return the model's catalog entry once it serves.

    Parameters
    ----------
    tell
        Is told of the probe about every second, and may raise to end the waiting.

    Raises
    ------
    CommandFailure
        The probe failed, or was cancelled because the package was withdrawn.
    """
    probe = registered.probe
    while probe is not None and probe["state"] in {"queued", "running"}:
        tell(probe)
        probe = client.json("GET", f"{registered.path}/probe", params={"wait": LOOK_EVERY})
    if probe is not None and probe["state"] != "succeeded":
        raise _unusable(registered.manifest, probe["failure"])
    entry: dict[str, Any] = client.json("GET", registered.path)
    if entry["state"] != "ready":
        raise _unusable(registered.manifest, entry["failure"])
    return entry


def refusals(entry: Mapping[str, Any]) -> list[str]:
    """Return what a model that is ready cannot do, and why: self-tests, layers, then methods."""
    lines = [f"  {field}: {why}" for field, why in entry["unnoticed"].items()]
    lines += [f"  layer {name} is refused: {why}" for name, why in entry["refused_layers"].items()]
    alike: dict[str, list[str]] = {}
    for method, why in entry["refused"].items():
        alike.setdefault(why, []).append(method)
    every = len(entry["methods"]) + len(entry["refused"])
    if entry["refused"]:
        lines.append(f"  {len(entry['refused'])} of {every} methods are refused:")
    lines += [f"    {', '.join(names)}: {why}" for why, names in alike.items()]
    return [wrapped(each, "      ") for each in lines]


def wrapped(text: str, indent: str) -> str:
    """Return a text in lines of a terminal's width, the second and later ones indented."""
    return textwrap.fill(
        text,
        WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def told(failure: Mapping[str, Any]) -> str:
    """Return what a worker found wrong, with its particulars, a line each."""
    facts = (f"  {name}: {json.dumps(fact)}" for name, fact in failure["facts"].items())
    return "\n".join([failure["detail"], *facts])


def _path(manifest: Manifest) -> str:
    return f"/v1/models/{manifest.id}/versions/{manifest.version}"


def _unusable(manifest: Manifest, failure: Mapping[str, Any] | None) -> CommandFailure:
    withdrawn = "Its probe was cancelled: the package was withdrawn. Add it again."
    return CommandFailure(
        f"{manifest.ref} cannot be used.", told(failure) if failure else withdrawn
    )
