"""This package's base exception; its messages say what was found, what was expected and what to do."""


class EditError(Exception):
    """A checkpoint, basis or edit that cannot be carried out as asked."""
