"""The command `whylight`: what an operator does at a terminal."""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from service.command.failure import CommandFailure
from service.errors.base import WhylightError

COMMANDS = {
    "up": "start Redis, gateway and worker on this machine; ctrl-C drains",
    "demo": "explain the bundled studies with the bundled model, into demo-output/",
    "keys": "create, list and revoke API keys",
    "models": "add, list and remove models; convert and import foreign ones",
    "reproduce": "compute the maps of a fetched explanation again, and compare",
    "check": "look for what is wrong, and say how to mend it",
}
"""Each is a module of this folder with ``add_arguments(parser)`` and ``run(options) -> int``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser(words[0] if words else "")
    options = parser.parse_args(words)
    try:
        status = int(options.run(options))
        sys.stdout.flush()
    except BrokenPipeError:  # who read is gone, as in `whylight models list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes nowhere
    except CommandFailure as failure:
        _tell(failure.what, failure.mend)
    except WhylightError as error:
        _tell(f"{error.title}.", "\n".join([error.detail, *defects(error.facts)]))
    else:
        return status
    return 1


def _parser(chosen: str) -> ArgumentParser:
    """Return the parser; only the chosen command's module is loaded."""
    parser = ArgumentParser(prog="whylight", description=__doc__)
    commands = parser.add_subparsers(metavar="command", required=True)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name == chosen:
            module = import_module(f"service.command.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


def defects(facts: Mapping[str, Any]) -> list[str]:
    """Return the defects that a failure lists field by field, a line each."""
    found = facts.get("errors") or ()
    return [f"  {each['pointer'] or '/'}: {each['message']}" for each in found]


def _tell(what: str, mend: str) -> None:
    """Say what is wrong, and below it what to do."""
    print(f"whylight: {what}", file=sys.stderr)
    if mend:
        print(mend, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
