"""What calls may cost together: one limit over several judges, kinds of question and tries."""

from dataclasses import dataclass


@dataclass
class Budget:
    """`limit` and `spent` in the price table's currency; a limit of None never binds.

    spent: what answers cost, and the most that attempts can have cost which broke off before they were counted.
    """

    limit: float | None = None
    spent: float = 0.0
