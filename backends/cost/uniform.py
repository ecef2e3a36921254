"""A trace that follows from a schedule and one number: every site is compressed alike, sums only."""

from __future__ import annotations

import numpy as np

from focusc.backends.cost.interface import VECTOR
from focusc.backends.trace import Trace
from focusc.backends.workload import Workload

__all__ = ["uniform_trace"]


def uniform_trace(workload: Workload, compression: float = 1.0) -> Trace:
    """The workload's schedule with `compression` retained vectors to a unique one at every layer and site.

    With 1.0 nothing is similar: the published `1x1x1` row, and what SEC alone sees.
    """
    widths = (workload.width, workload.q_width, workload.q_width, workload.width, workload.ffn)
    slots = np.array([-(-width // VECTOR) for width in widths], np.int64)
    flow = np.array(workload.retained(), np.int64)
    retained = flow[:, [0, 0, 0, 1, 1]]
    vectors = retained * slots
    zero = (workload.visual_tokens - retained) * slots
    similar = vectors - np.maximum(np.rint(vectors / compression), 1).astype(np.int64)
    return Trace(workload.name, workload.visual_tokens, 1024, np.ones(5, np.int64), slots, retained, zero, similar,
                 source={"kind": "uniform", "compression": compression})
