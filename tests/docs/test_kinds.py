"""The table of kinds of models and methods is what workers find in the models."""

from tests.support.method_pages import ours
from tests.support.model_kinds import PAGE, kinds, page, without_figures


def test_the_page_is_the_one_that_probes_of_the_models_give():
    found = kinds()
    for kind in found:
        assert kind.entry.state == "ready"
        assert {*kind.entry.methods} | {*kind.entry.refused} == {*ours()}
    expected = without_figures(page(found))
    assert without_figures(PAGE.read_text()) == expected, "run python -m tests.support.model_kinds"
