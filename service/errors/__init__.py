"""Every failure of the house: whose move is next, a stable code, a safe text.

A :class:`WhylightError` may be shown to anyone. Its texts are written for the
person who must act, and are made only of words of ours, names out of the
catalog and numbers; never of values out of a study, a file name or another
exception's text. An exception that is no `WhylightError` is a bug and is
never shown.
"""
