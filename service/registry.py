"""Name to part: the members of a family, found in a folder or an entry point.

A part registers itself by decorator when its file is imported; `discover`
imports every file of the family's folder and every outside package that joins
by entry point. A file that cannot be imported is listed as unavailable with
the reason, and stops nothing else.
"""

import importlib
import pkgutil
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """The parts of one family by name.

    Parameters
    ----------
    package
        Import path of the family's folder, such as ``workers.methods``.
    group
        Entry-point group by which outside packages join, such as
        ``whylight.methods``.
    """

    def __init__(self, package: str, group: str) -> None:
        self._package = package
        self._group = group
        self._parts: dict[str, type[T]] = {}
        self._unavailable: dict[str, str] = {}
        self._lock = threading.RLock()
        self._begun = False
        self._discovered = False

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Return a decorator that enters a class under `name`.

        Raises
        ------
        ValueError
            If another class already bears the name.
        """

        def enter(part: type[T]) -> type[T]:
            known = self._parts.get(name)
            if known is not None and known.__qualname__ != part.__qualname__:
                raise ValueError(f"{self._package} already has a part named {name!r}")
            part.name = name  # type: ignore[attr-defined]
            self._parts[name] = part
            return part

        return enter

    def discover(self) -> None:
        """Import every member once; remember which could not be imported.

        Other threads wait meanwhile: to them a part that is still to come would be none.
        """
        if self._discovered:
            return
        with self._lock:
            if self._begun:  # it is done, or a member asks that is imported just now
                return
            self._begun = True
            folder = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(folder.__path__):
                self._import(f"{self._package}.{module.name}", module.name)
            for entry in entry_points(group=self._group):
                self._import(entry.module, entry.name)
            self._discovered = True

    def _import(self, path: str, name: str) -> None:
        try:
            importlib.import_module(path)
        except ModuleNotFoundError as error:
            missing = (error.name or "a module").partition(".")[0]
            self._unavailable[name] = f"It needs {missing}, which is not installed."
        except Exception as error:  # noqa: BLE001 - a broken part must not stop the others
            self._unavailable[name] = type(error).__name__

    def __getitem__(self, name: str) -> type[T]:
        """Return the part named `name`; `KeyError` if there is none."""
        self.discover()
        return self._parts[name]

    def __contains__(self, name: object) -> bool:
        """Tell whether a part bears this name."""
        self.discover()
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names in alphabetical order."""
        self.discover()
        return iter(sorted(self._parts))

    def items(self) -> Iterator[tuple[str, type[T]]]:
        """Iterate over names and parts in alphabetical order."""
        return ((name, self._parts[name]) for name in self)

    @property
    def unavailable(self) -> Mapping[str, str]:
        """Names of members that could not be imported, with the reason."""
        self.discover()
        return MappingProxyType(self._unavailable)
