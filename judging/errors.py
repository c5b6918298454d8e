"""The base exception of this package; its messages say what was found, what was expected and what to do."""


class JudgeError(Exception):
    """A judge, rubric or table of scores that cannot be used as asked."""
