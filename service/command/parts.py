"""The steps and networks that a manifest can name, asked of the workers' code."""

import json
import subprocess
import sys
from typing import Any

from service.domain.manifest import Manifest
from service.manifests import manifest_schema

SECONDS = 120.0


def defects(manifest: Manifest) -> tuple[list[dict[str, str]], bool]:
    """Return what is wrong with the parts that a manifest names, and whether networks count."""
    answer = _asked(manifest.model_dump(mode="json"))
    return answer.get("defects", []), answer.get("networks", False)


def whole_schema() -> dict[str, Any]:
    """Return the manifest's schema with the names and parameters of every step and network."""
    schema: dict[str, Any] = manifest_schema()
    for kind, parts in _asked(None).items():
        if kind in schema["$defs"]:
            schema["$defs"][kind] = {"oneOf": [_choice(*each) for each in parts.items()]}
    return schema


def _choice(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of the choice of one part."""
    return {
        "type": "object",
        "properties": {
            "name": {"const": name},
            "parameters": {k: v for k, v in parameters.items() if k != "$defs"},
        },
        "required": ["name", "parameters"] if parameters.get("required") else ["name"],
        "additionalProperties": False,
    }


def _asked(manifest: dict[str, Any] | None) -> dict[str, Any]:
    """Return the answer of a process that knows the parts; empty where it cannot run."""
    process = subprocess.run(
        [sys.executable, "-m", "workers.parts_main"],
        input=json.dumps(manifest).encode(),
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    return json.loads(process.stdout) if process.returncode == 0 else {}
