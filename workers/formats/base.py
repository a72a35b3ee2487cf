"""What every artifact format is: one map, written as one file.

A format is stateless; its class variables are what the catalog publishes. It
gets a `Sheet`: the record of one map, its values, and the picture, which is
drawn once for all formats that want it. A format that a map does not suit
raises `FormatNotApplicable`; the other files are delivered all the same.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from service.registry import Registry
from workers.formats.sheet import Sheet


class Format(ABC):
    """One way to write a map; class variables are what the catalog publishes."""

    name: ClassVar[str]
    title: ClassVar[str]
    media_type: ClassVar[str]
    extension: ClassVar[str]
    last: ClassVar[bool] = False
    """Whether it is written after the others, because it refers to them."""

    @abstractmethod
    def write(self, sheet: Sheet, to: Path) -> None:
        """Write `sheet` as the file `to`.

        Raises
        ------
        FormatNotApplicable
            The map or its source image cannot be written in this format.
        """

    def write_all(self, sheet: Sheet, to: Path) -> tuple[Path, ...]:
        """Write `sheet`, as one file or as several beside `to`; return them. As `write`."""
        self.write(sheet, to)
        return (to,)


FORMATS: Registry[Format] = Registry("workers.formats", "whylight.formats")
"""Formats by name."""
