"""``python -m tests.support.manifest_schema`` writes the manifest's schema into the docs."""

import json
from pathlib import Path

from service.manifests import manifest_schema

PATH = Path(__file__).parents[2] / "docs" / "models" / "model.schema.json"

if __name__ == "__main__":
    PATH.write_text(json.dumps(manifest_schema(), indent=1, sort_keys=True) + "\n")
