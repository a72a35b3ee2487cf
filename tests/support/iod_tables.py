"""What the standard's tables want in an object, read out of the data that highdicom carries.

Only what is wanted without a condition is looked at: attributes of type 1 and
2 in mandatory modules, at any depth of sequences that are there. A functional
group is a choice of its own, and so is a content item's kind.
"""

import json
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from pydicom.dataset import Dataset

GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


@cache
def _table(name: str) -> Any:
    return json.loads((files("highdicom") / "_standard" / f"{name}.json").read_text())


def missing(ds: Dataset) -> list[str]:
    """Return the attributes that an object lacks, or that are empty and must not be."""
    modules = _table("iod_module_map")[_table("sop_class_iod_map")[ds.SOPClassUID]]
    wanted = (
        row
        for module in modules
        if module["usage"] == "M" and module["key"] != "sr-document-content"
        for row in _table("module_attribute_map")[module["key"]]
        if row["type"] in ("1", "2") and row["path"][-1:] not in ([each] for each in GROUPS)
    )
    return sorted({each for row in wanted for each in _lacking(ds, row)})


def modules(sop_class_uid: str) -> dict[str, str]:
    """Return module and usage of each attribute at the top of a kind of object, in order."""
    homes: dict[str, str] = {}
    for module in _table("iod_module_map")[_table("sop_class_iod_map")[sop_class_uid]]:
        for row in _table("module_attribute_map")[module["key"]]:
            if not row["path"]:
                homes.setdefault(row["keyword"], f"{_title(module['key'])} ({module['usage']})")
    return homes


def _title(key: str) -> str:
    capitals = {"icc", "lut", "sc", "sop", "sr", "voi"}
    words = (each.upper() if each in capitals else each.title() for each in key.split("-"))
    return " ".join(words)


def _lacking(ds: Dataset, row: dict[str, Any]) -> Iterator[str]:
    keyword = row["keyword"]
    for item in _items(ds, row["path"]):
        if keyword not in item or (row["type"] == "1" and _empty(item[keyword].value)):
            yield "/".join((*row["path"], keyword))


def _items(ds: Dataset, path: Sequence[str]) -> Iterator[Dataset]:
    """Yield the items at the end of a path of sequences; none where one lacks."""
    if not path:
        yield ds
        return
    for item in ds.get(path[0]) or ():
        yield from _items(item, path[1:])


def _empty(value: object) -> bool:
    return value is None or value == "" or (hasattr(value, "__len__") and len(value) == 0)
