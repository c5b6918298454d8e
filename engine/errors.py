"""Errors a user can act on. The command line prints their message without a traceback and exits with 2."""


class EngineError(Exception):
    """Configuration, run directory, model or engine trouble: what was found, what was expected, what to do."""


class SwapFailed(EngineError):
    """The weights in the engine are not the variant's; nothing may be generated until a swap succeeds."""
