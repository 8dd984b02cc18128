"""The lab: quantisers against independent ones, the model against NumPy, training that resumes to the bit."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from bitlaw import ConfigError, DataError, LabError, Scheme, parse_format
from bitlaw.formats import Recipe
from bitlaw.lab.corpus import batch, read_corpus, spread_windows
from bitlaw.lab.model import Transformer
from bitlaw.lab.model.transformer import RMSNorm
from bitlaw.lab.precision import apply_scheme, fake_quantize, quantize
from bitlaw.lab.precision.layers import LowPrecisionLinear
from bitlaw.lab.quantize import (
    Reference,
    Setting,
    clustered_mean,
    logits,
    quantize_model,
    token_losses,
    try_settings,
)
from bitlaw.lab.sweep import SweepConfig, trunks
from bitlaw.lab.train import Branch, Interrupted, TrunkConfig, World, checkpoint, schedule, train_trunk
from bitlaw.lab.train.distributed import ALONE
from bitlaw.lab.train.loop import Diverged, State
from bitlaw.shapes import Shape, ladder_shape

torch.set_num_threads(1)
SHAPE = Shape(width=32, depth=2, heads=2, ffn=40)


# ---- quantiser


def reference(x: np.ndarray, bits: int, channel: bool) -> np.ndarray:
    """The paper's appendix D.1, written again in NumPy, group by group."""
    top = 2 ** (bits - 1) - 1
    out = np.zeros_like(x)
    groups = x.reshape(-1, x.shape[-1]) if channel else x.reshape(1, -1)
    flat = out.reshape(groups.shape)
    for k, group in enumerate(groups):
        peak = np.abs(group).max()
        if peak > 0:
            scale = np.float32(top) / peak
            flat[k] = np.clip(np.rint(group * scale), -top - 1, top) / scale
    return out


@settings(max_examples=200, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=3, max_side=6),
        elements=st.floats(-1e4, 1e4, width=32),
    ),
    st.integers(2, 16),
    st.booleans(),
)
def test_the_quantiser_equals_the_paper(x, bits, channel):
    x = np.where(np.abs(x) < 1e-30, 0, x).astype(np.float32)
    ours = quantize(
        torch.from_numpy(x), Recipe.parse(f"int{bits} {'channel' if channel else 'tensor'}")
    ).numpy()
    assert np.array_equal(ours, reference(x, bits, channel))


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 16])
def test_the_quantiser_is_idempotent_monotone_and_within_half_a_step(bits):
    x = torch.randn(2000, generator=torch.Generator().manual_seed(0)).sort().values
    q = quantize(x, Recipe.parse(f"int{bits}"))
    step = x.abs().max() / parse_format(bits).peak
    assert (q.diff() >= 0).all()
    assert ((q - x).abs() <= step / 2 * (1 + 1e-5)).all()
    assert torch.allclose(quantize(q, Recipe.parse(f"int{bits}")), q, atol=1e-6)
    assert len(q.unique()) <= 2**bits - 1


def test_zeros_stay_zero_and_native_formats_change_nothing():
    assert (quantize(torch.zeros(3, 4), Recipe.parse("int4 channel")) == 0).all()
    x = torch.randn(3, 4)
    assert fake_quantize(x, Recipe.parse("bf16")) is x


def test_the_gradient_goes_straight_through():
    x = torch.randn(50, requires_grad=True)
    weight = torch.randn(50)
    (fake_quantize(x, Recipe.parse("int3")) * weight).sum().backward()
    assert torch.equal(x.grad, weight)


def test_low_precision_linear_against_finite_differences_of_its_surrogate():
    """The surrogate holds the rounding error of weight and input still and differentiates the rest."""
    torch.manual_seed(0)
    layer = LowPrecisionLinear(nn.Linear(6, 5, bias=False).double(), Scheme.parse("w4a5"))
    x = torch.randn(7, 6, dtype=torch.float64, requires_grad=True)
    w = layer.weight
    w_error = quantize(w.detach(), Recipe.parse("int4 channel")) - w.detach()
    x_error = quantize(x.detach(), Recipe.parse("int5")) - x.detach()
    out_weight = torch.randn(7, 5, dtype=torch.float64)
    (layer(x) * out_weight).sum().backward()

    def surrogate(x_, w_):
        return ((x_ + x_error) @ (w_ + w_error).T * out_weight).sum()

    for tensor, grad, other in ((x, x.grad, w), (w, w.grad, x)):
        numeric = torch.zeros_like(tensor)
        for k in range(tensor.numel()):
            for sign in (1, -1):
                moved = tensor.detach().clone()
                moved.view(-1)[k] += sign * 1e-6
                pair = (moved, other.detach()) if tensor is x else (other.detach(), moved)
                numeric.view(-1)[k] += sign * surrogate(*pair) / 2e-6
        assert torch.allclose(grad, numeric, atol=1e-5)


# ---- model


def numpy_forward(model: Transformer, tokens: np.ndarray) -> np.ndarray:
    """The whole forward pass again, in float64 NumPy, one position at a time where that is plainest."""
    p = {k: v.detach().double().numpy() for k, v in model.named_parameters()}
    d, h = model.shape.width, model.shape.heads
    k = d // h

    def norm(x, w):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * w

    def turn(v, t):
        angle = t * 10_000.0 ** (-np.arange(0, k, 2) / k)
        a, b = v[: k // 2], v[k // 2 :]
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)])

    x = p["embedding.weight"][tokens]
    for i in range(model.shape.depth):
        a, m = f"blocks.{i}.attention.", f"blocks.{i}.mlp."
        q, key, v = np.split(norm(x, p[a + "norm.weight"]) @ p[a + "qkv.weight"].T, 3, axis=-1)
        y = np.zeros_like(x)
        for b in range(len(x)):
            for head in range(h):
                s = slice(head * k, (head + 1) * k)
                for t in range(x.shape[1]):
                    scores = np.array(
                        [turn(q[b, t, s], t) @ turn(key[b, u, s], u) for u in range(t + 1)]
                    ) / math.sqrt(k)
                    share = np.exp(scores - scores.max())
                    y[b, t, s] = share / share.sum() @ v[b, : t + 1, s]
        x = x + norm(y, p[a + "out_norm.weight"]) @ p[a + "out.weight"].T
        gate, up = np.split(norm(x, p[m + "norm.weight"]) @ p[m + "gate_up.weight"].T, 2, axis=-1)
        x = x + norm(gate / (1 + np.exp(-gate)) * up, p[m + "down_norm.weight"]) @ p[m + "down.weight"].T
    return norm(x, p["norm.weight"]) @ p["head.weight"].T


def test_the_model_equals_a_numpy_forward_pass():
    model = Transformer(SHAPE, seed=3)
    for module in model.modules():  # gains away from one, so that a forgotten one would show
        if isinstance(module, RMSNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    nn.init.normal_(model.head.weight, std=0.2)
    tokens = torch.randint(0, 256, (2, 9), generator=torch.Generator().manual_seed(1))
    assert np.allclose(model(tokens).detach().numpy(), numpy_forward(model, tokens.numpy()), atol=1e-5)


def test_counts_by_part_are_the_models():
    for shape in (SHAPE, ladder_shape(24_000), ladder_shape(200_000)):
        model = Transformer(shape)
        counts = shape.counts()
        assert counts.total == sum(p.numel() for p in model.parameters())
        assert counts.non_embedding == sum(
            p.numel() for n, p in model.named_parameters() if not n.startswith(("embedding", "head"))
        )


def test_flops_are_what_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    model = Transformer(SHAPE)
    tokens = torch.randint(0, 256, (2, 16))
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        model(tokens).sum().backward()
    assert counter.get_total_flops() == pytest.approx(SHAPE.flops_per_token(16) * 32, rel=1e-6)


def test_the_future_is_not_seen():
    model = Transformer(SHAPE)
    a = torch.randint(0, 256, (1, 12))
    b = a.clone()
    b[0, 8:] = 7
    assert torch.equal(model(a)[0, :8], model(b)[0, :8])


def test_a_scheme_leaves_parameters_their_names_and_touches_only_blocks():
    plain, quantized = Transformer(SHAPE), apply_scheme(Transformer(SHAPE), Scheme.parse("w4a8kv6"))
    assert [n for n, _ in plain.named_parameters()] == [n for n, _ in quantized.named_parameters()]
    kinds = {n: type(m).__name__ for n, m in quantized.named_modules()}
    assert kinds["head"] == "Linear"
    assert kinds["blocks.0.mlp.down"] == "LowPrecisionLinear"
    assert kinds["blocks.1.attention.cached_v"] == "FakeQuantize"


def test_sixteen_bits_change_nothing_and_every_part_changes_something():
    tokens = torch.randint(0, 256, (2, 16), generator=torch.Generator().manual_seed(0))

    def logits(scheme):
        model = Transformer(SHAPE)
        nn.init.normal_(model.head.weight, std=0.2, generator=torch.Generator().manual_seed(0))
        return apply_scheme(model, Scheme.parse(scheme))(tokens)

    base = logits("16")
    for scheme in ("w3", "a3", "kv3"):
        assert not torch.allclose(logits(scheme), base, atol=1e-3)
    assert torch.allclose(logits("w=int16, a=int16, kv=int16"), base, atol=1e-2)


# ---- corpus


@pytest.fixture(scope="module")
def corpus():
    return read_corpus(None)


def test_the_default_corpus_is_real_and_split_by_document(corpus):
    assert len(corpus.train.tokens) > 5e6
    assert 0.005 < len(corpus.evaluation.tokens) / len(corpus.train.tokens) < 0.1
    assert b"import" in bytes(corpus.train.tokens[:100_000])


def test_a_batch_is_a_pure_function(corpus):
    x, y = batch(corpus, seed=3, step=7, batch_size=4, seq_len=32)
    batch(corpus, seed=9, step=1, batch_size=4, seq_len=32)
    again, _ = batch(corpus, seed=3, step=7, batch_size=4, seq_len=32)
    assert torch.equal(x, again)
    assert torch.equal(x[:, 1:], y[:, :-1])
    assert not torch.equal(x, batch(corpus, seed=4, step=7, batch_size=4, seq_len=32)[0])


def test_an_epoch_visits_every_window_once(tmp_path):
    text = bytes(np.random.default_rng(0).integers(32, 127, 70_000, dtype=np.uint8))
    (tmp_path / "a.txt").write_bytes(text)
    corpus = read_corpus(str(tmp_path))
    windows = (len(corpus.train.tokens) - 1) // 64
    steps = windows // 8
    rows = torch.cat([batch(corpus, 0, step, 8, 64)[0] for step in range(steps)])
    assert len(rows.unique(dim=0)) == steps * 8


def test_evaluation_text_is_not_training_text(corpus):
    windows = spread_windows(corpus.evaluation, 8192, 128)
    assert windows.inputs.shape == (64, 128)
    assert windows.sha256 == spread_windows(corpus.evaluation, 8192, 128).sha256
    seen = bytes(corpus.train.tokens) + bytes(corpus.calibration.tokens)
    found = sum(bytes(row.numpy().astype(np.uint8)) in seen for row in windows.inputs)
    assert found <= 7  # tables of encodings repeat whole passages from file to file


def test_every_token_knows_its_document(tmp_path):
    for k in range(300):
        (tmp_path / f"{k}.txt").write_text(f"{k:03d}+" * 100)
    corpus = read_corpus(str(tmp_path))
    documents = list(corpus.train.documents())
    assert len(documents) > 250
    windows = spread_windows(corpus.train, 64_000, 64)
    within = 0
    for targets, numbers in zip(windows.targets, windows.documents, strict=True):
        parts = [targets[numbers == n].numpy().astype(np.uint8).tobytes() for n in numbers.unique()]
        assert all(part in documents[n] for part, n in zip(parts, numbers.unique(), strict=True))
        within += len(parts) == 1
    assert 0 < within < len(windows.targets)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: p / "absent",
        lambda p: p,
        lambda p: (p / "b.bin").write_bytes(bytes(range(256)) * 999) and p,
        lambda p: (p / "s.txt").write_text("short") and p,
    ],
)
def test_a_corpus_without_text_is_refused(make, tmp_path):
    with pytest.raises(DataError, match="text"):
        read_corpus(str(make(tmp_path)))


def test_an_evaluation_set_larger_than_the_held_out_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("word " * 20_000)
    with pytest.raises(DataError, match="fewer tokens"):
        spread_windows(read_corpus(str(tmp_path)).evaluation, 65_536, 128)


# ---- training


def config(corpus, **changes):
    base = {
        "shape": Shape(width=16, depth=1, heads=1, ffn=24),
        "scheme": "w4",
        "seed": 5,
        "corpus_sha256": corpus.sha256,
        "budgets": (20 * 256, 40 * 256),
        "batch_size": 4,
        "seq_len": 64,
        "learning_rate": 0.02,
        "warmup_steps": 4,
        "eval_tokens": 4096,
    }
    return TrunkConfig(**{**base, **changes})


def digest(model):
    return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()


def ends(config_, corpus, folder, **options):
    return {e.branch: digest(e.model) for e in train_trunk(config_, corpus, folder, **options)}


def test_training_learns(corpus, tmp_path):
    text = spread_windows(corpus.evaluation, 4096, 64)
    cfg = config(corpus, budgets=(60 * 256,))
    (end,) = train_trunk(cfg, corpus, tmp_path)
    assert token_losses(logits(end.model, text), text).mean() < math.log(256) - 1.5


@pytest.mark.parametrize("schedule_", ["constant", "cosine"])
@pytest.mark.parametrize(
    "scheme",
    [
        "16",
        "w3a4kv4",
        "w=int4 learned, a=int6 learned, grad_a=int8 stochastic",
        "w=int8 stored stochastic, emb=int4 stored, head=int3 tensor stored stochastic",
    ],
)
def test_stopping_and_resuming_anywhere_changes_no_bit(corpus, tmp_path, schedule_, scheme):
    cfg = config(corpus, schedule=schedule_, scheme=scheme)
    straight = ends(cfg, corpus, tmp_path / "straight")
    for stop_at in (1, 13, 17, 33, 41):
        folder = tmp_path / f"stop-{stop_at}"
        seen, got = 0, {}

        def stop():
            nonlocal seen
            seen += 1
            return seen == stop_at  # noqa: B023

        try:
            for end in train_trunk(cfg, corpus, folder, should_stop=stop):
                got[end.branch] = digest(end.model)
        except Interrupted:
            got |= ends(cfg, corpus, folder, done=tuple(got))
        assert got == straight, stop_at


def test_the_other_budgets_do_not_change_an_end(corpus, tmp_path):
    both = ends(config(corpus), corpus, tmp_path / "a")
    alone = ends(config(corpus, budgets=(40 * 256,)), corpus, tmp_path / "b")
    branch = Branch(40 * 256, 0.2, "w4")
    assert both[branch] == alone[branch]
    assert config(corpus).cell_id(branch) == config(corpus, budgets=(40 * 256,)).cell_id(branch)


def test_everything_that_changes_a_loss_changes_the_cell(corpus):
    ids = {config(corpus).cell_id(config(corpus).branches()[0])}
    for change in (
        {"seed": 6},
        {"scheme": "w5"},
        {"learning_rate": 0.03},
        {"batch_size": 8},
        {"schedule": "cosine"},
        {"cooldown": 0.3},
        {"corpus_sha256": "x"},
        {"warmup_steps": 5},
        {"weight_decay": 0.0},
        {"shape": SHAPE},
        {"eval_tokens": 8192},
    ):
        changed = config(corpus, **change)
        ids.add(changed.cell_id(changed.branches()[0]))
    late = config(corpus, late=(("w3", 0.2), ("w4", 0.5)))
    ids |= {late.cell_id(branch) for branch in late.branches() if branch.tokens == 5120}
    assert len(ids) == 14
    assert {late.trunk_id()} == {config(corpus).trunk_id()}


def test_a_trunk_of_16_bits_cools_down_in_any_precision(corpus, tmp_path):
    """The cooldown is what training in the scheme from the trunk's state is, step by step."""
    late = (("w3", 0.5), ("w=int4 learned, a=int8 learned", 0.5), ("16", 0.5))
    cfg = config(corpus, scheme="16", budgets=(40 * 256,), late=late)
    found = ends(cfg, corpus, tmp_path / "straight")
    assert list(found) == [*(Branch(10240, 0.5, scheme) for scheme, _ in late), Branch(10240, 0.2, "16")]
    assert len(set(found.values())) == 4
    assert (
        found[Branch(10240, 0.2, "16")]
        == ends(config(corpus, scheme="16"), corpus, tmp_path / "a")[Branch(10240, 0.2, "16")]
    )
    state = State(cfg, Scheme(), World())
    for step in range(40):
        if step == 20:
            trained = state
            state = State(cfg, Scheme.parse("w3"), World())
            state.load(20, trained.tensors())
        rate = schedule.constant(step, 4) * (schedule.cooldown(step, 20, 40) if step >= 20 else 1)
        state.update(*batch(corpus, cfg.seed, step, 4, 64), cfg.learning_rate * rate)
    assert digest(state.model) == found[Branch(10240, 0.5, "w3")]


def test_a_late_scheme_resumes_to_the_bit(corpus, tmp_path):
    cfg = config(corpus, scheme="16", budgets=(40 * 256,), late=(("w=int4 learned, a=int8 learned", 0.5),))
    straight = ends(cfg, corpus, tmp_path / "straight")
    for stop_at in (12, 21, 30):
        calls = iter(range(1, 1000))
        folder, got = tmp_path / f"stop-{stop_at}", {}
        with pytest.raises(Interrupted):
            for end in train_trunk(cfg, corpus, folder, should_stop=lambda c=calls, s=stop_at: next(c) == s):
                got[end.branch] = digest(end.model)
        assert got | ends(cfg, corpus, folder, done=tuple(got)) == straight


def test_a_diverging_run_has_a_reason_and_no_model(corpus, tmp_path):
    found = list(train_trunk(config(corpus, learning_rate=1e30), corpus, tmp_path))
    assert [e.model for e in found] == [None, None]
    assert all("diverged" in e.reason for e in found)


def test_a_step_that_diverges_changes_nothing(corpus):
    """Weights that are not finite: said before the optimiser moves, so that a checkpoint of the state is whole."""
    state = State(config(corpus), Scheme(), ALONE)
    with torch.no_grad():
        state.model.blocks[0].attention.qkv.weight[0, 0] = math.inf
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    with pytest.raises(Diverged, match="at step 0"):
        state.update(*batch(corpus, 0, 0, 4, 32), 1.0)
    after = state.tensors()
    assert state.step == 0 and before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    "damage", ["truncate", "flip", "empty", "no manifest", "torn manifest", "swap", "header"]
)
def test_a_damaged_checkpoint_is_passed_over(damage, tmp_path, caplog):
    first, second = {"a": torch.arange(100.0)}, {"a": torch.arange(100.0) + 1}
    checkpoint.save(tmp_path, "run", 10, first)
    checkpoint.save(tmp_path, "run", 20, second)
    new, old = tmp_path / "step-000000020", tmp_path / "step-000000010"
    state = new / "state.safetensors"
    data = bytearray(state.read_bytes())
    if damage == "truncate":
        state.write_bytes(data[:-7])
    elif damage == "flip":
        data[-9] ^= 4
        state.write_bytes(data)
    elif damage == "header":
        data[1] ^= 0xFF
        state.write_bytes(data)
    elif damage == "empty":
        state.write_bytes(b"")
    elif damage == "no manifest":
        os.remove(new / "MANIFEST.json")
    elif damage == "torn manifest":
        (new / "MANIFEST.json").write_text('{"run": "ru')
    else:
        state.write_bytes((old / "state.safetensors").read_bytes())
    step, tensors = checkpoint.load(tmp_path, "run", at_most=99)
    assert step == 10
    assert torch.equal(tensors["a"], first["a"])
    assert "damaged" in caplog.text


def test_checkpoints_of_another_run_or_a_later_step_are_not_used(tmp_path):
    checkpoint.save(tmp_path, "run", 10, {"a": torch.ones(1)})
    assert checkpoint.load(tmp_path, "other", at_most=99) is None
    assert checkpoint.load(tmp_path, "run", at_most=9) is None
    assert checkpoint.load(tmp_path / "absent", "run", at_most=9) is None


def test_a_failed_write_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    """No space at the k-th write: the older checkpoint is whole, whatever k is."""
    checkpoint.save(tmp_path, "run", 10, {"a": torch.ones(1)})
    real = checkpoint._write
    for k in (1, 2):
        calls = 0

        def full(path, data):
            nonlocal calls
            calls += 1
            if calls == k:  # noqa: B023
                path.write_bytes(data[: len(data) // 2])
                raise OSError(28, "No space left on device")
            real(path, data)

        monkeypatch.setattr(checkpoint, "_write", full)
        with pytest.raises(LabError, match="No space"):
            checkpoint.save(tmp_path, "run", 20, {"a": torch.zeros(1)})
        assert checkpoint.load(tmp_path, "run", at_most=99)[0] == 10


def test_schedules():
    assert [schedule.constant(s, 4) for s in (0, 3, 4, 100)] == [0.2, 0.8, 1.0, 1.0]
    assert schedule.cooldown(80, 80, 100) == 1.0
    assert schedule.cooldown(99, 80, 100) == pytest.approx(1 - math.sqrt(0.95))
    assert schedule.cosine(10, 100, 10) == 1.0
    assert schedule.cosine(100, 100, 10) == pytest.approx(0.1)


# ---- quantising after training


def test_rounding_to_nearest_touches_only_the_blocks():
    model = Transformer(SHAPE, seed=1)
    before = copy.deepcopy(model.state_dict())
    quantized = quantize_model(model, Recipe.parse("int3 channel"))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    for name, value in quantized.state_dict().items():
        if name.startswith("blocks.") and value.ndim == 2:
            assert np.array_equal(value.numpy(), reference(before[name].numpy(), 3, channel=True))
        else:
            assert torch.equal(value, before[name])


def test_a_model_has_no_gap_to_itself_and_fewer_bits_a_larger_one(corpus, tmp_path):
    text = spread_windows(corpus.evaluation, 4096, 64)
    (end,) = train_trunk(config(corpus, scheme="16", budgets=(120 * 256,)), corpus, tmp_path)
    settings = [Setting.of("rtn", name) for name in ("bf16", "int2", "int3", "int4", "int8")]
    same, *rounded = try_settings(Reference(end.model, text), settings)
    assert (same.gap.value, same.gap.se, same.kl.value) == (0, 0, 0)
    gaps = [outcome.gap.value for outcome in rounded]
    assert gaps[0] > gaps[1] > max(abs(gap) for gap in gaps[2:])
    kls = [outcome.kl.value for outcome in rounded]
    assert kls[0] > kls[1] > kls[2] > kls[3] > 0


def test_errors_are_over_documents():
    """Against the spread of the ratio of sums over many draws of whole documents."""
    rng = np.random.default_rng(0)
    level, long = rng.normal(0, 1, 4000), rng.integers(1, 9, 4000)

    def draw(picked):
        documents = np.repeat(np.arange(len(picked)), 4 * long[picked])
        values = np.repeat(level[picked], 4 * long[picked]) + rng.normal(0, 1, len(documents))
        return clustered_mean(torch.tensor(values).view(-1, 4), torch.tensor(documents).view(-1, 4))

    means = [draw(rng.integers(0, 4000, 60)) for _ in range(1000)]
    assert np.mean([m.se for m in means]) == pytest.approx(np.std([m.value for m in means]), rel=0.06)
    assert {m.clusters for m in means} == {60}


def test_the_paired_error_of_few_documents_is_over_windows():
    d = np.array([0.1, 0.3, 0.2])
    result = clustered_mean(torch.tensor(d)[:, None], torch.zeros(3, 1, dtype=torch.long))
    assert result.value == pytest.approx(d.mean())
    assert result.se == pytest.approx(d.std(ddof=1) / math.sqrt(3))


# ---- ladders


def sweep_config(**changes):
    base = {
        "sizes": (4000, 8000),
        "budgets": (40_000, 80_000),
        "schemes": ("16", "w4"),
        "post_formats": ("int3",),
    }
    return SweepConfig(**{**base, **changes})


def test_every_trunk_has_a_seed_of_its_own(corpus):
    configs = trunks(sweep_config(), corpus)
    assert len({c.seed for c in configs}) == len(configs) == 4
    assert not {c.seed for c in configs} & {c.seed for c in trunks(sweep_config(seed=1), corpus)}
    assert len(trunks(sweep_config(schedule="cosine"), corpus)) == 8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schemes": ("w99",)}, "2 to 16 bits"),
        ({"schemes": ("w0",)}, "2 to 16 bits"),
        ({"schemes": ("w4", "w4")}, "twice"),
        ({"post_formats": ("bf16",)}, "does not quantise"),
        ({"sizes": (10,)}, "ladder starts"),
        ({"sizes": ()}, "at least 1"),
        ({"budgets": (-5,)}, "positive"),
        ({"budgets": (100,)}, "warm-up"),
        ({"bogus": 1}, "bogus"),
        ({"seed": True}, "seed"),
    ],
)
def test_senseless_sweeps_are_refused(changes, words):
    with pytest.raises((ValueError, ConfigError), match=words):
        sweep_config(**changes)


def test_a_config_survives_json(corpus):
    cfg = config(corpus)
    assert TrunkConfig.model_validate_json(json.dumps(cfg.model_dump(mode="json"))) == cfg
