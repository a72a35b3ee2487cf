"""Which stack a command speaks to: the environment's, or the one that runs here."""

import os
from argparse import ArgumentParser
from pathlib import Path

from service.command import home
from service.command.environment import API_KEY, GATEWAY_URL, QUEUE_URL, STORE_URL, read_settings
from service.command.failure import CommandFailure
from service.settings import Settings


def add_home(parser: ArgumentParser) -> None:
    """Let the person choose the stack's folder."""
    parser.add_argument(
        "--home",
        type=Path,
        default=home.DEFAULT,
        help=f"folder of the stack that `whylight up` started (default {home.DEFAULT})",
    )


def add_gateway(parser: ArgumentParser) -> None:
    """Let the person choose a gateway and the key for it."""
    parser.add_argument(
        "--url", help=f"address of the gateway (default ${GATEWAY_URL}, else the one here)"
    )
    parser.add_argument(
        "--key-file",
        type=Path,
        help=f"file that holds the API key (default: the variable ${API_KEY}); "
        "a key on the command line could be read by everybody on this machine",
    )


def settings_of(folder: Path) -> Settings:
    """Return the settings of the stack in `folder`; what the environment says comes first.

    Raises
    ------
    CommandFailure
        A ``WHYLIGHT_*`` variable is not valid.
    """
    settings, here = read_settings(), home.Home(folder.expanduser())
    running = here.running()
    queue, store = settings.queue, settings.store
    if QUEUE_URL not in os.environ and running is not None:
        queue = queue.model_copy(update={"url": running.queue_url})
    if STORE_URL not in os.environ and here.store.exists():
        store = store.model_copy(update={"url": here.store.absolute().as_uri()})
    return settings.model_copy(update={"queue": queue, "store": store})


def gateway_of(folder: Path, asked: str | None) -> str:
    """Return the gateway's address: as asked, by the environment, or the one here."""
    named = asked or os.environ.get(GATEWAY_URL)
    if named:
        return named
    running = home.Home(folder.expanduser()).running()
    return f"http://127.0.0.1:{read_settings().http.port}" if running is None else running.url


def key_of(file: Path | None) -> str:
    """Return the API key from a file or the environment.

    Raises
    ------
    CommandFailure
        There is none.
    """
    if file is not None:
        try:
            return file.read_text().strip()
        except OSError:
            raise CommandFailure("The key file cannot be read.") from None
    key = os.environ.get(API_KEY)
    if not key:
        raise CommandFailure(
            "An API key is needed.",
            f"Set {API_KEY}, or name a file with --key-file; `whylight keys create` makes one.",
        )
    return key
