"""The trainer: schedules, optimisers, averages, savings; everything that is resumed or branched equals what was not."""

from __future__ import annotations

import hashlib
import math
import platform
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bitlaw.lab.model.transformer
import bitlaw.lab.train.loop
from bitlaw import ConfigError, LabError, Scheme
from bitlaw.lab.corpus import Corpus, Text, batch, spread_windows
from bitlaw.lab.model import Transformer
from bitlaw.lab.precision import StoredWeights
from bitlaw.lab.sweep import After, SweepConfig, trunks
from bitlaw.lab.sweep.rows import row_ids, trained_row
from bitlaw.lab.train import Interrupted, TrunkConfig, World, checkpoint, savings, schedule, train_trunk
from bitlaw.lab.train.averages import Average
from bitlaw.lab.train.loop import State
from bitlaw.lab.train.speed import batches, product_type
from bitlaw.runs import Runs
from bitlaw.shapes import Shape, ladder_shape

torch.set_num_threads(1)
CPU = torch.device("cpu")
STORED = "w=int8 stored stochastic, emb=int4 stored, head=int3 tensor stored stochastic"
SCHEMES = ("16", "w4a8", STORED)


def made_up_text():
    """Words of a made-up language: the same on every machine."""
    draw = np.random.Generator(np.random.Philox(key=[1, 2]))
    words = draw.integers(97, 123, (64, 4), dtype=np.uint8)
    words[:, 3] = 32
    tokens = words[(draw.integers(0, 64, 16_384) * draw.integers(0, 64, 16_384)) // 64].ravel()
    sides = (Text(part, np.zeros(1, np.int64)) for part in (tokens, tokens[:4096], tokens[4096:8192]))
    return Corpus("made up", *sides, "x")


TEXT = made_up_text()


def config(**changes):
    base = {
        "shape": Shape(width=32, depth=2, heads=2, ffn=40),
        "scheme": "16",
        "seed": 5,
        "corpus_sha256": "x",
        "budgets": (10 * 256, 20 * 256),
        "batch_size": 4,
        "seq_len": 64,
        "learning_rate": 0.01,
        "warmup_steps": 4,
        "eval_tokens": 4096,
    }
    return TrunkConfig(**{**base, **changes})


def small(**changes):
    return config(**{"shape": Shape(width=16, depth=1, heads=1, ffn=24), **changes})


def digest(tensors):
    data = b"".join(t.detach().contiguous().numpy().tobytes() for _, t in sorted(tensors.items()))
    return hashlib.sha256(data).hexdigest()


def of_model(model):
    return digest(dict(model.named_parameters()) | dict(model.named_buffers()))


def train(state, first, last, rate=lambda step: 1.0):
    for step in range(first, last):
        tokens, targets = batch(TEXT, state.config.seed, step, state.config.batch_size, state.config.seq_len)
        state.update(tokens, targets, state.config.learning_rate * rate(step))
    return state


def fresh(cfg):
    return State(cfg, cfg.parts(), World())


# ---- what was trained before is trained again

#: Recorded before there was a choice of anything (commit f9fe140), but for stored weights, whose rounding by chance has
#: a seed's own numbers since; digests with torch 2.13 on an EPYC of the fourth generation, with AVX-512.
RECORDED = {
    "16 2560 0.2": ("b905b94e58242135", "e1cc8894c17b0c96", 3.189021),
    "16 5120 0.2": ("f322b12d2df1244e", "d8d1a6a8dfd5a098", 2.586074),
    "w4a8 2560 0.2": ("7e08b4d05c540e2b", "d8a8f1e804c0455c", 3.184506),
    "w4a8 5120 0.2": ("ab4bd1d9147cd7d6", "b499c28b88b5ebba", 2.588517),
    f"{STORED} 2560 0.2": ("74159e4ecc92a549", "fbee335f840a5389", 3.273039),
    f"{STORED} 5120 0.2": ("5cd40676f6050ac0", "dd4b5048790d3a08", 2.666771),
    "w3 2560 0.5": ("f4b853adb6abebc2", "58ece42a9ddac403", 3.603396),
    "w3 5120 0.5": ("b27bb8da5983ad7a", "34d9e2ff950b44e1", 2.779331),
    "cosine": ("3d839a17a2ec0f63", "399027afab26bbc0", 2.798484),
}
#: What the fifth generation, which has AVX-VNNI, makes otherwise: it rounds some weights by chance to the other side.
FIFTH = {
    f"{STORED} 2560 0.2": ("74159e4ecc92a549", "427a255d9aa26480", 3.273024),
    f"{STORED} 5120 0.2": ("5cd40676f6050ac0", "23687548e60297b1", 2.666876),
}


def processor():
    return Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else platform.processor()


def same_machine():
    """Whether floats are computed by the kernels that the digests were recorded with."""
    kernels = (torch.__version__, torch.backends.cpu.get_cpu_capability())
    return kernels == ("2.13.0+cpu", "AVX512") and "AMD EPYC" in processor() and "avx512_bf16" in processor()


@pytest.mark.parametrize(
    "changes",
    [
        {"late": (("w3", 0.5),)},
        {"scheme": "w4a8"},
        {"scheme": STORED},
        {"schedule": "cosine", "budgets": (5120,)},
    ],
)
def test_defaults_give_the_rows_that_they_gave_before(changes, tmp_path):
    cfg, probe = config(**changes), torch.from_numpy(TEXT.train.tokens[:1025].astype(np.int64))
    for end in train_trunk(cfg, TEXT, tmp_path):
        way = end.branch
        key = "cosine" if cfg.schedule == "cosine" else f"{way.scheme} {way.tokens} {way.cooldown}"
        cell, sha, loss = (RECORDED | FIFTH if "avx_vnni" in processor() else RECORDED)[key]
        found = F.cross_entropy(end.model(probe[None, :-1])[0], probe[1:]).item()
        assert cfg.cell_id(way) == cell
        assert found == pytest.approx(loss, abs=2e-6 if same_machine() else 0.05)
        if same_machine():
            assert of_model(end.model)[:16] == sha


# ---- schedules

PAPER = {  # Hagele et al. 2024, written again in NumPy
    "1-sqrt": lambda x: 1 - np.sqrt(x),
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + np.cos(np.pi * x)) / 2,
    "mirror-cosine": lambda x: 2 * (1 - x) - (1 + np.cos(np.pi * x)) / 2,
    "square": lambda x: 1 - x**2,
    "exponential": lambda x: np.exp(np.log(0.05) * x),
}


@pytest.mark.parametrize("shape", PAPER)
@pytest.mark.parametrize("floor", [0.0, 0.05])
def test_every_shape_is_the_papers_and_falls_without_a_jump(shape, floor):
    if shape == "exponential" and not floor:
        pytest.skip("it has no floor of zero")
    cfg = config(
        cooldown=0.4, cooldown_shape=shape, floor=floor or None, budgets=(1000 * 256,), warmup_steps=100
    )
    rates = np.array([schedule.rate(step, cfg, cfg.branches()[0]) for step in range(1000)])
    x = np.arange(400) / 400
    falling = PAPER[shape](x) if shape == "exponential" else floor + (1 - floor) * PAPER[shape](x)
    assert np.allclose(rates[600:], falling, atol=1e-12)
    assert np.array_equal(rates[:600], np.minimum(1, np.arange(1, 601) / 101))
    assert (np.diff(rates[600:]) <= 0).all() and rates[600] == 1
    assert np.abs(np.diff(rates[600:])).max() < 0.06  # a square root is steep at first
    assert rates[-1] == pytest.approx(floor, abs=0.01)


def test_the_floor_of_a_cosine_is_a_tenth_unless_said():
    for floor, last in ((None, 0.1), (0.0, 0.0), (0.3, 0.3)):
        cfg = config(schedule="cosine", floor=floor, budgets=(2000 * 256,))
        assert schedule.rate(1999, cfg, cfg.branches()[0]) == pytest.approx(last, abs=1e-5)


def test_without_a_cooldown_an_end_is_the_trunk(tmp_path):
    cfg = small(cooldown=0.0, budgets=(6 * 256,))
    (end,) = train_trunk(cfg, TEXT, tmp_path)
    straight = train(fresh(cfg), 0, 6, lambda step: min(1, (step + 1) / 5))
    assert of_model(end.model) == of_model(straight.model)
    assert end.learning_rate == cfg.learning_rate


# ---- optimisers


def test_schedule_free_is_the_published_equations():
    """Defazio et al. 2024 (2405.15682), algorithm 1 in float64: y = (1 - b) z + b x; z steps, x averages."""
    cfg = small(optimizer="schedule-free", cooldown=0.0, beta1=0.95, beta2=0.99, clip=1e9)
    state = train(fresh(cfg), 0, 5, lambda step: min(1, (step + 1) / 3))
    state.optimizer.finish()
    model = Transformer(cfg.shape, cfg.seed).double()
    x = {n: p.detach().clone() for n, p in model.named_parameters()}
    z, v, total = {n: t.clone() for n, t in x.items()}, {n: torch.zeros_like(t) for n, t in x.items()}, 0.0
    for step in range(5):
        for name, p in model.named_parameters():
            p.data = 0.05 * z[name] + 0.95 * x[name]
        model.zero_grad()
        tokens, targets = batch(TEXT, cfg.seed, step, 4, 64)
        F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten()).backward()
        rate = 0.01 * min(1, (step + 1) / 3)
        total += rate**2
        for name, p in model.named_parameters():
            v[name] = 0.99 * v[name] + 0.01 * p.grad**2
            change = p.grad / ((v[name] / (1 - 0.99 ** (step + 1))).sqrt() + 1e-15)
            decay = 0.1 if p.ndim == 2 and name != "embedding.weight" else 0.0
            z[name] = z[name] - rate * (change + decay * p.detach())
            x[name] = (1 - rate**2 / total) * x[name] + rate**2 / total * z[name]
    for name, p in state.named.items():
        moved = (x[name] - Transformer(cfg.shape, cfg.seed).get_parameter(name)).norm()
        assert (p - x[name]).norm() < 2e-3 * moved, name


def test_muon_turns_the_gradient_of_a_block_into_an_orthogonal_matrix():
    cfg = small(optimizer="muon", weight_decay=0.0)
    state, before = fresh(cfg), Transformer(cfg.shape, cfg.seed)
    train(state, 0, 1)
    tokens, targets = batch(TEXT, cfg.seed, 0, 4, 64)
    F.cross_entropy(before(tokens).flatten(0, 1), targets.flatten()).backward()
    muon = {n for n in state.optimizer.tensors() if n.startswith("muon.momentum_buffer.")}
    assert {n.removeprefix("muon.momentum_buffer.") for n in muon} == {
        f"blocks.0.{p}.weight" for p in ("attention.qkv", "attention.out", "mlp.gate_up", "mlp.down")
    }
    for name in (n.removeprefix("muon.momentum_buffer.") for n in muon):
        p = before.get_parameter(name)
        update = (p - state.named[name]) / (0.01 * 0.2 * math.sqrt(max(p.shape)))
        left, values, right = torch.linalg.svd(p.grad, full_matrices=False)
        inner = left.T @ update.detach() @ right.T
        strong = values > 0.1 * values[0]  # Newton-Schulz leaves the weakest directions behind
        assert ((inner.diagonal()[strong] > 0.5) & (inner.diagonal()[strong] < 1.4)).all(), name
        assert (inner - inner.diagonal().diag()).abs().max() < 0.1, name
    assert torch.allclose(
        before.norm.weight - state.named["norm.weight"], 0.01 * before.norm.weight.grad.sign()
    )


def test_an_old_torch_or_a_missing_package_is_said(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(LabError, match=r"2\.9"):
        fresh(small(optimizer="muon"))
    monkeypatch.setitem(sys.modules, "schedulefree", None)
    with pytest.raises(LabError, match="pip install"):
        fresh(small(optimizer="schedule-free", cooldown=0.0))


WAYS = [
    *(
        {"scheme": scheme, "optimizer": name, "averages": "swa:6:2"}
        for scheme in SCHEMES
        for name in ("adamw", "muon")
    ),
    *({"scheme": scheme, "optimizer": "schedule-free", "cooldown": 0.0} for scheme in SCHEMES[:2]),
    {"scheme": "w=int4 learned, a=int6 learned", "optimizer": "muon", "averages": "ema:0.8"},
]


@pytest.mark.parametrize("changes", WAYS, ids=lambda c: f"{c['optimizer']} {c['scheme']}")
def test_a_state_that_was_stopped_at_random_steps_has_the_same_tensors(changes, tmp_path):
    cfg = small(**changes)
    straight = train(fresh(cfg), 0, 16).tensors()
    stops = np.random.default_rng(len(str(changes))).choice(np.arange(1, 16), 3, replace=False)
    first = 0
    for stop in sorted(stops):
        state = fresh(cfg)
        if first:
            state.load(*checkpoint.load(tmp_path, "run", at_most=99))
        checkpoint.save(tmp_path, "run", int(stop), train(state, first, stop).tensors())
        first = int(stop)
    state = fresh(cfg)
    state.load(*checkpoint.load(tmp_path, "run", at_most=99))
    assert {n: digest({n: t}) for n, t in train(state, first, 16).tensors().items()} == {
        n: digest({n: t}) for n, t in straight.items()
    }


@pytest.mark.parametrize("changes", WAYS, ids=lambda c: f"{c['optimizer']} {c['scheme']}")
def test_trunks_are_resumed_and_branches_are_the_same_schedule_in_one_go(changes, tmp_path):
    cfg = small(**changes, budgets=(8 * 256, 16 * 256), cooldown_shape="linear", floor=0.1)
    seen, stops, ends = 0, set(np.random.default_rng(1).choice(np.arange(1, 20), 4, replace=False)), {}

    def stop():
        nonlocal seen
        seen += 1
        return seen in stops

    while True:
        try:
            done = {branch for branch, _ in ends}
            for end in train_trunk(cfg, TEXT, tmp_path, done, should_stop=stop):
                ends[end.branch, end.average] = of_model(end.model)
            break
        except Interrupted:
            pass
    for way in cfg.branches():
        steps, start = cfg.steps(way.tokens), cfg.branch_step(way)

        def rate(step, steps=steps, start=start):
            falling = 0.1 + 0.9 * (1 - (step - start) / (steps - start)) if step >= start else 1.0
            return min(1, (step + 1) / 5) * falling

        state = train(fresh(cfg), 0, steps, rate)
        if state.averages:
            state.stored.read()
            assert ends.pop((way, cfg.averages)) == of_model(state.averages.model(state.model))
        state.optimizer.finish()
        state.stored.read()
        assert ends.pop((way, "")) == of_model(state.model)
    assert not ends


def test_damaged_checkpoints_are_passed_over_and_push_nothing_out(tmp_path, caplog):
    """Two later ones are damaged: what is saved before their steps stays, and takes their place when it gets there."""
    tensors = {"a": torch.arange(6.0)}
    for step in (10, 20):
        checkpoint.save(tmp_path, "run", step, tensors)
        (tmp_path / f"step-{step:09d}" / "state.safetensors").write_bytes(b"")
    assert checkpoint.load(tmp_path, "run", 99) is None
    assert "step-000000010 is damaged" in caplog.text and "beginning at the first step" in caplog.text
    for step in range(1, 21):
        torn = tmp_path / f"step-{step:09d}.tmp-1"  # of a process that was killed
        torn.mkdir()
        checkpoint.save(tmp_path, "run", step, tensors)
        assert checkpoint.load(tmp_path, "run", 99)[0] == step and not torn.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000019", "step-000000020"]


def test_a_checkpoint_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, "run", 1, {"a": torch.arange(6.0)})
    for name in ("_write", "_sync"):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, name, lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
            with pytest.raises(LabError, match="No space"):
                checkpoint.save(tmp_path, "run", 2, {"a": torch.zeros(1)})
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]


# ---- averages


def recorded(cfg, steps):
    """Weights in effect after every step, in float64."""
    state, seen = fresh(cfg), []
    for step in range(steps):
        train(state, step, step + 1)
        state.stored.read()
        seen.append({n: p.detach().double().numpy().copy() for n, p in state.named.items()})
    return state, seen


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("text", "steps", "taken"),
    [("swa:6:2", 12, (8, 10, 12)), ("swa:6:2", 15, (8, 10, 12, 14)), ("swa:6:3", 4, (3,))],
)
def test_stochastic_weight_averages_are_means_of_what_was_seen(scheme, text, steps, taken):
    state, seen = recorded(small(scheme=scheme, averages=text), steps)
    for name, mean in state.averages.mean().items():
        assert mean.dtype == torch.float32
        expected = np.mean([seen[step - 1][name] for step in taken], axis=0)
        assert np.allclose(mean.numpy(), expected, atol=2e-6), name


def test_exponential_averages_forget_at_their_rate():
    state, seen = recorded(small(averages="ema:0.7"), 9)
    share = 0.7 ** np.arange(8, -1, -1)
    for name, mean in state.averages.mean().items():
        expected = np.tensordot(share / share.sum(), np.stack([s[name] for s in seen]), 1)
        assert np.allclose(mean.numpy(), expected, atol=2e-6), name


def test_averages_of_stored_weights_lie_on_their_grid():
    state, _ = recorded(small(scheme=STORED, averages="swa:6:1"), 6)
    averaged = state.averages.model(state.model)
    held = {id(p): table for p, table in StoredWeights(averaged).pairs}
    assert len(held) == 6
    for name, p in averaged.named_parameters():
        mean = state.averages.mean()[name]
        if id(p) in held:
            table = held[id(p)]
            places = (mean / table.step).round().clamp(table.grid.low, table.grid.high)
            assert torch.allclose(p, places * table.step, atol=1e-6) and torch.equal(p, table.read())
        else:
            assert torch.equal(p, mean)
    assert any(
        not torch.equal(p, q) for p, q in zip(averaged.parameters(), state.model.parameters(), strict=True)
    )


def test_averaged_ends_are_rows_of_their_own_and_begin_anew_in_another_scheme(tmp_path):
    cfg = small(budgets=(10 * 256,), averages="swa:20:1", late=(("w3", 0.3),))
    ends = list(train_trunk(cfg, TEXT, tmp_path))
    assert [(e.branch.scheme, e.average) for e in ends] == [
        ("w3", ""),
        ("w3", "swa:20:1"),
        ("16", ""),
        ("16", "swa:20:1"),
    ]
    names = [name for branch in cfg.branches() for name in row_ids(cfg, branch, After())]
    assert len(set(names)) == 4 and names[1] == f"{names[0]}-swa-20-1"
    read = spread_windows(TEXT.evaluation, 256, 64)
    rows = [trained_row(cfg, end, TEXT, read) for end in ends]
    assert [row["id"] for row in rows] == names
    assert Runs.from_rows([{**row, "loss": 1.0} for row in rows]).frame.height == 4
    assert [row["average"] for row in rows] == [None, "swa:20:1"] * 2
    assert {(r["cooldown_shape"], r["optimizer"], r["residual"], r["autocast"]) for r in rows} == {
        ("1-sqrt", "adamw", "init", "float32")
    }
    assert {row["learning_rate_floor"] for row in rows} == {0.0}
    late = State(cfg, Scheme.parse("w3"), World())
    late.load(7, train(fresh(cfg), 0, 7, lambda step: min(1, (step + 1) / 5)).tensors())
    seen = []
    for step in range(7, 10):
        train(late, step, step + 1, lambda step: min(1, (step + 1) / 5) * (1 - math.sqrt((step - 7) / 3)))
        seen.append({n: p.detach().clone() for n, p in late.named.items()})
    for name, p in ends[1].model.named_parameters():
        assert torch.allclose(p, sum(s[name] for s in seen) / 3, atol=1e-6), name


# ---- savings


def test_savings_are_the_papers_formula_exactly():
    """Hagele et al. 2024: C_K + f sum of the others, over the sum of all; half of the cost of their ladder."""
    unit = 10 * 256
    for multiples, tenths in (((1, 2, 3), 2), ((1, 2, 4, 8, 16), 1), ((10, 15, 20, 25), 1), ((7,), 3)):
        found = savings(config(budgets=tuple(m * unit for m in multiples), cooldown=tenths / 10))
        assert found.trained * 10 == (multiples[-1] * 10 + tenths * sum(multiples[:-1])) * unit
        assert found.separate == sum(multiples) * unit
    assert savings(config(budgets=tuple(m * unit for m in (10, 15, 20, 25)), cooldown=0.1)).ratio == 29.5 / 70
    alone = savings(config(schedule="cosine", budgets=(unit,)))
    assert alone.ratio == 1


def test_savings_are_the_steps_that_are_taken(tmp_path):
    cfg, told = small(late=(("w3", 0.5), ("16", 0.0)), budgets=(9 * 256, 14 * 256)), []
    list(train_trunk(cfg, TEXT, tmp_path, on_tokens=told.append))
    assert savings(cfg).trained == sum(told)


# ---- memory and speed


def gradients(cfg, precise=False):
    state = fresh(cfg)
    if precise:
        state.model.double()
    tokens, targets = batch(TEXT, 5, 0, 4, 64)
    torch.manual_seed(0)
    state.stored.read()
    loss = state.backward(tokens, targets)
    return loss.item(), {n: p.grad for n, p in state.named.items()}


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(parts):
    loss, whole = gradients(config(), precise=True)
    again, pieces = gradients(config(accumulate=parts), precise=True)
    assert again == pytest.approx(loss, abs=1e-6)
    for name, g in whole.items():
        assert g.dtype == torch.float64 and torch.allclose(g, pieces[name], rtol=1e-6, atol=1e-12), name


@pytest.mark.parametrize("scheme", [*SCHEMES, "w=int4, a=int4 stochastic, grad_a=int8 stochastic"])
def test_recomputed_activations_give_the_same_gradients(scheme):
    loss, kept = gradients(config(scheme=scheme))
    again, recomputed = gradients(config(scheme=scheme, recompute=True))
    assert again == loss
    assert all(torch.equal(g, recomputed[name]) for name, g in kept.items())


def test_recomputation_keeps_fewer_activations():
    kept = {}
    for recompute in (False, True):
        state, total = fresh(config(recompute=recompute)), 0

        def note(t):
            nonlocal total
            total += t.numel()
            return t

        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            state.model(batch(TEXT, 5, 0, 4, 64)[0])
        kept[recompute] = total
    assert kept[True] < 0.5 * kept[False]


@pytest.mark.parametrize(("asked", "fast", "used"), [
    ("float32", True, torch.float32),
    ("bfloat16", False, torch.bfloat16),
    ("auto", True, torch.bfloat16),
    ("auto", False, torch.float32),
])  # fmt: skip
def test_matrix_products_have_the_type_that_was_asked_for(asked, fast, used, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    cfg, seen = small(autocast=asked, scheme="w4", budgets=(2 * 256,)), set()
    assert product_type(cfg, CPU) == used
    state = fresh(cfg)
    state.model.blocks[0].mlp.gate_up.register_forward_hook(lambda m, x, y: seen.add(y.dtype))
    train(state, 0, 1)
    assert seen == {used}
    assert {p.dtype for p in state.named.values()} == {torch.float32}
    (end,) = train_trunk(cfg, TEXT, tmp_path)
    assert f"torch.{end.products}" == str(used)


def test_batches_that_are_fetched_ahead_are_the_same_batches(monkeypatch):
    """As for a GPU, which this machine stands in for: memory is not pinned, nothing is copied."""
    cfg = config()
    plain = list(batches(TEXT, cfg, 3, 8, CPU))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: t)
    monkeypatch.setattr(torch.Tensor, "to", lambda t, *to, **how: t)
    ahead = list(batches(TEXT, cfg, 3, 8, SimpleNamespace(type="cuda")))
    assert len(ahead) == len(plain) == 5
    assert all(
        torch.equal(a, b) for x, y in zip(plain, ahead, strict=True) for a, b in zip(x, y, strict=True)
    )
    assert list(batches(TEXT, cfg, 8, 8, SimpleNamespace(type="cuda"))) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of its own code
@pytest.mark.parametrize(
    "scheme",
    ["16", "w4a4kv4", "w=int4 learned, a=int6 learned", "w=nvfp4, a=mxfp4", "w=nf4 group16 rotate", STORED],
)
def test_a_compiled_step_learns_the_same_and_models_share_it(scheme):
    torch.compiler.reset()
    plain, compiled = (train(fresh(config(compile=c, scheme=scheme)), 0, 4) for c in (False, True))
    for state in (plain, compiled):
        state.stored.read()
    for name, p in plain.named.items():
        assert (p - compiled.named[name]).norm() < 0.1 * p.norm(), name
    with torch._dynamo.config.patch(error_on_recompile=True):
        again = train(fresh(config(compile=True, scheme=scheme, seed=6)), 0, 2)
    assert again.step == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("scheme", ["w4a8", "w=int4 stochastic, a=int6 learned"])
def test_compiled_steps_are_resumed_to_the_bit(scheme):
    torch.compiler.reset()
    cfg = config(compile=True, scheme=scheme)
    straight = train(fresh(cfg), 0, 9)
    stopped = train(fresh(cfg), 0, 4)
    resumed = fresh(cfg)
    resumed.load(stopped.step, stopped.tensors())
    assert digest(train(resumed, 4, 9).tensors()) == digest(straight.tensors())


# ---- the ladder


def test_depth_mup_begins_as_the_same_function_and_keeps_the_factor():
    shape = Shape(width=32, depth=3, heads=2, ffn=40)
    first, mup = Transformer(shape, 3), Transformer(shape, 3, "depth-mup")
    tokens = batch(TEXT, 0, 0, 2, 32)[0]
    for model in (first, mup):
        nn.init.normal_(model.head.weight, std=0.2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(first(tokens), mup(tokens), atol=1e-5)
    assert mup.blocks[2].factor == pytest.approx(6**-0.5)
    for name in ("attention.out", "mlp.down"):
        a, b = (m.blocks[1].get_parameter(f"{name}.weight") for m in (first, mup))
        assert torch.allclose(a * 6**0.5, b)


def sweep(**changes):
    base = {"sizes": (12_000, 96_000), "budgets": (400_000, 800_000), "schemes": ("16",)}
    return SweepConfig(**{**base, **changes})


def test_the_rules_of_the_ladder_are_what_their_fields_say():
    for size, plain in zip((96_000, 12_000), trunks(sweep(), TEXT), strict=True):
        assert (plain.learning_rate, plain.batch_size) == (0.5 / ladder_shape(size).width, 8)
        assert plain.warmup_steps == 20
    rules = sweep(residual="depth-mup", batch_power=0.5, warmup_share=0.05, accumulate=2, optimizer="muon")
    for size, trunk in zip((96_000, 12_000), trunks(rules, TEXT), strict=True):
        shape = ladder_shape(size)
        assert trunk.learning_rate == 0.5 / shape.width / math.sqrt(shape.depth)
        assert trunk.batch_size == {96_000: 16, 12_000: 6}[size]  # 8 sqrt(size / 24,000), in two parts
        assert trunk.warmup_steps == round(0.05 * 400_000 / (trunk.batch_size * 128))
        assert (trunk.optimizer, trunk.residual, trunk.accumulate) == ("muon", "depth-mup", 2)
    cosine = trunks(sweep(schedule="cosine", warmup_share=0.1), TEXT)
    assert sorted({t.warmup_steps for t in cosine}) == [39, 78]


def test_every_setting_that_changes_a_loss_changes_the_cell():
    changes = [
        {"cooldown_shape": "linear"},
        {"floor": 0.1},
        {"optimizer": "muon"},
        {"averages": "ema:0.9"},
        {"residual": "depth-mup"},
        {"accumulate": 2},
        {"autocast": "bfloat16"},
        {"cooldown": 0.0},
    ]
    ids = {c.cell_id(c.branches()[0]) for c in (config(), *(config(**change) for change in changes))}
    assert len(ids) == len(changes) + 1


@pytest.mark.parametrize(("changes", "words"), [
    ({"cooldown_shape": "exponential"}, "0.01"),
    ({"optimizer": "schedule-free"}, "set it to 0"),
    ({"optimizer": "schedule-free", "cooldown": 0.0, "averages": "ema:0.9"}, "averages already"),
    ({"averages": "swa:5:2"}, "swa:500:5"),
    ({"averages": "ema:1"}, "ema:0.999"),
    ({"averages": "mean"}, "cannot read the average"),
    ({"accumulate": 3}, "equal parts"),
    ({"optimizer": "adam"}, "adamw"),
    ({"cooldown": -0.1}, "cooldown"),
])  # fmt: skip
def test_settings_that_make_no_sense_are_refused(changes, words):
    for make in (config, sweep):
        with pytest.raises((ValueError, ConfigError), match=words):
            make(**changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"late": (("w=int8 stored", 0.2),)}, "begin with their trunk"),
        ({"scheme": "w=int8 stored", "late": (("16", 0.2),)}, "begin with their trunk"),
        ({"schedule": "cosine", "late": (("w4", 0.2),)}, "a cosine run has none"),
        ({"budgets": (5120, 2560)}, "do not rise"),
        ({"budgets": (2560, 2560)}, "do not rise"),
    ],
)
def test_trunks_that_cannot_be_trained_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        config(**changes)


def test_rounding_by_chance_draws_other_numbers_for_every_seed_and_step():
    def drawn(seed, step):
        state = fresh(small(seed=seed))
        state.step = step
        state.draw()
        return torch.rand(4).tolist()

    assert drawn(1, 7) == drawn(1, 7)
    assert len({str(drawn(seed, step)) for seed in (0, 1, 2**31, 2**32) for step in (0, 1, 7)}) == 12


def test_what_schedule_free_and_late_branches_cannot_do_is_refused():
    free = {"optimizer": "schedule-free", "cooldown": 0.0}
    for changes in ({**free, "scheme": STORED}, {**free, "late": (("16", 0.5),)}, {"late": (("w3", 0.0),)}):
        with pytest.raises(ValueError, match="float copy|no share"):
            config(**changes)
    for changes, words in (
        ({**free, "schemes": ("16", STORED)}, "Value error, optimizer: schedule-free keeps a float copy"),
        ({"accumulate": 3, "batch_size": 8}, "Value error, accumulate: 8 sequences are not 3"),
        ({"residual": "depth-mup", "keep_models": True}, "depth-muP"),
    ):
        with pytest.raises(ValueError, match=words):
            sweep(**changes)


@pytest.mark.parametrize("text", ["swa", "swa:1", "swa:0:0", "swa:a:b", "ema:nan", "ema:-1", "", "swa:4:2:1"])
def test_averages_that_make_no_sense_are_refused(text):
    with pytest.raises(ConfigError, match="cannot read the average"):
        Average.parse(text)


def test_model_and_loop_are_read_at_one_sitting():
    files = [Path(module.__file__) for module in (bitlaw.lab.model.transformer, bitlaw.lab.train.loop)]
    assert sum(len(file.read_text().splitlines()) for file in files) < 600
