"""Tokens a CPU second of the trainer, beside plain eager code of the same shape and beside ensembles in one batch.

    python benchmarks/throughput.py                       # a quarter of an hour on one core
    python benchmarks/throughput.py --sizes 3e4,2.2e5

A step is forward, backward, clipping and AdamW on 8 x 128 tokens, a sweep's default. The plain code computes the
same function as ours, written as the short training scripts have it: norms and rotations spelled out, projections one
by one, AdamW not fused. The ways take turns in every round; a ratio is the middle one over rounds of the plain way's
time over a way's of the same round. An ensemble is four models of one shape whose weights are stacked; its time is
that of one of them. The share of the peak is of FLOPs of matrix products a second, over those of a product of two
1024 x 1024 matrices.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitlaw.lab.model import Transformer
from bitlaw.lab.model.transformer import rotary, rotate
from bitlaw.lab.train import TrunkConfig, World
from bitlaw.lab.train.loop import State
from bitlaw.shapes import Shape, ladder_shape

BATCH, LENGTH, RATE, MODELS = 8, 128, 1e-3, 4
Step = Callable[[Tensor, Tensor], None]


class PlainNorm(nn.Module):
    """RMSNorm as it is written in papers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class PlainBlock(nn.Module):
    """Attention and SwiGLU with a projection for each of q, k, v, gate and up."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        c, f = shape.width, shape.ffn
        self.heads = shape.heads
        self.q, self.k, self.v, self.out = (nn.Linear(c, c, bias=False) for _ in range(4))
        self.gate, self.up, self.down = (nn.Linear(*io, bias=False) for io in ((c, f), (c, f), (f, c)))
        self.norms = nn.ModuleList(PlainNorm(width) for width in (c, c, c, f))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Update the residual stream."""
        b, t, c = x.shape
        y = self.norms[0](x)
        q, k, v = (
            p(y).view(b, t, self.heads, c // self.heads).transpose(1, 2) for p in (self.q, self.k, self.v)
        )
        q, k = (z * cos + torch.cat([-z.chunk(2, -1)[1], z.chunk(2, -1)[0]], -1) * sin for z in (q, k))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).contiguous().view(b, t, c)
        x = x + self.out(self.norms[1](y))
        y = self.norms[2](x)
        return x + self.down(self.norms[3](F.silu(self.gate(y)) * self.up(y)))


class Plain(nn.Module):
    """The same function as `Transformer`, in plain code."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocab, shape.width)
        self.blocks = nn.ModuleList(PlainBlock(shape) for _ in range(shape.depth))
        self.norm, self.head = PlainNorm(shape.width), nn.Linear(shape.width, shape.vocab, bias=False)
        width = shape.width // shape.heads
        angle = torch.arange(LENGTH)[:, None] * 10_000.0 ** (-torch.arange(0, width, 2) / width)
        self.register_buffer("cos", angle.cos().repeat(1, 2))
        self.register_buffer("sin", angle.sin().repeat(1, 2))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits."""
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return self.head(self.norm(x))

    @torch.no_grad()
    def take(self, model: Transformer) -> Plain:
        """Take the weights of ours."""
        self.embedding.weight.copy_(model.embedding.weight)
        self.head.weight.copy_(model.head.weight)
        for mine, theirs in zip(self.blocks, model.blocks, strict=True):
            for part, weight in zip(
                (mine.q, mine.k, mine.v), theirs.attention.qkv.weight.chunk(3), strict=True
            ):
                part.weight.copy_(weight)
            for part, weight in zip((mine.gate, mine.up), theirs.mlp.gate_up.weight.chunk(2), strict=True):
                part.weight.copy_(weight)
            mine.out.weight.copy_(theirs.attention.out.weight)
            mine.down.weight.copy_(theirs.mlp.down.weight)
        return self


def plain(shape: Shape) -> Step:
    """Steps of plain code."""
    model = Plain(shape).take(Transformer(shape, 0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)

    def step(x: Tensor, y: Tensor) -> None:
        loss = F.cross_entropy(model(x).view(-1, shape.vocab), y.view(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    step.model = model  # type: ignore[attr-defined]
    return step


def ours(shape: Shape, compiled: bool) -> Step:
    """Steps of the trainer."""
    config = TrunkConfig(
        shape=shape,
        scheme="16",
        seed=0,
        corpus_sha256="",
        budgets=(10**6,),
        batch_size=BATCH,
        seq_len=LENGTH,
        learning_rate=RATE,
        warmup_steps=0,
        eval_tokens=1,
        compile=compiled,
    )
    state = State(config, config.parts(), World())
    return lambda x, y: state.update(x, y, RATE)


class Ensemble(nn.Module):
    """Some models of one shape: every weight has their number before it, every product is of a batch of matrices."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        states = [Transformer(shape, seed).state_dict() for seed in range(MODELS)]
        names = {name: name.replace(".", "_") for name in states[0]}
        self.names = names
        for name, own in names.items():
            self.register_parameter(own, nn.Parameter(torch.stack([state[name] for state in states])))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (models, batch, time, vocabulary) of tokens (models, batch, time)."""
        s, (m, b, t) = self.shape, tokens.shape

        def weight(name: str) -> Tensor:
            return getattr(self, self.names[f"{name}.weight"])

        def linear(x: Tensor, name: str) -> Tensor:
            return torch.bmm(x, weight(name).transpose(1, 2))

        def norm(x: Tensor, name: str) -> Tensor:
            return F.rms_norm(x, x.shape[-1:], eps=1e-6) * weight(name)[:, None]

        turn = rotary(torch.arange(t, device=tokens.device), s.width // s.heads)
        rows = torch.arange(m)[:, None, None] * s.vocab + tokens
        x = F.embedding(rows, weight("embedding").flatten(0, 1)).flatten(1, 2)
        for k in range(s.depth):
            at, mlp = f"blocks.{k}.attention", f"blocks.{k}.mlp"
            qkv = linear(norm(x, f"{at}.norm"), f"{at}.qkv").view(m * b, t, 3, s.heads, s.width // s.heads)
            q, key, v = qkv.permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(rotate(q, turn), rotate(key, turn), v, is_causal=True)
            y = y.transpose(1, 2).reshape(m, b * t, s.width)
            x = x + linear(norm(y, f"{at}.out_norm"), f"{at}.out")
            gate, up = linear(norm(x, f"{mlp}.norm"), f"{mlp}.gate_up").chunk(2, dim=-1)
            x = x + linear(norm(F.silu(gate) * up, f"{mlp}.down_norm"), f"{mlp}.down")
        return linear(norm(x, "norm"), "head").view(m, b, t, s.vocab)


def ensemble(shape: Shape, compiled: bool) -> Step:
    """Steps of an ensemble, each model on a batch of its own, without clipping."""
    model = Ensemble(shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x).flatten(0, -2), y.flatten()) * MODELS

    run = torch.compile(loss, dynamic=False) if compiled else loss

    def step(x: Tensor, y: Tensor) -> None:
        run(model, x.expand(MODELS, -1, -1), y.expand(MODELS, -1, -1)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step.model = model  # type: ignore[attr-defined]
    return step


def peak() -> float:
    """FLOP a CPU second of a large product."""
    a, best = torch.randn(1024, 1024), float("inf")
    for _ in range(20):
        began = time.process_time()
        a @ a
        best = min(best, time.process_time() - began)
    return 2 * 1024**3 / best


def main() -> None:
    """Print a table for each size."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--sizes", default="3e4,6e4,1.1e5,2.2e5,1e6,3e6,1e7")
    arguments.add_argument("--rounds", type=int, default=15)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    top = peak()
    print(f"a product of 1024 x 1024 matrices: {top / 1e9:.1f} GFLOP a CPU second")
    for size in map(float, given.sizes.split(",")):
        shape = ladder_shape(size)
        x, y = torch.randint(0, 256, (2, BATCH, LENGTH), generator=torch.Generator().manual_seed(0))
        ways: dict[str, Step] = {"plain": plain(shape)}
        torch.testing.assert_close(Transformer(shape, 0)(x), ways["plain"].model(x))  # type: ignore[attr-defined]
        torch.compiler.reset()
        ways |= {"ours": ours(shape, False), "ours, compiled": ours(shape, True)}
        per = dict.fromkeys(ways, 1)
        if size < 1e6:
            ways |= {f"{MODELS} at once": ensemble(shape, False)}
            first = ways[f"{MODELS} at once"].model(x.expand(MODELS, -1, -1))[0]  # type: ignore[attr-defined]
            torch.testing.assert_close(first, Transformer(shape, 0)(x))
            ways |= {f"{MODELS} at once, compiled": ensemble(shape, True)}
            per |= {name: MODELS for name in ways if name not in per}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        began = time.perf_counter()
        for step in ways.values():
            step(x, y)
            step(x, y)
        print(
            f"\n{shape.counts().non_embedding:,} parameters; first steps {time.perf_counter() - began:.0f} s"
        )
        count = max(1, round(5e5 / size))
        for _ in range(given.rounds):
            for name, step in ways.items():
                began = time.process_time()
                for _ in range(count):
                    step(x, y)
                seconds[name].append((time.process_time() - began) / count / per[name])
        flops = shape.flops_per_token(LENGTH) * BATCH * LENGTH
        for name, took in seconds.items():
            ratios = [a / b for a, b in zip(seconds["plain"], took, strict=True)]
            middle = statistics.median(took)
            print(
                f"  {name:22} {BATCH * LENGTH / middle:9,.0f} tokens a CPU s, {flops / middle / top:4.0%} of the peak, "
                f"{statistics.median(ratios):5.2f} x plain ({min(ratios):.2f} to {max(ratios):.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
