"""A candidate: one variant that a sweep or a study looks at."""

from dataclasses import dataclass

from engine.models.variant import Variant

SINGLE, SUBSPACE, RANDOM, SHUFFLED, BASE = "single", "subspace", "random", "shuffled", "base"


@dataclass(frozen=True)
class Candidate:
    """A variant and where it comes from. `group` joins the alphas of one direction or subspace."""

    kind: str
    group: str
    sources: tuple[tuple[str, int], ...]
    alpha: float
    variant: Variant

    @property
    def name(self) -> str:
        return self.variant.name

    @property
    def k(self) -> int:
        """Dimension of what is removed; 0 for the base."""
        return 0 if self.variant.edit is None else self.variant.edit.basis_HK.shape[1]

    @property
    def layers(self) -> list[int]:
        return [layer for _, layer in self.sources]
