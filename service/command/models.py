"""``whylight models``: the models of a service, over HTTP; foreign models made ready."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from service.command import convert, importing, packages, parts, place, seal
from service.command.client import Client
from service.command.failure import CommandFailure


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's words."""
    verbs = parser.add_subparsers(metavar="verb", required=True)
    add = verbs.add_parser("add", help="send a model package and wait until it was probed")
    add.add_argument("folder", type=Path, help="the package: model.yaml and what it names")
    add.add_argument(
        "--tenant",
        action="append",
        default=[],
        help="give it to this tenant alone; may be repeated, and '*' gives it to all",
    )
    add.set_defaults(act=_add)
    listing = verbs.add_parser("list", help="list the models and what they can be asked")
    listing.set_defaults(act=_list)
    remove = verbs.add_parser("remove", help="withdraw one version of a model")
    remove.add_argument("model", help="name@version")
    remove.set_defaults(act=_remove)
    for each in (add, listing, remove):
        place.add_home(each)
        place.add_gateway(each)
        each.set_defaults(alone=None)
    converting = verbs.add_parser("convert", help="turn foreign weights into safetensors or ONNX")
    convert.add_arguments(converting)
    converting.set_defaults(alone=convert.run)
    begin = verbs.add_parser("import", help="begin a package from a bundle, an nnU-Net or ONNX")
    importing.add_arguments(begin)
    begin.set_defaults(alone=importing.run)
    sealing = verbs.add_parser("seal", help="fill sizes and digests into model.yaml, and check it")
    seal.add_arguments(sealing)
    sealing.set_defaults(alone=seal.run)
    schema = verbs.add_parser("schema", help="print the JSON schema of model.yaml")
    schema.set_defaults(alone=_schema)


def run(options: Namespace) -> int:
    """Do what was asked: here, or with the models of a gateway."""
    if options.alone is not None:
        return int(options.alone(options))
    url = place.gateway_of(options.home, options.url)
    with Client(url, place.key_of(options.key_file)) as client:
        options.act(options, client)
    return 0


def _schema(_options: Namespace) -> int:
    """Print the schema that packages are held against."""
    print(json.dumps(parts.whole_schema(), indent=1))
    return 0


def _add(options: Namespace, client: Client) -> None:
    """Register a package and tell what it can be asked."""
    sent = packages.register(client, options.folder, options.tenant)
    ref = sent.manifest.ref
    entry = packages.wait_until_probed(client, sent, packages.Waiting(ref).tell)
    print(packages.wrapped(f"{ref} is ready: {', '.join(entry['methods'])}", "  "))
    for line in packages.refusals(entry):
        print(line)


def _list(_options: Namespace, client: Client) -> None:
    """Print each version of each model, and below it what it can be asked."""
    for each in client.json("GET", "/v1/models")["models"]:
        print(f"{each['name']}@{each['version']}  {each['runtime']}  {each['state']}")
        if each["methods"]:
            print(packages.wrapped(f"  {', '.join(each['methods'])}", "  "))
        if each["state"] != "ready" and each.get("failure"):
            print(f"  {packages.told(each['failure'])}")


def _remove(options: Namespace, client: Client) -> None:
    """Withdraw a version."""
    name, at, version = options.model.partition("@")
    if not at:
        raise CommandFailure("Name the version as well, as name@version.")
    client.ask("DELETE", f"/v1/models/{name}/versions/{version}")
    print(f"{options.model} is withdrawn.")
