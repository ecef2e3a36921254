"""What a cross-check finds: a figure of both models, and the causes of their difference with their sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

__all__ = ["CAUSES", "Comparison"]

CAUSES: Final = {
    "row tiles": "text before the visual tokens is an m-tile of its own, and f32 sums make dense tiles lower: more "
    "passes, and the weights are read for every tile",
    "column tiles": "the mapping search chooses fewer columns than 96, as for gate and up, which are computed together "
    "and have two tiles of f32 sums: the activation is read more often",
    "row blocks": "an m-tile is cut into equal blocks of query rows, each sees keys up to its own last row, and two "
    "products of 96 keys, sums and results must fit: other blocks than the closed form's",
    "vectors of a block": "a block of query rows refers to more than its share of the tile's unique vectors",
    "masked entries": "the array computes whole tiles on the diagonal; the closed form counts what the mask leaves",
    "row list": "rows of stacked heads and kept rows are loaded by a list of row numbers, 4 bytes a row; the choice of "
    "tokens writes two lists",
    "question": "the rows of the question ask, not all text; weights are folded for visual keys alone",
    "keys per head": "every query head that ranks tokens reads the keys for itself, not once for its group",
    "question per panel": "the rows of the question are read again for every 96 keys, not once",
    "rotary apart": "heads wider than an n-tile are turned in a pass of their own: Q and K are written, read and "
    "written again",
    "rotary tables": "cosine and sine are read: for every head where the embedding is a pass of its own, else for "
    "every n-tile; once tokens are pruned, the rows of those that are left are moved",
    "concentration apart": "queries after a rotary pass, and attention's output where blocks are no m-tiles, are "
    "concentrated in a pass of their own: written, read, and compared while the array stands still",
    "two passes": "a normalisation whose result is concentrated goes over its m-tile twice, column group by column "
    "group: rows are read once for their squares and once to scale them, beside the concentration of the group before",
    "vector operands": "biases and gains of the normalisation are read for every row tile",
    "compaction apart": "kept rows are moved in a pass of their own, not beside the array",
    "full tiles": "a tile that fills the output buffer leaves it, through the vector unit and the store, before the "
    "next can be computed or loaded",
    "f32 sums": "sums and results are f32 in the output buffer; the closed form has f16, as published",
    "first sums": "the first product of a tile is written without reading what was there",
    "vector accesses": "vector work reads and writes f32 tiles in the output buffer; the closed form counts its cycles",
    "value panels": "a value head wider than half of the columns is cut into panels, and the softmaxed scores are "
    "forwarded for each",
    "embedding and head": "the closed form charges the decoder layers alone",
    "spare buffers": "the dense array has the buffers of the similarity concentrator and leaks in them; the closed "
    "form leaves them out",
    "time": "buffers leak and logic idles for as long as the run takes: the closed form's cycles and their causes",
    "scatter queue": "passes run ahead of the scatter: a slice that scatters longer than it streams is caught up "
    "within its tile; the closed form charges each pass",
}
"""Why a program and the closed form differ."""


@dataclass
class Comparison:
    """One operation and quantity: the program's, the closed form's, and causes with their sizes."""

    op: str
    quantity: str
    program: float
    model: float
    causes: dict[str, float] = field(default_factory=dict[str, float])

    def add(self, other: Comparison) -> None:
        """Count another layer in."""
        self.program += other.program
        self.model += other.model
        for name, size in other.causes.items():
            self.causes[name] = self.causes.get(name, 0.0) + size

    @property
    def difference(self) -> float:
        """(program - model) / model; where the closed form has nothing, 1 or, if there is nothing at all, 0."""
        return (self.program - self.model) / self.model if self.model else float(self.program != 0)

    @property
    def residual(self) -> float:
        """What no cause explains, over the larger of the two."""
        left = self.program - self.model - sum(self.causes.values())
        return left / max(self.model, self.program) if left else 0.0
