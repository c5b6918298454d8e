"""This package's base exception; its messages say what was found, what was expected and what to do."""


class ExtractionError(Exception):
    """A prompt file, chat template, model or direction file that extraction cannot use."""
