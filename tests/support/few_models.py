"""``whylight`` as if few models came with it: ``few_models NAME,NAME WORD...``.

Each bundled model takes a worker a second to probe, and most tests ask for one of them.
"""

import sys

from service.command import main, packages


def only(names: str) -> None:
    """Bundle the models named, and no others."""
    chosen = [packages.BUNDLED / name for name in filter(None, names.split(","))]
    assert all(each.is_dir() for each in chosen), names
    packages.bundled = lambda: iter(chosen)


if __name__ == "__main__":
    only(sys.argv[1])
    sys.exit(main.main(sys.argv[2:]))
