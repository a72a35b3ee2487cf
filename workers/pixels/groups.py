"""Attributes that enhanced objects keep in functional groups."""

from collections.abc import Iterator

from pydicom.dataset import Dataset


def holders(dataset: Dataset, group: str) -> Iterator[Dataset]:
    """Yield the places where an attribute of a single-frame image may stand.

    First the data set itself; then, for enhanced objects, the item of `group`
    (such as ``PixelValueTransformationSequence``) of the first frame and of
    all frames together.
    """
    yield dataset
    for sequence in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for item in (dataset.get(sequence) or [])[:1]:
            yield from (item.get(group) or [])[:1]
