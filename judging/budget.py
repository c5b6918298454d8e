"""A cost limit that several judges, kinds of question and retries share."""

from dataclasses import dataclass


@dataclass
class Budget:
    """A cost limit and the costs so far, in the price table's currency.

    limit: None never binds.
    spent: what answers cost, and the most that attempts can have cost which broke off before they were counted.
    """

    limit: float | None = None
    spent: float = 0.0
