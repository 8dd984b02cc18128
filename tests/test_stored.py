"""Weights without a float master copy: bytes, chances, what rounding loses, and a transformer that trains so."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bitlaw import ConfigError, Scheme, parse_format
from bitlaw.formats import Recipe
from bitlaw.formats.packing import pack
from bitlaw.lab.corpus import read_corpus, spread_windows
from bitlaw.lab.model import Transformer
from bitlaw.lab.precision import StoredTensor, StoredWeights, apply_scheme
from bitlaw.lab.precision.learned import round_by_step
from bitlaw.lab.precision.stored import stored
from bitlaw.lab.quantize import logits, token_losses
from bitlaw.lab.sweep.rows import trained_row
from bitlaw.lab.train import TrunkConfig, World, train_trunk
from bitlaw.lab.train.loop import State
from bitlaw.shapes import Shape

torch.set_num_threads(1)
SCHEME = "w=int8 stored stochastic, emb=int4 stored, head=int3 tensor stored stochastic"


def held(values, name="int4", step=0.1, rounding="nearest"):
    values = torch.as_tensor(values, dtype=torch.float32)
    return StoredTensor(values, parse_format(name), torch.full((len(values), 1), step), rounding)


# ---- bytes


@pytest.mark.parametrize("name", ["int8", "int4", "int2", "midrise4", "midrise1"])
def test_codes_are_those_of_a_packed_checkpoint(name):
    fmt = parse_format(name)
    values = torch.from_numpy(np.random.default_rng(0).choice(fmt.values(), (5, 16))).float()
    table = StoredTensor(values * 0.5, fmt, torch.tensor([[0.5]]))
    assert table.codes.dtype == torch.uint8
    assert np.array_equal(table.codes.numpy().ravel(), pack((values - fmt.low).int().numpy(), fmt))
    assert torch.equal(table.read(), values * 0.5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("int8 stored", 7 * 13 + 28),
        ("int4 stored", 7 * 7 + 28),
        ("int3 stored", 7 * 7 + 28),
        ("int2 tensor stored", 7 * 4 + 4),
        ("ternary tensor stored", 7 * 4 + 4),
    ],
)
def test_a_weight_takes_the_bytes_its_recipe_says(text, expected):
    recipe = Recipe.parse(text, "channel")
    weight = torch.randn(7, 13)
    table = stored(weight, recipe)
    assert table.bytes == recipe.stored_bytes((7, 13)) == expected
    in_store = sum(b.untyped_storage().nbytes() for name, b in table.named_buffers() if name != "updates")
    assert in_store == expected


# ---- rounding


@pytest.mark.parametrize("x", [-0.73, 0.02, 0.5, 3.25, 6.999])
def test_rounding_by_chance_is_right_on_the_mean(x):
    n = 100_000
    table = held(torch.zeros(1, n), step=0.25, rounding="stochastic")
    table.write(torch.full((1, n), x * 0.25), chance=torch.Generator().manual_seed(1))
    found = table.read() / 0.25
    share = x - math.floor(x)
    assert set(found.unique().tolist()) == {math.floor(x), math.floor(x) + 1}
    assert abs(found.mean().item() - x) < 4.5 * math.sqrt(share * (1 - share) / n)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_what_lies_beyond_the_range_goes_to_its_ends(rounding, bits):
    table = held(torch.zeros(2, 6), f"int{bits}", 0.5, rounding)
    table.write(
        torch.tensor([-1e9, -(2.0 ** (bits - 1)), 2.0 ** (bits - 1), 1e9, -1e30, 1e30]).expand(2, 6) / 2
    )
    low, high = -(2 ** (bits - 1)) / 2, (2 ** (bits - 1) - 1) / 2
    assert table.read().tolist() == [[low, low, high, high, low, high]] * 2


def test_nearest_is_the_papers_floor():
    x = np.random.default_rng(0).uniform(-12, 12, (1, 5000)).astype(np.float32)
    table = held(np.zeros((1, 5000)), step=1.0)
    table.write(torch.from_numpy(x))
    assert np.array_equal(table.read().numpy(), np.floor(np.clip(x, -8, 7) + 0.5))


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 8), st.floats(2.0**-20, 2.0**20, width=32), st.integers(0, 2**32))
def test_numbers_on_the_grid_never_move(bits, step, seed):
    fmt = parse_format(f"int{bits}")
    table = StoredTensor(
        torch.from_numpy(fmt.values())[None].float() * step, fmt, torch.tensor([[step]]), "stochastic"
    )
    before = table.codes.clone()
    for _ in range(3):
        assert table.write(table.read(), chance=torch.Generator().manual_seed(seed)) == 0
    assert torch.equal(table.codes, before)
    assert table.updates.tolist() == [0, 0]


def test_rows_are_written_alone_and_draws_are_the_generators():
    values = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)) * 0.3
    rows = torch.tensor([4, 1])
    results = []
    for seed in (7, 7, 8):
        table = held(values, rounding="stochastic")
        before = table.codes.clone()
        table.write(values[rows] + 0.03, rows, chance=torch.Generator().manual_seed(seed))
        assert torch.equal(table.codes[[0, 2, 3, 5]], before[[0, 2, 3, 5]])
        results.append(table.codes)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_a_new_step_is_what_codes_are_then_counted_in():
    table = held([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]])
    table.write(torch.tensor([[0.1, 0.2, 0.3]]), torch.tensor([1]), step=torch.tensor([[0.05]]))
    assert torch.allclose(table.read(), torch.tensor([[0.1, 0.2, 0.3]] * 2))
    assert table.step.flatten().tolist() == pytest.approx([0.1, 0.05])


def test_gradients_of_a_step_against_finite_differences_of_their_surrogate():
    """Section 3 of ALPT: the low end of the grid below it, the high one above, R(x) - x within."""
    torch.manual_seed(0)
    grid = parse_format("int3")
    w = torch.randn(4, 9, dtype=torch.float64)
    outward = torch.randn(4, 9, dtype=torch.float64)
    step = torch.tensor([[0.2], [0.3], [0.5], [0.9]], dtype=torch.float64, requires_grad=True)
    (round_by_step(w, step, grid, grid.low, 0.25) * outward).sum().backward()
    y = (w / step.detach()).clamp(grid.low, grid.high)
    held_still = (y + 0.5).floor() - y

    def surrogate(s):
        return ((((w / s).clamp(grid.low, grid.high) + held_still) * s) * outward).sum(1)

    numeric = (surrogate(step.detach() + 1e-6) - surrogate(step.detach() - 1e-6)) / 2e-6
    assert torch.allclose(step.grad[:, 0], 0.25 * numeric, atol=1e-6)
    assert (y == grid.low).any() and (y == grid.high).any()


# ---- what rounding to nearest loses, exactly


def descend(rate, curvature, rounding, steps, start=None):
    """Gradient descent on curvature / 2 w^2 from every int8 code, in numbers that floats hold exactly."""
    delta = 2.0**-6
    codes = torch.arange(-128.0, 128.0) if start is None else torch.full((start[1],), float(start[0]))
    table = held(codes[None] * delta, "int8", delta, rounding)
    chance = torch.Generator().manual_seed(0)
    for _ in range(steps):
        w = table.read()
        table.write(w - rate * curvature * w, chance=chance)
    return codes, table.read()[0] / delta, table


@pytest.mark.parametrize(
    ("rate", "curvature"), [(2.0**-3, 1.0), (2.0**-4, 1.0), (2.0**-4, 0.5), (2.0**-6, 2.0)]
)
def test_rounding_to_nearest_stalls_at_half_a_step_over_rate_and_curvature(rate, curvature):
    radius = 1 / (2 * rate * curvature)  # Delta / (2 eta H), in steps
    first, last, table = descend(rate, curvature, "nearest", 600)
    inside = first.abs() < radius
    assert torch.equal(last[inside], first[inside])  # |eta g| < Delta / 2: every update is discarded
    assert torch.equal(last[~inside].abs(), torch.full_like(last[~inside], radius))  # and outside none was
    table.updates.zero_()
    w = table.read()
    assert table.write(w - rate * curvature * w) == 1.0


@pytest.mark.parametrize("rate", [2.0**-5, 2.0**-7])
def test_rounding_by_chance_goes_down_as_without_rounding(rate):
    """On the mean w_T = (1 - eta)^T w_0 holds as it does for floats, where nearest stays at 16 and at 64 steps."""
    steps = round(4 / rate)
    _, last, _ = descend(rate, 1.0, "stochastic", steps, start=(100, 4000))
    expected = 100 * (1 - rate) ** steps
    assert expected < 2
    assert abs(last.mean() - expected) < 4.5 * last.std() / 4000**0.5
    _, stuck, _ = descend(rate, 1.0, "nearest", steps, start=(100, 1))
    assert stuck.item() == 1 / (2 * rate)


# ---- a transformer


@pytest.fixture(scope="module")
def corpus():
    return read_corpus(None)


def config(corpus, **changes):
    base = {
        "shape": Shape(width=16, depth=1, heads=1, ffn=24),
        "scheme": SCHEME,
        "seed": 5,
        "corpus_sha256": corpus.sha256,
        "budgets": (20 * 256,),
        "batch_size": 4,
        "seq_len": 64,
        "learning_rate": 0.02,
        "warmup_steps": 4,
        "eval_tokens": 4096,
    }
    return TrunkConfig(**{**base, **changes})


def test_between_steps_only_codes_and_steps_exist(corpus):
    state = State(config(corpus), config(corpus).parts(), World())
    names = {"embedding.weight", "head.weight"} | {
        f"blocks.0.{part}.weight" for part in ("attention.qkv", "attention.out", "mlp.gate_up", "mlp.down")
    }
    tokens = torch.randint(0, 256, (4, 65), generator=torch.Generator().manual_seed(0))
    seen = []
    for _ in range(4):
        empty = {name for name, p in state.named.items() if p.untyped_storage().nbytes() == 0}
        assert empty == names
        kept = {
            name for name, t in state.tensors().items() if name.startswith("model.") and t.is_floating_point()
        }
        assert not {f"model.{name}" for name in names} & kept
        state.update(tokens[:, :-1], tokens[:, 1:], 0.02)
        seen.append(state.model.head.stored.codes.clone())
    assert not torch.equal(seen[0], seen[-1])
    state.stored.read()
    for parameter, table in state.stored.pairs:
        places = parameter / table.step
        assert torch.allclose(places, places.round(), atol=1e-4)
        assert places.min() > table.grid.low - 0.1 and places.max() < table.grid.high + 0.1


def test_an_update_is_adams_written_back(corpus):
    """One step of the loop against AdamW on an ordinary copy of the same model, then rounded in NumPy."""
    cfg = config(corpus, scheme="w=int4 stored, emb=int4 stored", weight_decay=0.1)
    state = State(cfg, cfg.parts(), World())
    plain = Transformer(cfg.shape, cfg.seed)
    apply_scheme(plain, cfg.parts())
    steps = {id(p): held_.step.clone() for p, held_ in StoredWeights(plain).pairs}
    tokens = torch.randint(0, 256, (4, 65), generator=torch.Generator().manual_seed(0))
    state.update(tokens[:, :-1], tokens[:, 1:], 0.05)
    state.stored.read()
    F.cross_entropy(plain(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()
    nn.utils.clip_grad_norm_(plain.parameters(), cfg.clip)
    for name, p in plain.named_parameters():
        decay = 0.1 if p.ndim == 2 and not name.startswith("embedding") else 0
        w = p.detach() * (1 - 0.05 * decay) - 0.05 * p.grad / (p.grad.abs() + 1e-15)
        if id(p) in steps:
            step = steps[id(p)].numpy()
            w = torch.from_numpy(np.clip(np.rint(w.numpy() / step), -8, 7) * step)
        assert torch.allclose(state.named[name], w, atol=1e-5), name


@pytest.mark.slow
def test_eight_bits_by_chance_come_close_to_a_master_copy(corpus, tmp_path):
    """One seed, 400 steps of a tiny model; docs/log.md has more."""
    text = spread_windows(corpus.evaluation, 8192, 64)
    shape = Shape(width=32, depth=2, heads=2, ffn=80)
    loss, lost = {}, {}
    for scheme in ("w8", "w=int8 stored stochastic"):
        cfg = config(
            corpus, shape=shape, scheme=scheme, budgets=(400 * 512,), batch_size=8, learning_rate=0.008
        )
        (end,) = train_trunk(cfg, corpus, tmp_path / scheme)
        loss[scheme] = token_losses(logits(end.model, text), text).mean().item()
        lost[scheme] = end.lost_updates
    assert loss["w=int8 stored stochastic"] - loss["w8"] < 0.1
    assert lost["w8"] is None and 0 < lost["w=int8 stored stochastic"] < 1


def test_rows_say_how_weights_were_stored_and_what_was_lost(corpus, tmp_path):
    (end,) = train_trunk(config(corpus), corpus, tmp_path)
    row = trained_row(config(corpus), end, corpus, spread_windows(corpus.evaluation, 4096, 64))
    assert 0 < row["lost_updates"] < 1
    assert (row["w_stored"], row["emb_stored"], row["head_stored"]) == ("stochastic", "nearest", "stochastic")
    assert row["w_format"] == "int8" and row["w_granularity"] == "channel"
    (end,) = train_trunk(config(corpus, scheme="w8"), corpus, tmp_path / "b")
    row = trained_row(config(corpus, scheme="w8"), end, corpus, spread_windows(corpus.evaluation, 4096, 64))
    assert row["lost_updates"] is None and row["w_stored"] is None


# ---- recipes


@pytest.mark.parametrize(
    "text", ["w=int8 stored stochastic", "emb=int4 tensor stored", "head=ternary stored", SCHEME]
)
def test_schemes_of_stored_weights_survive_their_name(text):
    scheme = Scheme.parse(text)
    assert Scheme.parse(scheme.name) == scheme
    assert scheme.quantized and "stored" in scheme.name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("w=int9 stored", "int8 stored"),
        ("w=e4m3 stored", "cannot be stored"),
        ("w=uint4 stored", "cannot be stored"),
        ("w=nvfp4 stored", "cannot be stored"),
        ("w=bf16 stored", "leaves numbers as they are"),
        ("w=int8 group32 stored", "channel or tensor"),
        ("w=int8 rotate stored", "not rotated"),
        ("w=int8 learned stored", "task clicks"),
        ("w=int8 stored stored", "says again"),
        ("a=int8 stored", "w, emb and head"),
        ("kv=int8 stored", "w, emb and head"),
        ("grad_w=int8 stored", "w, emb and head"),
    ],
)
def test_what_cannot_be_stored_is_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        Scheme.parse(text)
