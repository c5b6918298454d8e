"""The candidates of a sweep: single directions over layers, alphas and positions, subspaces of them, and controls."""
# H = hidden size, K = directions of a subspace

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from editing.errors import EditError
from editing.projection import Edit, orthonormal_basis
from engine.configs.schema import SweepConfig
from engine.display.progress import say
from engine.evaluate.candidates import BASE, SINGLE, SUBSPACE, Candidate
from engine.models.variant import Variant
from engine.runs.session import Session
from engine.sweep.inputs import grid_layers, listed_subspaces, top_sizes
from extraction.controls import Control
from extraction.directions import Directions, unit_directions

Sources = Sequence[tuple[str, int]]  # position and layer of each direction


class Grid:
    """Makes candidates from directions by position: a sweep's own, or those of one control."""

    def __init__(self, session: Session, directions: Mapping[str, Directions], control: Control | None = None) -> None:
        self.session = session
        self.config: SweepConfig = session.config.sweep
        self.directions = directions
        self.control = control

    @property
    def layers(self) -> list[int]:
        """The layers tried one by one."""
        return grid_layers(self.session)

    def base(self) -> Candidate:
        return Candidate(BASE, "base", (), 0.0, self.session.base)

    def singles(self) -> list[Candidate]:
        """Every position, layer and alpha."""
        sources = [(position, layer) for position in self.directions for layer in self.layers]
        return [self._candidate(SINGLE, [source], alpha) for source in sources for alpha in self.config.alphas]

    def listed(self) -> list[Candidate]:
        """The subspaces whose layers the configuration names, at the first position."""
        position = next(iter(self.directions))
        return [
            self._candidate(SUBSPACE, [(position, layer) for layer in layers], alpha)
            for layers in listed_subspaces(self.config).values()
            for alpha in self.config.alphas
        ]

    def best_of(self, ranked: Sequence[Candidate]) -> list[Candidate]:
        """topN: the subspaces of the best single directions, `ranked` best first, all at the best one's position.

        One position, so that a configuration file can say what the subspace is. A topN that cannot be built is left out aloud.
        """
        if not ranked:
            return []
        position = ranked[0].sources[0][0]
        sources = list(dict.fromkeys(candidate.sources[0] for candidate in ranked if candidate.sources[0][0] == position))
        made = []
        for size in top_sizes(self.config):
            if size > len(sources):
                say(f"top{size}: left out, only {len(sources)} single directions at position {position} came this far")
                continue
            try:
                made += [self._candidate(SUBSPACE, sources[:size], alpha, f"top{size}") for alpha in self.config.alphas]
            except EditError as error:
                say(f"top{size}: left out. {error}")
        return made

    def _candidate(self, kind: str, sources: Sources, alpha: float, group: str | None = None) -> Candidate:
        group = group or "+".join(_label(position, layer) for position, layer in sources)
        if kind == SUBSPACE and not group.startswith("top"):
            group = "subspace" + "-".join(str(layer) for _, layer in sources)
        group = group if self.control is None else f"{self.control.name}-{group}"
        name = group if self.config.alphas == [alpha] else f"{group}-a{alpha:g}"
        names = [f"{group}: layer {layer}'s direction ({position})" for position, layer in sources]
        basis_HK = orthonormal_basis(self._units(self.directions, sources), names=names)
        kind = kind if self.control is None else self.control.kind
        return Candidate(kind, group, tuple(sources), alpha, self._variant(name, basis_HK, alpha))

    def _units(self, directions: Mapping[str, Directions], sources: Sources) -> Tensor:
        return torch.cat([unit_directions(directions[position], [layer]) for position, layer in sources])

    def _variant(self, name: str, basis_HK: Tensor, alpha: float) -> Variant:
        edit = Edit(basis_HK, alpha, self.session.config.edit.keep_norms)
        return Variant(name, self.session.base_hash, self.session.plan, edit)


def _label(position: str, layer: int) -> str:
    return f"layer{layer}" if position == "last" else f"layer{layer}-{position.replace(':', '')}"
