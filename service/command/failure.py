"""Why a command stopped, for the person at the terminal."""


class CommandFailure(Exception):
    """A command cannot go on.

    Parameters
    ----------
    what
        What is wrong, in one sentence.
    mend
        What to do about it.
    """

    def __init__(self, what: str, mend: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.mend = mend
