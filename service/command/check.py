"""``whylight check``: a look at every part, and for each fault what mends it."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.backends import Backends, open_backends
from service.command import environment, place
from service.command.client import Client
from service.command.failure import CommandFailure
from service.command.keys import VALID, state
from service.errors.base import WhylightError
from service.scratch import living
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found."""

    fine: bool
    what: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """What the looks are taken at."""

    settings: Settings
    backends: Backends
    url: str


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's words."""
    place.add_home(parser)
    parser.add_argument("--url", help="address of the gateway (default: the one here)")
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="part",
        help="what to look at (default: all but worker, which is those of this machine): "
        + ", ".join(LOOKS),
    )


def run(options: Namespace) -> int:
    """Look at the parts that were asked for; 1 if one is not fine."""
    unknown = sorted(set(options.parts) - set(LOOKS))
    if unknown:
        raise CommandFailure(f"There is no part '{unknown[0]}'.", f"Parts: {', '.join(LOOKS)}.")
    settings = place.settings_of(options.home)
    url = place.gateway_of(options.home, options.url)
    try:
        backends = open_backends(settings)
    except (ValueError, WhylightError) as error:
        raise CommandFailure("Redis or store cannot be opened.", _words(error)) from None
    try:
        scene = Scene(settings, backends, url)
        findings = {name: _look(LOOKS[name], scene) for name in _asked(options.parts)}
    finally:
        backends.close()
    for name, finding in findings.items():
        print(f"{'ok  ' if finding.fine else 'FAIL'}  {name:<10}{finding.what}")
        if finding.mend:
            print(f"      {'':<10}{finding.mend}")
    return 0 if all(each.fine for each in findings.values()) else 1


def _asked(parts: Sequence[str]) -> Sequence[str]:
    return parts or [name for name in LOOKS if name not in NAMED]


def _words(error: Exception) -> str:
    """Return what may be shown of an error; our own texts only."""
    if isinstance(error, WhylightError):
        return error.detail
    return "WHYLIGHT_QUEUE__URL or WHYLIGHT_STORE__URL is not an address of a known kind."


def _look(look: Callable[[Scene], Finding], scene: Scene) -> Finding:
    """Take one look; a failure of ours is a finding."""
    try:
        return look(scene)
    except WhylightError as error:
        return Finding(False, error.title, error.detail)
    except CommandFailure as failure:
        return Finding(False, failure.what, failure.mend)


def _settings(_scene: Scene) -> Finding:
    """Look for misspelt variables; values were read already."""
    strange = environment.misspelt()
    if strange:
        return Finding(
            False,
            f"Nobody reads {', '.join(strange)}.",
            "Mend the spelling; nested names are joined by two underscores.",
        )
    return Finding(True, "All WHYLIGHT_* variables are read.")


def _redis(scene: Scene) -> Finding:
    """Look whether it answers, is new enough, and evicts nothing."""
    try:
        scene.backends.queue.ping()
    except WhylightError as error:
        mend = "Start it (`whylight up` starts its own), or correct WHYLIGHT_QUEUE__URL."
        return Finding(False, error.detail, mend)
    return Finding(True, "Redis answers and evicts nothing.")


def _store(scene: Scene) -> Finding:
    """Look whether it answers and has room."""
    scene.backends.store.ping()
    return Finding(True, "The store answers and has room.")


def _workers(scene: Scene) -> Finding:
    """Look whether one is alive."""
    workers = scene.backends.fleet.workers()
    if not workers:
        return Finding(
            False, "No worker is alive.", "Start one: `python -m workers.main`, or `whylight up`."
        )
    told = (
        f"{each.id} on {each.device}, {each.running} jobs" + ", still loading" * each.loading
        for each in workers
    )
    return Finding(True, "; ".join(told))


def _worker(scene: Scene) -> Finding:
    """Look whether every worker of this machine is one that the fleet hears of."""
    told = scene.settings.worker
    here = (told.name,) if told.name else living(told.scratch, "wk")
    heard = {each.id for each in scene.backends.fleet.workers()}
    if not here:
        return Finding(False, "No worker runs here.", "Start one: `python -m workers.main`.")
    silent = [name for name in here if name not in heard]
    if silent:
        mend = "It has just started, cannot reach Redis, or hangs; see its log, start it again."
        return Finding(False, f"The worker {silent[0]} runs here and nobody hears of it.", mend)
    return Finding(True, f"{', '.join(here)}: alive and heard of.")


def _models(scene: Scene) -> Finding:
    """Look whether there are any, and whether all can be asked."""
    models = scene.backends.fleet.catalog().models
    broken = [each for each in models if each.state != "ready"]
    if broken:
        failure = broken[0].failure
        mend = "" if failure is None else failure.detail
        return Finding(False, f"{broken[0].name}@{broken[0].version} cannot be used.", mend)
    if not models:
        return Finding(False, "No model is registered.", "Add one with `whylight models add`.")
    return Finding(True, ", ".join(f"{each.name}@{each.version}" for each in models))


def _keys(scene: Scene) -> Finding:
    """Look whether one is valid."""
    if not any(state(each) == VALID for each in scene.backends.keys.list()):
        return Finding(
            False, "No API key is valid.", "Make one with `whylight keys create --admin`."
        )
    return Finding(True, "There are valid API keys.")


def _gateway(scene: Scene) -> Finding:
    """Look whether it takes requests."""
    with Client(scene.url) as client:
        if client.answers("/healthz/ready"):
            return Finding(True, f"The gateway at {scene.url} takes requests.")
        if client.answers("/healthz/live"):
            mend = "It lives but waits for Redis or the store; see above."
            return Finding(False, "The gateway takes no requests.", mend)
    return Finding(False, f"No gateway answers at {scene.url}.", "Start one: `python -m api.main`.")


LOOKS: dict[str, Callable[[Scene], Finding]] = {
    "settings": _settings,
    "redis": _redis,
    "store": _store,
    "keys": _keys,
    "workers": _workers,
    "worker": _worker,
    "models": _models,
    "gateway": _gateway,
}
"""Every part, in the order in which faults follow from each other."""

NAMED = frozenset({"worker"})
"""Parts that are looked at only when they are asked for: not every machine has a worker."""
