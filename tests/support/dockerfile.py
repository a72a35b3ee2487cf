"""A reader of Dockerfiles, as strict as the tests need: no directive escapes it."""

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

KNOWN = frozenset(
    [
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "RUN",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ]
)


@dataclass
class Stage:
    """One stage: its base and its instructions in order."""

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, word: str) -> list[str]:
        """Return the arguments of every instruction of one kind."""
        return [arguments for each, arguments in self.instructions if each == word]


def read(path: Path) -> dict[str, Stage]:
    """Return the stages of a Dockerfile by name; an unknown instruction is an error."""
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for line in _logical_lines(path.read_text()):
        word, _, arguments = line.partition(" ")
        if word not in KNOWN:
            raise ValueError(line)
        if word == "FROM":
            base, _, name = re.split(r"\s+", arguments)
            stage = stages[name] = Stage(name, base)
        elif stage is not None:
            stage.instructions.append((word, arguments.strip()))
        elif word != "ARG":
            raise ValueError(line)
    return stages


def exec_form(arguments: str) -> list[str]:
    """Return the words of a command in its JSON form, which needs no shell."""
    words = json.loads(arguments)
    assert all(isinstance(each, str) for each in words)
    return list(words)


def environment(stage: Stage) -> dict[str, str]:
    """Return what a stage's ENV instructions set."""
    pairs = (each.partition("=") for line in stage.all("ENV") for each in shlex.split(line))
    return {name: value for name, _, value in pairs}


def _logical_lines(text: str) -> list[str]:
    """Join continued lines and leave out comments, as the builder does."""
    kept = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(kept).replace("\\\n", " ")
    return [re.sub(r"\s+", " ", line).strip() for line in joined.splitlines() if line.strip()]
