"""The methods' pages are what the code gives, and their pictures are small."""

import io
import re

import pytest
from PIL import Image

from tests.support.method_pages import FOLDER, PICTURES, ours, pages
from workers.passes import Ability

WRITE = "run python -m tests.support.method_pages"
TEXTS = pages()


def test_there_is_a_page_for_each_method_and_no_other():
    assert {path.name for path in FOLDER.glob("*.md")} == {*TEXTS}, WRITE
    assert {f"{name}.md" for name in ours()} == {*TEXTS} - {"index.md"}


@pytest.mark.parametrize("name", list(TEXTS))
def test_the_page_is_the_one_that_the_code_gives(name):
    assert (FOLDER / name).read_text() == TEXTS[name], WRITE


@pytest.mark.parametrize("name", list(TEXTS))
def test_every_link_of_the_page_leads_somewhere(name):
    links = re.findall(r"\]\(([^)#:]+)\)", TEXTS[name])
    assert links
    assert [link for link in links if not (FOLDER / link).exists()] == []


def test_the_index_of_all_pages_leads_to_the_methods():
    assert "(methods/index.md)" in (FOLDER.parent / "index.md").read_text()


@pytest.mark.parametrize("name", list(ours()))
def test_the_page_tells_what_can_be_asked_and_what_it_takes(name):
    method, text = ours()[name], TEXTS[f"{name}.md"]
    for parameter, field in method.model_fields.items():
        assert f"| `{parameter}` |" in text
        assert field.description
        assert field.description in text
    for need in method.needs:
        assert f"`{Ability(need)}`" in text
    assert "## Weaknesses\n\n" + method.weaknesses in text
    assert ":math:" not in text
    assert ".. math::" not in text


@pytest.mark.parametrize("name", list(ours()))
def test_every_method_has_a_picture(name):
    assert f"(images/{name}.png)" in TEXTS[f"{name}.md"]
    assert (PICTURES / f"{name}.png").exists(), "run python -m tests.support.method_pictures"


@pytest.mark.parametrize("path", sorted(PICTURES.glob("*")), ids=lambda path: path.name)
def test_pictures_are_small_and_of_a_method_that_there_is(path):
    content = path.read_bytes()
    assert path.stem in ours()
    assert len(content) <= 30 * 1024
    with Image.open(io.BytesIO(content)) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "P", (480, 480))
