"""``whylight reproduce``: the maps of an explanation, computed again and compared."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from service import documents
from service.command import follow, place
from service.command.client import Client
from service.command.difference import TOLERANCE, Difference, Values, difference
from service.command.failure import CommandFailure
from service.command.report import table
from service.command.resend import Resent, resend
from service.domain.explanation import Explanation, ModelRef, Provenance, Result
from service.domain.job import Priority
from service.domain.target import ClassTarget
from service.domain.value import Sha256
from service.errors.jobs import ResultDamaged
from service.paths import DOCUMENT_NAME

FORMATS = ("json", "npy")
HEAD = ("method", "target", "largest difference", "share of range", "equal to the byte")
MEANING = {
    "method": "its maps may differ for that alone",
    "check": "its figures cannot be compared",
}
"""What follows from another version."""

ANSWERS = {True: "yes", False: "no", None: "-"}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's words."""
    parser.add_argument(
        "file", type=Path, help=f"{DOCUMENT_NAME} of an explanation, as it was fetched"
    )
    parser.add_argument(
        "--study",
        type=Path,
        help="what went in, if the service has it no more: a DICOM file, or a zip archive or folder"
        " with every object",
    )
    place.add_home(parser)
    place.add_gateway(parser)


def run(options: Namespace) -> int:
    """Compute again what the document tells of; 0 when every map is the same."""
    original = _document(options.file)
    model, ran = _demand_maps(original)
    url = place.gateway_of(options.home, options.url)
    with Client(url, place.key_of(options.key_file)) as client:
        _demand_model(client, model)
        resent = _resent(client, original, ran, options.study)
        request = _request(original, model) | _meant(original, ran)
        again = _again(client, original, resent.request(request))
        _demand_same_inputs(original, ran, again, resent)
        found = list(_compare(client, original, again, resent, options.file.parent))
    return _tell(original, again, found)


def _document(file: Path) -> Explanation:
    """Read a document whose seal holds."""
    try:
        return documents.opened(file.read_bytes())
    except OSError:
        raise CommandFailure("The document cannot be read.", "Name a file that exists.") from None
    except ResultDamaged as damaged:
        raise CommandFailure(
            damaged.detail,
            f"Fetch it again: GET /v1/explanations/{{id}}/artifacts/{DOCUMENT_NAME}.",
        ) from None


def _demand_maps(original: Explanation) -> tuple[ModelRef, Provenance]:
    """Return what ran, for a document that holds maps."""
    if original.model is None or original.provenance is None or not _mapped(original):
        raise CommandFailure("The explanation has no map that could be computed again.")
    return original.model, original.provenance


def _mapped(explanation: Explanation) -> list[Result]:
    """Return the results with a whole map: one that was cut short depends on the clock."""
    return [each for each in explanation.results if each.map and each.target and not each.partial]


def _demand_model(client: Client, model: ModelRef) -> None:
    """Refuse unless the service serves the very same package."""
    ref = f"{model.name}@{model.version}"
    models: list[dict[str, Any]] = client.json("GET", "/v1/models")["models"]
    found = [
        each for each in models if (each["name"], each["version"]) == (model.name, model.version)
    ]
    if not found:
        raise CommandFailure(
            f"The service does not have {ref}.",
            f"Register the package with digest {model.package}: `whylight models add`.",
        )
    if found[0]["package"] != model.package:
        raise CommandFailure(
            f"{ref} of this service is another package than the one explained.",
            f"  then {model.package}\n  here {found[0]['package']}",
        )


def _resent(client: Client, original: Explanation, ran: Provenance, place: Path | None) -> Resent:
    """Return the study that is explained: the one there, or one that is sent now."""
    if place is not None:
        return resend(client, original, ran, place)
    if client.find(f"/v1/studies/{original.request.study}") is None:
        raise CommandFailure(
            "The service no longer has the study.",
            "Name what went in with --study: its DICOM file, or a zip archive or a folder of all.",
        )
    return Resent(original.request.study)


def _meant(original: Explanation, ran: Provenance) -> dict[str, Any]:
    """Return which object of the study is meant, as it was found then."""
    asked = original.request
    if asked.views or asked.instances or asked.series is not None:
        return {}
    return {"instance": ran.instances[0].id}


def _request(original: Explanation, model: ModelRef) -> dict[str, Any]:
    """Return the request anew, with everything as it was resolved then."""
    mapped = _mapped(original)
    methods = {each.method: each.parameters for each in mapped}
    targets = dict.fromkeys(
        each.target.again or ClassTarget(of=each.target.index) for each in mapped if each.target
    )
    return original.request.model_dump(mode="json") | {
        "model": f"{model.name}@{model.version}",
        "methods": [{"name": name, "parameters": given} for name, given in methods.items()],
        "targets": [each.model_dump(mode="json") for each in targets],
        "artifacts": list(FORMATS),
        "priority": Priority.LOW.value,
    }


def _again(client: Client, original: Explanation, request: dict[str, Any]) -> Explanation:
    """Have it computed, and return the document of that."""
    try:
        job = follow.explain(client, request, follow.Progress(request["model"]))
    except CommandFailure as refused:  # it may be that a changed method has a parameter no more
        changed = _changed("method", _methods(original), _served(client))
        raise CommandFailure(refused.what, "\n".join([refused.mend, *changed])) from None
    if job["state"] != "succeeded":
        failure = job.get("failure") or {}
        raise CommandFailure(f"The job ended as {job['state']}.", str(failure.get("detail", "")))
    answer = client.ask("GET", f"/v1/explanations/{job['id']}/artifacts/{DOCUMENT_NAME}")
    return documents.read(answer.content, job["id"])


def _served(client: Client) -> dict[str, int]:
    """Return the versions of the service's methods."""
    listed: list[dict[str, Any]] = client.json("GET", "/v1/methods")["methods"]
    return {each["name"]: each["version"] for each in listed}


def _demand_same_inputs(
    original: Explanation, ran: Provenance, again: Explanation, resent: Resent
) -> None:
    """Refuse to compare maps that were made of something else."""
    now = again.provenance
    then = [each.sha256 for each in ran.instances]
    if now is None or (now.package, [each.sha256 for each in now.instances]) != (ran.package, then):
        raise CommandFailure("The service explained another image, or another package.")
    found = _by_target(again, str)
    for which, result in _by_target(original, resent.key).items():
        beside = _beside(found[which]) if which in found else None
        if None not in {beside, _beside(result)} and beside != _beside(result):
            raise CommandFailure(
                "A target was made of another image or segmentation beside the one explained."
            )


def _beside(result: Result) -> Sha256 | None:
    """Return the digest of what a map's target was made of beside the image, where it was."""
    return None if result.target is None else result.target.beside


def _by_target(
    explanation: Explanation, named: Callable[[str], str]
) -> dict[tuple[str, str], Result]:
    """Return the results with a map by method and target, whose key is named anew."""
    mapped = _mapped(explanation)
    return {(each.method, named(each.target.key)): each for each in mapped if each.target}


def _compare(
    client: Client, original: Explanation, again: Explanation, resent: Resent, folder: Path
) -> Iterator[Difference]:
    """Yield the difference of every map that the original has."""
    values, values_again = Values(client, original, folder), Values(client, again, None)
    found = _by_target(again, str)
    for (method, target), result in _by_target(original, resent.key).items():
        other = found.get((method, target))
        if other is None:
            yield Difference(method, target, None, None, same_digest=False)
        else:
            yield difference(result, other, values.of(result), values_again.of(other))


def _tell(original: Explanation, again: Explanation, found: Sequence[Difference]) -> int:
    """Print the comparison; return the exit status."""
    print()
    for line in (*_renewed(original, again), *_changes(original, again)):
        print(line)
    rows = [
        (
            each.method,
            each.target,
            _number(each.largest),
            _number(each.relative),
            ANSWERS[each.same_digest],
        )
        for each in found
    ]
    print(table(HEAD, rows))
    within = sum(each.within for each in found)
    print(f"\n{within} of {len(found)} maps are within {TOLERANCE:g} of their range ({again.id}).")
    return 0 if within == len(found) else 1


def _renewed(original: Explanation, again: Explanation) -> Iterator[str]:
    """Tell which methods and checks are of another version than then."""
    yield from _changed("method", _methods(original), _methods(again))
    yield from _changed("check", _checks(original), _checks(again))


def _changed(
    kind: str, then: Mapping[str, int | None], now: Mapping[str, int | None]
) -> Iterator[str]:
    """Tell which methods, or checks, are on both sides in versions that differ."""
    for name in then:
        if name in now and then[name] != now[name]:
            yield (
                f"The {kind} {name} has changed: version {then[name]} then, {now[name]} now;"
                f" {MEANING[kind]}."
            )


def _methods(explanation: Explanation) -> dict[str, int | None]:
    return {each.method: each.version for each in _mapped(explanation)}


def _checks(explanation: Explanation) -> dict[str, int | None]:
    return {each.name: each.version for result in _mapped(explanation) for each in result.checks}


def _changes(original: Explanation, again: Explanation) -> Iterator[str]:
    """Tell where it was computed by something else than now."""
    for name, then, now in (
        *_both(_machine(original), _machine(again)),
        *_both(original.versions, again.versions),
    ):
        if then != now:
            yield f"{name}: {then} then, {now} now"


def _machine(explanation: Explanation) -> dict[str, str]:
    ran = explanation.provenance
    names = ("device", "hardware", "precision", "tf32", "threads", "fixed_rows")
    return {} if ran is None else {name: str(getattr(ran, name)) for name in names}


def _both(then: dict[str, str], now: dict[str, str]) -> list[tuple[str, str, str]]:
    return [(name, then.get(name, "-"), now.get(name, "-")) for name in {**then, **now}]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"
