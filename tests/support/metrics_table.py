"""The table of metrics for the documentation: ``python -m tests.support.metrics_table``."""

from service.telemetry import REGISTRY


def table() -> str:
    """Return every metric of ours as a Markdown table."""
    head = ["| metric | what it tells |", "|---|---|"]
    return "\n".join([*head, *sorted(_rows())]) + "\n"


def _rows() -> list[str]:
    # counters are exposed with the suffix that their family's name lacks
    suffix = {"counter": "_total"}
    return [
        f"| `{family.name}{suffix.get(family.type, '')}` | {family.documentation} |"
        for family in REGISTRY.collect()
        if family.name.startswith("whylight_")
    ]


if __name__ == "__main__":
    print(table())  # noqa: T201 - this program prints
