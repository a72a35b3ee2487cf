"""What a person sees of a running job: a moving line at a terminal, plain lines elsewhere."""

import io

from service.command.follow import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def show(out):
    progress = Progress("a study", out)
    progress.show({"state": "queued", "stage": None, "progress": 0.0})
    for done in (0.25, 0.5):
        progress.show({"state": "running", "stage": "attribute", "progress": done})
    progress.end({"state": "succeeded"}, 1.25)
    return out.getvalue()


def test_in_a_log_each_stage_is_one_plain_line():
    assert show(io.StringIO()).splitlines() == [
        "  a study: queued",
        "  a study: attribute",
        "  a study: succeeded in 1.2 s",
    ]


def test_at_a_terminal_one_line_moves():
    text = show(Terminal())
    assert text.count("\n") == 1
    bars = [part.count("#") for part in text.split("\r")[1:]]
    assert bars == [0, 6, 12, 24]
