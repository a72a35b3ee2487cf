"""The tables of attributes are those of the objects that are made now."""

from tests.support.attribute_tables import PAGE, page


def test_the_attribute_tables_are_of_the_objects_that_are_made():
    text = PAGE.read_text()
    assert page(text) == text, "run python -m tests.support.attribute_tables"
