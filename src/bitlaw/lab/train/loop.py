"""One trunk, many budgets.

The trunk trains at a constant rate. At each budget a branch leaves it with a copy of model, optimiser and
averages, cools down, and ends; the trunk goes on from where the branch left. One run so yields several fully
cooled models (Hagele et al. 2024, 2405.18392), some of them in a precision that only their cooldown had.
Batches are a function of the step, so a segment that is killed and resumed is the same segment, bit for bit.
Many processes may train it together: each is in this loop, and takes its parts of every batch.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import LabError
from ...formats import Scheme
from ..corpus import Corpus
from ..model import Transformer
from ..precision import StoredWeights, apply_scheme
from . import checkpoint, distributed, schedule
from .averages import Average, Averages
from .config import Branch, TrunkConfig, derived_seed
from .curve import Curve
from .distributed import ALONE, World, share, whole
from .optimizers import Optimizers
from .speed import batches, compiled, generator, product_type

CHECKPOINT_SECONDS = 20.0
Loss = Callable[[Tensor, Tensor], Tensor]


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
        average: of the weights that this model has, as the config says it; empty for the weights of the last step.
        products: type of the matrix products in training.
        curve: steps, and the mean training loss over those since the point before; of many processes, the first one's
            share of it.
    """

    branch: Branch
    steps: int
    learning_rate: float
    model: Transformer | None
    reason: str
    seconds: float
    lost_updates: float | None = None
    average: str = ""
    products: str = "float32"
    curve: tuple[tuple[int, float], ...] = ()


class State:
    """Model, optimiser, averages and step of one run; everything that a checkpoint holds."""

    def __init__(self, config: TrunkConfig, scheme: Scheme, world: World) -> None:
        self.config, self.scheme, self.world, self.step = config, scheme, world, 0
        self.device, self.generator = world.device, generator(world.device)
        self.model = self.fresh()
        self.model.recompute = config.recompute
        self.spread = world.spread(self.model)
        self.run = compiled(forward) if config.compile else forward
        self.begun = not config.compile and world.size == 1
        self.products = product_type(config, self.device)
        half = self.products == torch.bfloat16
        self.autocast = torch.autocast(self.device.type, self.products, enabled=half)
        self.named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.optimizer = Optimizers(config, self.model, self.named)
        self.stored = StoredWeights(self.model)
        way = Average.parse(config.averages)
        self.averages = Averages(way, self.named, self.stored) if way else None
        self.curve = Curve()
        kept = {name: p for name, p in self.named.items() if all(p is not q for q, _ in self.stored.pairs)}
        self.held = kept | dict(self.model.named_buffers())  # codes and steps stand for stored weights
        self.stored.release()

    def fresh(self) -> Transformer:
        """The model as it begins, in one process."""
        return apply_scheme(self.build(self.config), self.scheme).to(self.device)

    def build(self, config: TrunkConfig) -> Transformer:
        """Return the model before its first step and in full precision; another task has another."""
        return Transformer(config.shape, config.seed, config.residual)

    def loss(self) -> Loss:
        """Return what gives the mean loss of outputs and targets; another task has another."""
        return next_token_loss

    def update(self, tokens_BT: Tensor, targets_BT: Tensor, rate: float) -> None:
        """Make one step of the optimiser.

        Raises:
            Diverged: before the update, if the gradient is not finite.
        """
        tokens_BT, targets_BT = tokens_BT.to(self.device), targets_BT.to(self.device)
        self.stored.read()
        if not self.begun:
            self.begin(tokens_BT, targets_BT)
        self.draw()
        loss = self.backward(tokens_BT, targets_BT)
        norm = whole(torch.nn.utils.clip_grad_norm_(self.named.values(), self.config.clip))
        if not torch.isfinite(norm):
            raise Diverged(f"loss {loss.item():.4g} with gradient norm {norm.item():.4g} at step {self.step}")
        self.optimizer.step(rate)
        self.stored.write()
        self.step += 1
        self.curve.add(self.step, loss.item())
        if self.averages:
            self.averages.update(self.step)

    def draw(self) -> None:
        """Make rounding by chance a function of the step too, so that a run that is resumed is the same run."""
        self.generator.manual_seed(derived_seed(self.config.seed, self.step))

    def begin(self, tokens_BT: Tensor, targets_BT: Tensor) -> None:
        """Do first what neither a compiled step can nor one of many processes.

        Learned steps that are not set yet are set as one process does: by the first part of the batch, whole.
        """
        self.begun = True
        steps = {name: p for name, p in self.named.items() if name.endswith(".step")}
        if self.config.compile or not all(whole(p).any() for p in steps.values()):
            self.draw()
            model = self.alone()
            with torch.no_grad(), self.autocast:
                model(tokens_BT.chunk(self.config.accumulate)[0])
                for name, p in steps.items():
                    p.copy_(share(model.get_parameter(name), p))
        if self.config.compile:  # which draws numbers
            self.backward(tokens_BT, targets_BT)
            self.model.zero_grad(set_to_none=True)

    def backward(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Leave the gradients of the mean loss in the parameters, part of the batch by part.

        Returns:
            The loss of the parts that went through this process.
        """
        parts, world = self.world.parts(self.config.accumulate), self.world
        total = torch.zeros((), device=self.device)
        pairs = list(zip(tokens_BT.chunk(parts), targets_BT.chunk(parts), strict=True))
        for some_BT, some_targets_BT in pairs[world.rank :: world.size]:
            with self.autocast:
                loss = self.run(self.spread, some_BT, some_targets_BT, self.loss()) / parts
            loss.backward()
            total += loss.detach() * world.size
        if world.size > 1:  # their mean is there, and their sum is meant
            torch._foreach_mul_([p.grad for p in self.named.values()], world.size)
        return total

    def live(self) -> dict[str, Tensor]:
        """All tensors by name; of those that are spread over processes, the part of this one."""
        out = {f"model.{name}": tensor for name, tensor in self.held.items()} | self.optimizer.tensors()
        if self.averages:
            out |= {f"average.{name}": tensor for name, tensor in self.averages.tensors().items()}
        out["curve"] = self.curve.tensor()
        # In one order in all processes, as they gather them one by one: a file's order is not the same when it is read.
        return {name: out[name].detach() for name in sorted(out)}

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, as whole copies; the first process has them, and all must ask."""
        out = {}
        for name, tensor in self.live().items():
            full = whole(tensor)
            if self.world.first:
                out[name] = full.cpu().clone()
        return out

    @torch.no_grad()
    def load(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Take over a step and its tensors; quantisation steps that it did not have are set at the next one."""
        self.step = step
        for name, tensor in self.held.items():
            if f"model.{name}" not in tensors and name.endswith(".step"):
                tensor.zero_()
            else:
                tensor.copy_(share(tensors[f"model.{name}"], tensor))
        self.optimizer.load(tensors, self.device)
        self.curve.load(tensors.get("curve"))
        for name, tensor in self.averages.tensors().items() if self.averages else ():
            if f"average.{name}" in tensors:  # learned quantisation steps join when a branch begins
                tensor.copy_(share(tensors[f"average.{name}"], tensor))

    @torch.no_grad()
    def alone(self) -> Transformer:
        """The model as one process has it; all processes must ask for it."""
        if self.world.size == 1 or self.world.shard == "ddp":
            return self.model
        model = self.fresh()
        for name, p in model.named_parameters():
            p.copy_(whole(self.named[name]))
        return model

    def ends(self, end: End) -> Iterator[End]:
        """Fill in the end of a branch with the model, and add that of its average; training is over then."""
        self.optimizer.finish()
        self.stored.read()
        model = self.alone()
        end = replace(end, curve=tuple(self.curve.points))
        yield replace(end, model=model, lost_updates=self.stored.lost)
        if self.averages:
            yield replace(end, model=self.averages.model(model), average=self.config.averages, seconds=0.0)


def forward(model: Transformer, tokens_BT: Tensor, targets_BT: Tensor, loss: Loss) -> Tensor:
    """Return the loss of a batch, computed in float32 at least; one function, so that it is compiled once."""
    logits_BTV = model(tokens_BT)
    return loss(logits_BTV.to(torch.promote_types(logits_BTV.dtype, torch.float32)), targets_BT)


def next_token_loss(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """The cross-entropy of the next tokens, in nats."""
    return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())


def train_trunk(
    config: TrunkConfig,
    corpus: Corpus,
    folder: Path,
    done: Collection[Branch] = (),
    on_tokens: Callable[[int], None] = lambda tokens: None,
    should_stop: Callable[[], bool] = lambda: False,
    world: World = ALONE,
    state: Callable[[TrunkConfig, Scheme, World], State] = State,
    keep_ends: bool = False,
) -> Iterator[End]:
    """Train a trunk and yield the end of each branch, in the order in which they leave it.

    Args:
        config: what to train.
        corpus: the text; its hash must be the config's.
        folder: where checkpoints go; an interrupted trunk goes on from them.
        done: branches whose ends are known already.
        on_tokens: told the tokens of every step, for progress.
        should_stop: asked after every step; when true, state is saved and `Interrupted` raised.
        world: the processes that train it, each of which calls this; the folder is one that all of them see.
        keep_ends: whether an end is saved like the trunk is, until the next one is asked for.
        state: makes what is trained; a subclass has another model, or another loss than that of next tokens.

    Raises:
        ConfigError: many processes would not train what one would.
        Interrupted: after `should_stop` said so, in any of the processes.
        LabError: the processes are not at the same.
    """
    distributed.check(config, world)
    if config.compile:
        torch.compiler.reset()  # the graphs of earlier trunks would count against its limit
    trunk_dead = ""
    trunk = state(config, config.parts(), world)
    for way in config.branches():
        if way in done:
            continue
        start, end = config.branch_step(way), config.steps(way.tokens)
        began, name = time.perf_counter(), f"branch-{config.cell_id(way)}"
        advance = partial(
            _advance,
            corpus=corpus,
            folder=folder,
            on_tokens=on_tokens,
            should_stop=should_stop,
            keep_ends=keep_ends,
        )
        rate = partial(schedule.rate, config=config, branch=way)
        reason, branch = trunk_dead, None
        try:
            if not trunk_dead:
                advance(trunk, start, partial(schedule.constant, warmup=config.warmup_steps), "trunk")
        except Diverged as error:
            reason = trunk_dead = f"the trunk diverged: {error}"
        if not trunk_dead:
            branch = state(config, Scheme.parse(way.scheme), world)
            branch.load(trunk.step, trunk.live())
            if branch.averages and way.scheme != config.scheme:
                branch.averages.forget()
            try:
                advance(branch, end, rate, name)
            except Diverged as error:
                reason = f"the cooldown diverged: {error}"
        last_rate, products = config.learning_rate * rate(end - 1), str(trunk.products).removeprefix("torch.")
        arrived = End(way, end, last_rate, None, reason, time.perf_counter() - began, products=products)
        if branch is None or reason:
            yield arrived
            if config.averages != "none":
                yield replace(arrived, average=config.averages, seconds=0.0)
        else:
            yield from branch.ends(arrived)
        if world.first:
            shutil.rmtree(folder / name, ignore_errors=True)


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
    keep_ends: bool,
) -> None:
    """Train one segment up to a step, from its newest checkpoint if there is a later one than the state."""
    config, world = state.config, state.world
    run = f"{config.trunk_id()}/{name}/{state.products}"  # which `auto` chooses on each machine anew
    place = folder / name
    saved = checkpoint.load(place, run, at_most=target)
    if not world.same(saved[0] if saved else -1):
        raise LabError(
            f"the processes find different checkpoints in {place}; use a folder that all of them see"
        )
    if saved is not None and saved[0] > state.step:
        on_tokens((saved[0] - state.step) * config.batch_size * config.seq_len)
        state.load(*saved)
    clock = time.monotonic()
    for tokens_BT, targets_BT in batches(corpus, config, state.step, target, state.device):
        state.update(tokens_BT, targets_BT, config.learning_rate * rate(state.step))
        on_tokens(config.batch_size * config.seq_len)
        old = time.monotonic() - clock > CHECKPOINT_SECONDS
        stop, save = world.agree(
            should_stop(), old or (state.step == target and (keep_ends or name == "trunk"))
        )
        if stop or save:
            tensors = state.tensors()
            if world.first:
                checkpoint.save(place, run, state.step, tensors)
            world.agree(True)  # it is on disk before any process goes on or ends
            clock = time.monotonic()
        if stop:
            raise Interrupted
