"""``python -m workers.parts_main``: the parts that a manifest can name, asked by commands.

Commands are of the core, which imports no worker: they ask in a process of its own.
Networks need torch; where it is not installed, steps alone are told of.
"""

import json
import sys
from importlib.util import find_spec
from typing import Any

from service.domain.manifest import Manifest
from service.errors.models import InvalidPackage
from service.registry import Registry
from workers.choices import chosen
from workers.steps.base import STEPS


def main(manifest: dict[str, Any] | None) -> dict[str, Any]:
    """Return the schemas of all parts, or what a manifest names wrongly.

    Returns
    -------
    dict
        By kind of part (``StepChoice``, ``Architecture``) the JSON schemas of its
        parameters by name; of a manifest, its ``defects`` as ``{pointer, message}``.
        ``networks`` tells whether networks are among what was looked at.
    """
    networks = _networks()
    answer: dict[str, Any] = {"networks": networks is not None}
    if manifest is None:
        families = {"StepChoice": STEPS} | ({} if networks is None else {"Architecture": networks})
        return answer | {kind: _schemas(parts) for kind, parts in families.items()}
    return answer | {"defects": _defects(Manifest.model_validate(manifest), networks)}


def _networks() -> Registry[Any] | None:
    if find_spec("torch") is None:
        return None
    from workers.architectures.base import ARCHITECTURES  # noqa: PLC0415 - it loads torch

    return ARCHITECTURES


def _schemas(parts: Registry[Any]) -> dict[str, Any]:
    return {name: part.model_json_schema() for name, part in parts.items()}


def _defects(manifest: Manifest, networks: Registry[Any] | None) -> list[Any]:
    """Return what is wrong with the steps and the network that a manifest names."""
    choices: list[tuple[Registry[Any], str, Any, str]] = [
        (STEPS, "step", each, f"/inputs/0/steps/{number}")
        for number, each in enumerate(manifest.image.steps)
    ]
    if networks is not None and manifest.architecture is not None:
        choices.append((networks, "network", manifest.architecture, "/architecture"))
    found: list[Any] = []
    for parts, what, choice, pointer in choices:
        try:
            part = chosen(parts, what, choice.name, choice.parameters, pointer)
        except InvalidPackage as error:
            found += error.facts["errors"]  # type: ignore[arg-type]
        else:
            found += _tokens(part, manifest) if parts is networks else []
    return found


def _tokens(network: Any, manifest: Manifest) -> list[dict[str, str]]:
    """Return what `tokens` says otherwise than the network that the manifest names."""
    own = network.tokens()
    try:
        own and own.demand_agreement(manifest)
    except InvalidPackage as error:
        return [{"pointer": "/tokens", "message": error.detail}]
    return []


if __name__ == "__main__":
    json.dump(main(json.load(sys.stdin)), sys.stdout)
