"""Muon for the hidden matrices, AdamW for the rest, in one optimiser with a step-based schedule.

Muon (momentum, then the nearest orthogonal matrix by Newton-Schulz iterations) needs clearly fewer steps than AdamW at
this size. Matrices of one shape are treated as a batch, in float32: torch's own version works in bfloat16, which CPUs
without matrix units emulate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Mixed", "orthogonal"]


def orthogonal(g: Tensor, iterations: int = 5) -> Tensor:
    """Roughly the nearest semi-orthogonal matrix to each g [batch, rows, columns]: singular values 0.7 to 1.2."""
    tall = g.shape[-2] > g.shape[-1]
    x = g.mT if tall else g
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return x.mT if tall else x


class Mixed:
    """`step(scale)` applies one update with all learning rates times `scale`; gradients are then cleared."""

    def __init__(self, matrices: Iterable[nn.Parameter], others: Iterable[nn.Parameter], *, muon_lr: float = 0.02,
                 adam_lr: float = 1e-3, momentum: float = 0.95, decay: float = 0.01) -> None:
        groups: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for p in matrices:
            groups[p.shape].append(p)
        self.groups = list(groups.values())
        self.buffers = [torch.zeros(len(g), *g[0].shape) for g in self.groups]
        self.momentum, self.muon_lr, self.decay = momentum, muon_lr, decay
        self.adam_lr = adam_lr
        self.adam = torch.optim.AdamW(list(others), lr=adam_lr, betas=(0.9, 0.98), weight_decay=decay, foreach=True)

    @torch.no_grad()
    def step(self, scale: float) -> None:
        for group, buffer in zip(self.groups, self.buffers, strict=True):
            if group[0].grad is None:
                continue
            g = torch.stack([p.grad if p.grad is not None else torch.zeros_like(p) for p in group])
            buffer.mul_(self.momentum).add_(g)
            update = orthogonal(g + self.momentum * buffer)
            rows, columns = group[0].shape
            rate = self.muon_lr * scale * max(1.0, rows / columns) ** 0.5
            for p, u in zip(group, update, strict=True):
                p.mul_(1 - rate * self.decay).sub_(u, alpha=rate)
                p.grad = None
        for parameters in self.adam.param_groups:
            parameters["lr"] = self.adam_lr * scale
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {"buffers": self.buffers, "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for mine, theirs in zip(self.buffers, state["buffers"], strict=True):
            mine.copy_(theirs)
        self.adam.load_state_dict(state["adam"])
