"""One trunk, many budgets.

The trunk trains at a constant rate. At each budget a branch leaves it with a copy of model and optimiser,
cools down, and ends; the trunk goes on from where the branch left. One run so yields several fully
cooled models (Hagele et al. 2024, 2405.18392), some of them in a precision that only their cooldown had.
Batches are a function of the step, so a segment that is killed and resumed is the same segment, bit for bit.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ...formats import Scheme
from ..corpus import Corpus, batch
from ..model import Transformer
from ..precision import StoredWeights, apply_scheme
from . import checkpoint, schedule
from .config import Branch, TrunkConfig

CHECKPOINT_SECONDS = 20.0


class Interrupted(Exception):
    """Training was asked to stop and has saved its state."""


class Diverged(Exception):
    """A loss or gradient is not finite; the update was not made."""


@dataclass(frozen=True)
class End:
    """What a branch arrives at.

    Attributes:
        branch: the way from the trunk.
        steps: steps taken from the first, along trunk and branch.
        learning_rate: at the last step.
        model: the trained model; None if it diverged.
        reason: why it diverged, in words.
        seconds: spent on the branch, and on the stretch of trunk before it, in this process.
        lost_updates: share of the updates of stored weights that were rounded to nothing; None without such weights.
    """

    branch: Branch
    steps: int
    learning_rate: float
    model: Transformer | None
    reason: str
    seconds: float
    lost_updates: float | None = None


class State:
    """Model, optimiser and step of one run; everything that a checkpoint holds."""

    def __init__(self, config: TrunkConfig, scheme: Scheme, device: torch.device) -> None:
        self.config, self.device, self.step = config, device, 0
        self.model = apply_scheme(Transformer(config.shape, config.seed), scheme).to(device)
        self.named = dict(self.model.named_parameters())
        decayed = [
            p
            for name, p in self.named.items()
            if p.ndim == 2 and not name.startswith("embedding") and not name.endswith(".step")
        ]
        others = [p for p in self.named.values() if all(p is not d for d in decayed)]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0}],
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            eps=1e-15,  # as the paper; the usual 1e-8 is not small beside the gradients of tiny models
            fused=True,
        )
        self.stored = StoredWeights(self.model)
        kept = {name: p for name, p in self.named.items() if all(p is not q for q, _ in self.stored.pairs)}
        self.held = kept | dict(self.model.named_buffers())  # codes and steps stand for stored weights
        self.stored.release()

    def update(self, tokens_BT: Tensor, targets_BT: Tensor, rate: float) -> None:
        """Make one AdamW step.

        Raises:
            Diverged: before the update, if the gradient is not finite.
        """
        # Rounding by chance is a function of the step too, so that a run that is resumed is the same run.
        torch.manual_seed((self.config.seed << 32) + self.step)
        self.stored.read()
        logits_BTV = self.model(tokens_BT.to(self.device))
        loss = F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.to(self.device).flatten())
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.named.values(), self.config.clip)
        if not torch.isfinite(norm):
            raise Diverged(f"loss {loss.item():.4g} with gradient norm {norm.item():.4g} at step {self.step}")
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.stored.write()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, as copies."""
        out = {f"model.{name}": tensor for name, tensor in self.held.items()}
        for name, p in self.named.items():
            out |= {f"adam.{key}.{name}": value for key, value in self.optimizer.state[p].items()}
        return {name: tensor.detach().cpu().clone() for name, tensor in out.items()}

    @torch.no_grad()
    def load(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Take over a step and its tensors; quantisation steps that it did not have are set at the next one."""
        self.step = step
        for name, tensor in self.held.items():
            if f"model.{name}" not in tensors and name.endswith(".step"):
                tensor.zero_()
            else:
                tensor.copy_(tensors[f"model.{name}"])
        for name, p in self.named.items():
            keys = ("step", "exp_avg", "exp_avg_sq")
            state = {k: tensors[f"adam.{k}.{name}"] for k in keys if f"adam.{k}.{name}" in tensors}
            if state:
                self.optimizer.state[p] = {k: v.clone().to(self.device) for k, v in state.items()}


def train_trunk(
    config: TrunkConfig,
    corpus: Corpus,
    folder: Path,
    done: Collection[Branch] = (),
    on_tokens: Callable[[int], None] = lambda tokens: None,
    should_stop: Callable[[], bool] = lambda: False,
    device: torch.device | None = None,
) -> Iterator[End]:
    """Train a trunk and yield the end of each branch, in the order in which they leave it.

    Args:
        config: what to train.
        corpus: the text; its hash must be the config's.
        folder: where checkpoints go; an interrupted trunk goes on from them.
        done: branches whose ends are known already.
        on_tokens: told the tokens of every step, for progress.
        should_stop: asked after every step; when true, state is saved and `Interrupted` raised.
        device: where to train; None means the CPU.

    Raises:
        Interrupted: after `should_stop` said so.
    """
    device = device or torch.device("cpu")
    trunk_dead = ""
    trunk = State(config, config.parts(), device)
    for way in config.branches():
        if way in done:
            continue
        start, end = config.branch_step(way), config.steps(way.tokens)
        trunk_rate = partial(schedule.constant, warmup=config.warmup_steps)
        if config.schedule == "cosine":
            rate: Callable[[int], float] = partial(schedule.cosine, end=end, warmup=config.warmup_steps)
        else:
            rate = partial(_warm_cooldown, start=start, end=end, warmup=config.warmup_steps)

        began, name = time.perf_counter(), f"branch-{config.cell_id(way)}"
        advance = partial(
            _advance, corpus=corpus, folder=folder, on_tokens=on_tokens, should_stop=should_stop
        )
        last_rate, model, reason, lost = config.learning_rate * rate(end - 1), None, trunk_dead, None
        try:
            if not trunk_dead:
                advance(trunk, start, trunk_rate, "trunk")
        except Diverged as error:
            reason = trunk_dead = f"the trunk diverged: {error}"
        if not trunk_dead:
            branch = State(config, Scheme.parse(way.scheme), device)
            branch.load(trunk.step, trunk.tensors())
            try:
                advance(branch, end, rate, name)
                branch.stored.read()
                model, lost = branch.model, branch.stored.lost
            except Diverged as error:
                reason = f"the cooldown diverged: {error}"
        yield End(way, end, last_rate, model, reason, time.perf_counter() - began, lost)
        shutil.rmtree(folder / name, ignore_errors=True)


def _warm_cooldown(step: int, start: int, end: int, warmup: int) -> float:
    """The cooldown, which must not jump to the peak when it begins within the warm-up."""
    return schedule.constant(step, warmup) * schedule.cooldown(step, start, end)


def _advance(
    state: State,
    target: int,
    rate: Callable[[int], float],
    name: str,
    *,
    corpus: Corpus,
    folder: Path,
    on_tokens: Callable[[int], None],
    should_stop: Callable[[], bool],
) -> None:
    """Train one segment up to a step, from its newest checkpoint if there is a later one than the state."""
    config = state.config
    run = f"{config.trunk_id()}/{name}"
    place = folder / name
    saved = checkpoint.load(place, run, at_most=target)
    if saved is not None and saved[0] > state.step:
        on_tokens((saved[0] - state.step) * config.batch_size * config.seq_len)
        state.load(*saved)
    clock = time.monotonic()
    while state.step < target:
        tokens_BT, targets_BT = batch(corpus, config.seed, state.step, config.batch_size, config.seq_len)
        state.update(tokens_BT, targets_BT, config.learning_rate * rate(state.step))
        on_tokens(config.batch_size * config.seq_len)
        stop = should_stop()
        if (
            stop
            or time.monotonic() - clock > CHECKPOINT_SECONDS
            or (state.step == target and name == "trunk")
        ):
            checkpoint.save(place, run, state.step, state.tensors())
            clock = time.monotonic()
        if stop:
            raise Interrupted
