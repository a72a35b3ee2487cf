"""The software bill of materials: ``python -m deploy.sbom sbom.json``.

CycloneDX 1.6 of what gateway, worker and embedded Redis are made of: what the
interpreter that runs this program has installed, and of that what they need.
Nothing is asked of an index, so it says what is here and not what could be.

Hashes are those of the files that pip installed, out of the reports that it
left in the environment's folder ``reports``; without a report there is none.
Parts that a wheel's maker compiled in are listed where its own bill tells them.
"""

import json
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import Distribution, PackageMetadata, distributions
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PRODUCT: Final = "whylight"
EXTRAS: Final = frozenset({"worker", "embedded"})
SCHEMA: Final = "http://cyclonedx.org/schema/bom-1.6.schema.json"
TOLD: Final = ("type", "name", "version", "purl")
"""Fields of a compiled-in part that are taken over; the others vary with the bill's version."""

Installed = Mapping[str, Distribution]
Needs = dict[str, set[str]]
Hashes = Mapping[tuple[str, str], str]


class MissingDependencyError(Exception):
    """Something that the product needs is not installed: the bill would be false."""


def bill(installed: Installed, hashes: Hashes, now: datetime) -> dict[str, Any]:
    """Return the bill of the product as a CycloneDX document.

    Parameters
    ----------
    installed
        Distributions by canonical name.
    hashes
        SHA-256 of the installed archive, by canonical name and version.

    Raises
    ------
    MissingDependencyError
        A requirement of the product is not installed.
    """
    needs = closure(installed, PRODUCT, EXTRAS)
    refs = {name: _purl(installed[name]) for name in needs}
    python = {
        "type": "platform",
        "bom-ref": "python",
        "name": platform.python_implementation(),
        "version": platform.python_version(),
    }
    parts = [_component(installed[name], hashes) for name in sorted(needs) if name != PRODUCT]
    return {
        "$schema": SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": now.isoformat(timespec="seconds"),
            "component": _component(installed[PRODUCT], hashes) | {"type": "application"},
        },
        "components": [python, *parts],
        "dependencies": [
            {"ref": refs[name], "dependsOn": sorted(refs[each] for each in needs[name])}
            for name in sorted(needs)
        ],
    }


def closure(installed: Installed, root: str, extras: Iterable[str]) -> Needs:
    """Return all that `root` with `extras` needs, itself included, and what each needs of them.

    Raises
    ------
    MissingDependencyError
        A requirement is not installed.
    """
    needs: Needs = {}
    known: set[tuple[str, str]] = set()
    waiting = [(root, each) for each in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in known:
            continue
        known.add((name, extra))
        if name not in installed:
            raise MissingDependencyError(f"{name} is needed and not installed")
        for requirement in _requirements(installed[name], extra):
            child = canonicalize_name(requirement.name)
            needs.setdefault(name, set()).add(child)
            waiting += [(child, each) for each in ("", *requirement.extras)]
        needs.setdefault(name, set())
    return needs


def _requirements(distribution: Distribution, extra: str) -> Iterator[Requirement]:
    """Iterate over what holds on this machine, without an extra or with one."""
    for line in distribution.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def _component(distribution: Distribution, hashes: Hashes) -> dict[str, Any]:
    """Return one distribution as a component."""
    name, purl = canonicalize_name(distribution.name), _purl(distribution)
    digest = hashes.get((name, distribution.version))
    inner = list(_compiled_in(distribution))
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": distribution.version,
        "licenses": licenses(distribution.metadata),
        "purl": purl,
        **({"hashes": [{"alg": "SHA-256", "content": digest}]} if digest else {}),
        **({"components": inner} if inner else {}),
    }


def licenses(metadata: PackageMetadata) -> list[dict[str, Any]]:
    """Return the license as its makers declare it: an SPDX expression, else their own words."""
    for expression in metadata.get_all("License-Expression") or ():
        return [{"expression": expression}]
    named = [each for each in metadata.get_all("License") or () if "\n" not in each]  # no full text
    classified = [
        each.rpartition(" :: ")[2]
        for each in metadata.get_all("Classifier") or ()
        if each.startswith("License :: ")
    ]
    return [{"license": {"name": each}} for each in named or classified]


def _compiled_in(distribution: Distribution) -> Iterator[dict[str, Any]]:
    """Iterate over the parts that the wheel's own bills list."""
    itself = f"pkg:pypi/{canonicalize_name(distribution.name)}@"
    for file in distribution.files or ():
        if file.parent.name == "sboms" and file.suffix == ".json":
            for part in json.loads(file.read_text()).get("components", ()):
                if not part.get("purl", "").startswith(itself):
                    yield {key: part[key] for key in TOLD if key in part}


def _purl(distribution: Distribution) -> str:
    """Return the package URL."""
    name = canonicalize_name(distribution.name)
    return f"pkg:pypi/{name}@{quote(distribution.version, safe='')}"


def reported(folder: Path) -> Hashes:
    """Return the SHA-256 of every archive that pip's reports in `folder` name."""
    found: dict[tuple[str, str], str] = {}
    for path in sorted(folder.glob("*.json")):
        for item in json.loads(path.read_text())["install"]:
            archive = item["download_info"].get("archive_info", {})
            if digest := archive.get("hashes", {}).get("sha256"):
                name = canonicalize_name(item["metadata"]["name"])
                found[name, item["metadata"]["version"]] = digest
    return found


def here() -> Installed:
    """Return what this interpreter has installed."""
    return {canonicalize_name(each.name): each for each in distributions()}


if __name__ == "__main__":
    document = bill(here(), reported(Path(sys.prefix) / "reports"), datetime.now(UTC))
    Path(sys.argv[1]).write_text(json.dumps(document, indent=2) + "\n")
