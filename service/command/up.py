"""``whylight up``: the whole service on one machine, until ctrl-C."""

import math
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from service.command import packages, place, stack
from service.command.client import Client
from service.command.home import Home
from service.command.keys import TENANT, key_ring
from service.command.signals import Interrupted, interruptible
from service.command.stack import Stack
from service.keys import KeyRing, Scope

FIRST_KEY = "first key"
OWN_KEY = "whylight up"
OWN_KEY_FOR = timedelta(days=1)  # large models take their time, and then it is revoked
LOOK_EVERY = 0.5


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's words."""
    place.add_home(parser)
    parser.add_argument(
        "--port", type=int, help="the gateway's port; 0 finds a free one (default 8080)"
    )


def run(options: Namespace) -> int:
    """Start the stack, say where it is, and stay until a signal or a part's end."""
    home = Home.at(options.home)
    try:
        with interruptible(), stack.running(home, port=options.port) as running:
            make_ready(running)
            print("Ctrl-C drains and stops.", flush=True)
            watch(running)
    except Interrupted:
        print("Stopped.")
    return 0


def make_ready(running: Stack) -> None:
    """Wait for every part, register the bundled models, and tell where it all is."""
    print("Starting ...", flush=True)
    plan = running.plan
    with key_ring(plan.settings()) as keys:
        with own_client(running, keys) as client:
            wait_until_ready(running, client)
            register_bundled(running, client)
        first = _first_key(keys)
    print(f"Address        {plan.url}")
    print(f"Documentation  {plan.url}/docs")
    for part, url in plan.metrics.items():
        print(f"Metrics        {url} ({part})")
    if first is None:
        print(f"API keys       whylight keys list --home {plan.home.path}")
    else:
        print(f"API key        {first}")
        print("               It is shown only now; `whylight keys create` makes another.")
    print(f"Logs           {plan.home.logs}")


@contextmanager
def own_client(running: Stack, keys: KeyRing) -> Iterator[Client]:
    """Lend a client with a key that is revoked afterwards."""
    key, record = keys.create(TENANT, Scope, label=OWN_KEY, expires_in=OWN_KEY_FOR)
    try:
        with Client(running.plan.url, key) as client:
            yield client
    finally:
        keys.revoke(record.id)


def wait_until_ready(running: Stack, client: Client) -> None:
    """Wait until the gateway takes requests and a worker has loaded what is registered.

    However long that takes: how large the models are only their owner knows.
    """

    def loading() -> list[bool]:
        return [each["loading"] for each in client.json("GET", "/v1/workers")["workers"]]

    running.wait_for("The gateway", lambda: client.answers("/healthz/ready"))
    running.wait_for("A worker", lambda: bool(loading()))
    if all(loading()):
        print("Loading the models that are registered ...", flush=True)
    running.wait_for("A worker", lambda: not all(loading()), math.inf)


def register_bundled(running: Stack, client: Client) -> None:
    """Register the models that come with the product and wait until they are probed."""
    sent = [packages.register(client, each) for each in packages.bundled()]
    for each in sent:
        packages.wait_until_probed(client, each, lambda _: running.check())


def watch(running: Stack) -> None:
    """Stay while every part lives."""
    while True:
        running.check()
        time.sleep(LOOK_EVERY)


def _first_key(keys: KeyRing) -> str | None:
    """Make the key of a first start; `None` when the installation has keys already."""
    if any(each.label != OWN_KEY for each in keys.list()):
        return None
    text, _record = keys.create(TENANT, Scope, label=FIRST_KEY)
    return text
