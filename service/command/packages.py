"""Model packages on their way to a gateway: packed, sent, waited for."""

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from service.command.client import Client
from service.command.failure import CommandFailure
from service.contents import pack
from service.domain.manifest import Manifest
from service.paths import MANIFEST_NAME

BUNDLED = Path(__file__).resolve().parents[2] / "models"
"""Models that come with the source tree."""

PROBED_WITHIN = 120.0
PAUSE = 0.25


def bundled() -> Iterator[Path]:
    """Yield the folders of the models that come with the product."""
    return (each.parent for each in sorted(BUNDLED.glob(f"*/{MANIFEST_NAME}")))


def register(client: Client, folder: Path, tenants: Sequence[str] = ()) -> Manifest:
    """Check a package, pack it and send it; sending the same again changes nothing.

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
        client.ask(
            "PUT",
            f"/v1/models/{manifest.id}/versions/{manifest.version}",
            params={"tenant": [*tenants]} if tenants else {},
            content=archive.read_bytes(),
            headers={"Content-Type": "application/zip"},
        )
    return manifest


def wait_until_probed(
    client: Client, manifest: Manifest, alive: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Return the model's catalog entry once a worker has loaded and probed it.

    Raises
    ------
    CommandFailure
        The worker refused it, or none has probed it in time.
    """
    deadline = time.monotonic() + PROBED_WITHIN
    while time.monotonic() < deadline:
        alive()
        entry = _entry(client, manifest)
        if entry is not None:
            if entry["state"] == "ready":
                return entry
            raise CommandFailure(
                f"{manifest.ref} cannot be used.",
                told(entry["failure"]) if entry.get("failure") else "",
            )
        time.sleep(PAUSE)
    raise CommandFailure(
        f"No worker has probed {manifest.ref} in {PROBED_WITHIN:.0f} seconds.",
        "A large one takes longer: `whylight models list` tells when it is ready, and"
        " `whylight check` whether a worker is alive.",
    )


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
    return lines + [f"    {', '.join(names)}: {why}" for why, names in alike.items()]


def told(failure: Mapping[str, Any]) -> str:
    """Return what a worker found wrong, with its particulars, a line each."""
    facts = (f"  {name}: {json.dumps(fact)}" for name, fact in failure["facts"].items())
    return "\n".join([failure["detail"], *facts])


def _entry(client: Client, manifest: Manifest) -> dict[str, Any] | None:
    """Return the entry of this version, or `None` while no worker knows it."""
    models: list[dict[str, Any]] = client.json("GET", "/v1/models")["models"]
    fitting = (m for m in models if (m["name"], m["version"]) == (manifest.id, manifest.version))
    return next(fitting, None)
