"""What one trunk saves against a run of its own for every end."""

from __future__ import annotations

from dataclasses import dataclass

from .config import TrunkConfig


@dataclass(frozen=True)
class Savings:
    """Training tokens of trunk and branches, and of runs apart that arrive at the same ends."""

    trained: int
    separate: int

    @property
    def ratio(self) -> float:
        """The former over the latter."""
        return self.trained / self.separate


def savings(config: TrunkConfig) -> Savings:
    """Count the tokens that a trunk with its branches trains on, and those of separate runs.

        trunk and branches = C_K + f (C_1 + ... + C_{K-1}),   separate = C_1 + ... + C_K

    for budgets C_1 < ... < C_K and cooldowns of a share f, where budgets and cooldowns are whole steps (Hagele et al.
    2024, 2405.18392, section 5). Steps are counted, not this formula evaluated, so it holds for late branches too.
    """
    branches = config.branches()
    steps = [config.steps(branch.tokens) for branch in branches]
    leaves = [config.branch_step(branch) for branch in branches]
    cooled = sum(end - leave for end, leave in zip(steps, leaves, strict=True))
    step = config.batch_size * config.seq_len
    return Savings((max(leaves) + cooled) * step, sum(steps) * step)
