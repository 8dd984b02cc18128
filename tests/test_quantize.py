"""Quantising after training: GPTQ and AWQ on their own objectives, and whole models of ours and of others."""

from __future__ import annotations

import copy

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from bitlaw import ConfigError, LabError
from bitlaw.formats import Recipe
from bitlaw.lab.corpus import Windows
from bitlaw.lab.model import Transformer
from bitlaw.lab.precision import quantize
from bitlaw.lab.quantize import METHODS, Reference, Setting, evaluate, quantize_model, try_settings
from bitlaw.lab.quantize.awq import awq
from bitlaw.lab.quantize.gptq import _inverse_root, gptq, loss
from bitlaw.lab.quantize.settings import bytes_of, bytes_read
from bitlaw.shapes import Shape

RECIPES = [
    "int3 channel",
    "int4 group32",
    "uint3 channel mse",
    "nvfp4",
    "mxfp4",
    "e2m1 tensor",
    "int3 group16 rotate",
]
SHAPE = Shape(width=32, depth=2, heads=2, ffn=80)
TEXT = torch.randint(0, 256, (20, 32), generator=torch.Generator().manual_seed(0))


def problem(seed=0, width=96, outputs=40, seen=3000):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(seen, width, generator=g) @ torch.randn(width, width, generator=g) / 10
    x[:, 3] *= 20
    return torch.randn(outputs, width, generator=g), x.T @ x / seen


@pytest.mark.parametrize("text", [text for text in RECIPES if "rotate" not in text and "mse" not in text])
@pytest.mark.parametrize("order", [True, False])
def test_gptq_is_rounding_to_nearest_where_inputs_do_not_hang_together(text, order):
    weight, moments = problem()
    diagonal = torch.diag(moments.diagonal())
    assert torch.equal(
        gptq(weight, diagonal, Recipe.parse(text), order=order), quantize(weight, Recipe.parse(text))
    )


@pytest.mark.parametrize("text", RECIPES)
@pytest.mark.parametrize("seed", range(3))
def test_gptq_never_loses_to_rounding_to_nearest_on_its_own_objective(text, seed):
    weight, moments = problem(seed)
    recipe = Recipe.parse(text)
    ours = loss(weight, gptq(weight, moments, recipe), moments)
    plain = loss(weight, quantize(weight, recipe), moments)
    assert (ours <= plain * (1 + 1e-9)).all()
    assert ours.mean() < 0.8 * plain.mean()


def test_scales_of_least_error_are_those_of_the_outputs():
    """Better than absmax scales, and than scales of least error in the weights, by the error that counts."""
    weight, moments = problem()
    found = loss(weight, gptq(weight, moments, Recipe.parse("int3 channel mse")), moments)
    assert (found <= loss(weight, gptq(weight, moments, Recipe.parse("int3 channel")), moments)).all()
    assert (
        found.mean() < 0.9 * loss(weight, gptq(weight, moments, Recipe.parse("int3 channel")), moments).mean()
    )


def test_ranges_of_least_error_reach_as_far_as_heavy_tails_need():
    """A third of the error of absmax scales; with no range below 0.6 it is half."""
    weight, moments = problem()
    weight = weight / torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)).abs().add(0.05)
    by = {
        scale: loss(weight, gptq(weight, moments, Recipe.parse(f"int3 channel {scale}")), moments).mean()
        for scale in ("absmax", "mse")
    }
    assert by["mse"] < 0.4 * by["absmax"]


def test_gptq_by_its_definition():
    """Column after column, the others re-solved by least squares each time: no Cholesky factor, no blocks."""
    weight, moments = problem(width=24, outputs=6)
    h = moments.double()
    damped = h + 0.01 * h.diagonal().mean() * torch.eye(24, dtype=torch.float64)
    recipe = Recipe.parse("int3 channel")
    scale = 3 / weight.abs().amax(1, keepdim=True)
    left, fixed = torch.argsort(h.diagonal(), descending=True).tolist(), []
    w, q = weight.double().clone(), torch.zeros(6, 24, dtype=torch.float64)
    while left:
        i = left.pop(0)
        q[:, i] = ((w[:, i].float()[:, None] * scale).round().clamp(-4, 3) / scale)[:, 0].double()
        fixed.append(i)
        if left:  # the others minimise the damped error, given all that is fixed
            error = weight.double()[:, fixed] - q[:, fixed]
            move = torch.linalg.solve(damped[left][:, left], damped[left][:, fixed] @ error.T).T
            w[:, left] = weight.double()[:, left] + move
    better = loss(weight, q.float(), moments) <= loss(weight, quantize(weight, recipe), moments)
    found = gptq(weight, moments, recipe)
    assert torch.allclose(found[better], q.float()[better], atol=1e-5)
    assert better.any()


@pytest.mark.parametrize("text", RECIPES)
def test_awq_never_loses_to_rounding_to_nearest_and_wins_where_inputs_differ(text):
    weight, moments = problem()
    recipe = Recipe.parse(text)
    ours, plain = (
        loss(weight, w, moments).sum() for w in (awq(weight, moments, recipe), quantize(weight, recipe))
    )
    assert ours <= plain * (1 + 1e-9)
    if "tensor" in text:
        assert ours < 0.9 * plain


def test_dead_inputs_and_singular_moments_are_survived():
    weight, moments = problem()
    moments[5] = moments[:, 5] = 0
    moments = moments * 1e-12
    for method in (gptq, awq):
        assert torch.isfinite(method(weight, moments, Recipe.parse("int4 channel"))).all()
        assert torch.isfinite(method(weight, torch.zeros_like(moments), Recipe.parse("int4 channel"))).all()
    with pytest.raises(LabError, match="not finite"):
        gptq(weight, moments * torch.nan, Recipe.parse("int4 channel"))
    with pytest.raises(ConfigError, match="square blocks"):
        gptq(weight, moments, Recipe.parse("int4 block16"))


@pytest.mark.parametrize(
    "text", ["int3 tensor", "int3 tensor mse", "uint4 tensor mse", "int3 channel mse", "int3 channel"]
)
def test_what_gptq_gives_lies_on_its_grid(text):
    weight, moments = problem()
    recipe = Recipe.parse(text)
    found = gptq(weight, moments, recipe)
    for part in [found] if recipe.granularity == "tensor" else found:
        steps = part.unique().diff()
        assert len(steps) < 2**recipe.format.bits
        assert torch.allclose(steps / steps.min(), (steps / steps.min()).round(), atol=1e-3)


def test_moments_on_a_gpu_are_damped_there():
    """A GPU without a GPU: tensors of shapes and devices alone, which refuse to meet those of another device."""
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):  # at the first look into a number
        _inverse_root(torch.empty(64, 64, device="cuda", dtype=torch.float64), 0.01)


# ---- whole models


@pytest.mark.parametrize("method", METHODS)
def test_sixteen_bits_change_nothing_and_few_bits_only_the_blocks(method):
    model = Transformer(SHAPE, seed=1)
    before = copy.deepcopy(model.state_dict())
    same = quantize_model(model, Recipe.parse("bf16"), method, TEXT)
    low = quantize_model(model, Recipe.parse("int3 channel"), method, TEXT)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    for name, value in low.state_dict().items():
        inside = name.startswith("blocks.") and value.ndim == 2
        assert torch.equal(value, before[name]) != inside
        assert torch.equal(same.state_dict()[name], before[name])


def test_each_block_is_rounded_on_what_the_rounded_ones_before_it_give():
    model = Transformer(SHAPE, seed=1)
    recipe = Recipe.parse("int2 channel")
    low = quantize_model(model, recipe, "gptq", TEXT)
    seen = []
    linear = low.blocks[1].attention.qkv
    linear.register_forward_pre_hook(lambda m, x: seen.append(x[0].reshape(-1, 32)))
    with torch.no_grad():
        low(TEXT)
    x = torch.cat(seen).double()
    expected = gptq(model.blocks[1].attention.qkv.weight.detach(), x.T @ x / len(x), recipe)
    assert torch.allclose(linear.weight, expected, atol=1e-6)


def test_weights_rounded_by_chance_are_the_same_each_time():
    model, recipe = Transformer(SHAPE, seed=1), Recipe.parse("int4 channel stochastic")
    torch.manual_seed(3)
    once, again = quantize_model(model, recipe), quantize_model(model, recipe)
    assert all(torch.equal(a, b) for a, b in zip(once.parameters(), again.parameters(), strict=True))
    nearest = quantize_model(model, Recipe.parse("int4 channel")).blocks[0].mlp.down.weight
    assert not torch.equal(once.blocks[0].mlp.down.weight, nearest)


def test_tables_that_rows_are_looked_up_in_are_not_read_by_a_pass():
    model, setting = Transformer(SHAPE), Setting.of("rtn", "int4")
    assert bytes_of(model, setting) - bytes_read(model, setting) == 2 * 256 * 32
    model.head.weight = model.embedding.weight  # tied: now it is multiplied by, too
    assert bytes_of(model, setting) == bytes_read(model, setting)


def test_what_cannot_be_quantised_says_why():
    model = Transformer(SHAPE)
    with pytest.raises(ConfigError, match="did you mean 'gptq'"):
        quantize_model(model, Recipe.parse("int4"), "gptp", TEXT)
    with pytest.raises(ConfigError, match="calibration"):
        quantize_model(model, Recipe.parse("int4"), "gptq")


def test_logits_too_large_to_keep_change_nothing(monkeypatch):
    """Not the numbers, not torch's state of chance, and gradients can be taken afterwards."""
    text = Windows(TEXT, TEXT.roll(-1, 1), torch.arange(20)[:, None].expand(20, 32), "")
    settings = [Setting.of("rtn", "int4"), Setting.of("gptq", "int3", activations="int8 token stochastic")]
    model, found = Transformer(SHAPE, seed=1), []
    for memory in (2**30, 0):
        monkeypatch.setattr(evaluate, "MEMORY", memory)
        monkeypatch.setattr(evaluate, "AT_ONCE", memory)
        torch.manual_seed(5)
        outcomes = list(try_settings(Reference(model, text), settings, text))
        assert not torch.is_inference_mode_enabled()
        found.append([(o.loss, o.gap, o.kl) for o in outcomes] + [torch.rand(1).item()])
    assert found[0] == found[1]
    model(TEXT).sum().backward()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": "int4 learned"}, "nothing is learned"),
        ({"weights": "int4 stored"}, "nothing is learned"),
        ({"weights": "int4", "activations": "int8 learned"}, "nothing is learned"),
        ({"weights": "int4 block16"}, "square blocks"),
        ({"weights": "int4", "method": "gptp"}, "did you mean 'gptq'"),
        ({"weights": "int4 stochastic"}, "nothing to chance"),
        ({"weights": "int4 stochastic", "method": "awq"}, "nothing to chance"),
        ({"weights": "int4", "group": -1}, "group-1"),
    ],
)
def test_settings_that_mean_nothing_are_refused_before_any_work(changes, words):
    with pytest.raises(ConfigError, match=words):
        Setting.of(**{"method": "gptq", **changes})


@pytest.mark.parametrize("text", ["int3 channel", "int4 group32", "nvfp4", "e2m1 tensor"])
def test_awq_wins_where_inputs_differ_much(text):
    weight, moments = problem()
    size = torch.logspace(-1, 1, 96)
    moments = moments * size[:, None] * size
    ours, plain = (
        loss(weight, w, moments).sum()
        for w in (awq(weight, moments, Recipe.parse(text)), quantize(weight, Recipe.parse(text)))
    )
    assert ours < 0.98 * plain
