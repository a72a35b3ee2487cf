"""``whylight keys``: API keys, made and revoked where the store can be reached."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from service.backends import open_backends
from service.command import place
from service.keys import KeyRecord, KeyRing, Scope
from service.settings import Settings

TENANT = "default"
VALID = "valid"
CALLER = tuple(each for each in Scope if each not in {Scope.MODELS_ADMIN, Scope.QUEUE_ADMIN})
"""What a program that asks for explanations needs."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's words."""
    verbs = parser.add_subparsers(metavar="verb", required=True)
    create = verbs.add_parser("create", help="make a key and print it, this once")
    create.add_argument("--label", default="", help="what the key is for, for the list")
    create.add_argument("--tenant", default=TENANT, help=f"whose key it is (default {TENANT})")
    create.add_argument(
        "--scope",
        action="append",
        type=Scope,
        choices=list(Scope),
        help="what it allows; may be given again (default: everything but the admin scopes)",
    )
    create.add_argument("--admin", action="store_true", help="allow everything")
    create.add_argument("--days", type=int, help="days until it expires (default: never)")
    create.set_defaults(act=_create)
    listing = verbs.add_parser("list", help="list the keys, without their secrets")
    listing.add_argument("--all", action="store_true", help="also those revoked or expired")
    listing.set_defaults(act=_list)
    revoke = verbs.add_parser("revoke", help="revoke a key for good")
    revoke.add_argument("id", help="the key's id, as the list shows it")
    revoke.set_defaults(act=_revoke)
    for each in (create, listing, revoke):
        place.add_home(each)


def run(options: Namespace) -> int:
    """Do what was asked with the keys of the stack."""
    with key_ring(place.settings_of(options.home)) as keys:
        options.act(options, keys)
    return 0


@contextmanager
def key_ring(settings: Settings) -> Iterator[KeyRing]:
    """Lend the keys of an installation."""
    backends = open_backends(settings)
    try:
        yield backends.keys
    finally:
        backends.close()


def _create(options: Namespace, keys: KeyRing) -> None:
    """Make a key; its text is printed and nowhere kept."""
    scopes = tuple(Scope) if options.admin else (options.scope or CALLER)
    life = None if options.days is None else timedelta(days=options.days)
    text, _record = keys.create(options.tenant, scopes, label=options.label, expires_in=life)
    print(text)


def _list(options: Namespace, keys: KeyRing) -> None:
    """Print a line for each key."""
    for each in keys.list():
        if not options.all and state(each) != VALID:
            continue
        until = "never" if each.expires is None else _day(each.expires)
        scopes = " ".join(each.scopes)
        print(
            f"{each.id}  {each.tenant}  {state(each)}  made {_day(each.created)}  "
            f"expires {until}  {scopes}  {each.label}".rstrip()
        )


def state(record: KeyRecord) -> str:
    """Return what the key is good for."""
    now = int(datetime.now(UTC).timestamp() * 1000)
    if record.revoked is not None:
        return "revoked"
    return VALID if record.holds(now) else "expired"


def _day(milliseconds: int) -> str:
    """Return the day of a time, in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).date().isoformat()


def _revoke(options: Namespace, keys: KeyRing) -> None:
    """Revoke a key."""
    record = keys.revoke(options.id)
    print(f"{record.id} is revoked; gateways notice within ten seconds.")
