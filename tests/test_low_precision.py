"""Every part of a model in low precision: values against their definition, gradients against finite differences."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitlaw import ConfigError, Scheme
from bitlaw.formats import Recipe
from bitlaw.lab.model import Transformer
from bitlaw.lab.precision import apply_scheme, quantize
from bitlaw.lab.precision.layers import LowPrecisionEmbedding, LowPrecisionLinear, round_gradient
from bitlaw.lab.precision.learned import LearnedQuantizer
from bitlaw.shapes import Shape

SHAPE = Shape(width=32, depth=2, heads=2, ffn=80)
TOKENS = torch.randint(0, 256, (3, 17), generator=torch.Generator().manual_seed(0))


def numeric(function, x, step=1e-6):
    """Central differences of a number by every element of a tensor."""
    out = torch.zeros_like(x)
    for k in range(x.numel()):
        for sign in (1, -1):
            moved = x.detach().clone()
            moved.view(-1)[k] += sign * step
            out.view(-1)[k] += sign * function(moved).item() / (2 * step)
    return out


def loss_of(model, tokens=TOKENS):
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


# ---- forward


@pytest.mark.parametrize("part", ["w", "a", "kv", "q", "emb", "head"])
@pytest.mark.parametrize("text", ["int4", "e4m3", "mxfp4", "int4 group16 mse"])
def test_each_part_alone_changes_the_loss_a_little_and_sixteen_bits_nothing(part, text):
    plain = Transformer(SHAPE, seed=1)
    low = apply_scheme(copy.deepcopy(plain), Scheme.parse(f"{part}={text}"))
    same = apply_scheme(copy.deepcopy(plain), Scheme.parse(f"{part}=bf16"))
    assert torch.equal(same(TOKENS), plain(TOKENS))
    difference = (low(TOKENS) - plain(TOKENS)).abs().mean() / plain(TOKENS).abs().mean()
    assert 1e-4 < difference < 0.5
    assert dict(low.named_parameters()).keys() == dict(plain.named_parameters()).keys()


def test_a_head_and_an_embedding_in_low_precision_are_the_rounded_ones():
    plain = Transformer(SHAPE, seed=1)
    low = apply_scheme(copy.deepcopy(plain), Scheme.parse("emb=int3, head=e2m1 group8"))
    rounded = copy.deepcopy(plain)
    with torch.no_grad():
        rounded.embedding.weight.copy_(quantize(plain.embedding.weight, Recipe.parse("int3 channel")))
        rounded.head.weight.copy_(quantize(plain.head.weight, Recipe.parse("e2m1 group8")))
    assert torch.allclose(low(TOKENS), rounded(TOKENS), atol=1e-6)


@pytest.mark.parametrize("text", ["ternary block16", "int4 block16 gaussian"])
def test_a_mean_over_a_block_is_of_whole_blocks(text):
    """Zeros that fill the last block would lower its mean, by rows as by columns."""
    recipe = Recipe.parse(text)
    assert quantize(torch.ones(32, 48), recipe).shape == (32, 48)
    for shape in ((24, 32), (32, 24)):
        with pytest.raises(ConfigError, match="whole groups"):
            quantize(torch.ones(shape), recipe)


@pytest.mark.parametrize("text", ["int3 channel", "int3 tensor", "int3 block16"])
def test_rows_that_are_looked_up_are_those_of_the_rounded_table(text):
    table = nn.Embedding(50, 32)
    low = LowPrecisionEmbedding(copy.deepcopy(table), Recipe.parse(text))
    expected = F.embedding(TOKENS % 50, quantize(table.weight.detach(), Recipe.parse(text)))
    assert torch.allclose(low(TOKENS % 50), expected, atol=1e-6)


# ---- backward


def test_gradients_are_rounded_where_the_scheme_says():
    torch.manual_seed(0)
    scheme = Scheme.parse("w=int4, a=int5, grad_a=e4m3 token, grad_w=int6")
    linear = nn.Linear(6, 5, bias=False)
    layer = LowPrecisionLinear(copy.deepcopy(linear), scheme)
    x = torch.randn(7, 6, requires_grad=True)
    flowing = torch.randn(7, 5)
    layer(x).backward(flowing)
    g = quantize(flowing, Recipe.parse("e4m3 token"))
    assert torch.allclose(
        x.grad, g @ quantize(linear.weight.detach(), Recipe.parse("int4 channel")), atol=1e-5
    )
    exact = g.T @ quantize(x.detach(), Recipe.parse("int5"))
    assert torch.allclose(layer.weight.grad, quantize(exact, Recipe.parse("int6")), atol=1e-5)


def test_a_gradient_rounded_by_chance_is_right_on_the_mean():
    torch.manual_seed(0)
    recipe = Recipe.parse("int3 stochastic")
    x, flowing = torch.zeros(400, requires_grad=True), torch.randn(400)
    total = torch.zeros(400)
    for _ in range(600):
        x.grad = None
        round_gradient(x, recipe).backward(flowing)
        total += x.grad
    step = flowing.abs().max() / 3
    assert (total / 600 - flowing).abs().max() < 5 * step / 2 / 600**0.5
    assert len(x.grad.unique()) <= 7


@pytest.mark.parametrize("text", ["int3 channel", "int4 tensor", "int4 group4", "e2m1 channel"])
def test_learned_steps_against_finite_differences_of_their_surrogate(text):
    """LSQ: rounding errors, in steps, are held still; what is cut off has no gradient but the step's."""
    torch.manual_seed(0)
    recipe = Recipe.parse(text + " learned")
    w = torch.randn(5, 8, dtype=torch.float64)
    layer = LearnedQuantizer(recipe, w)
    with torch.no_grad():
        layer.step.mul_(0.7)  # so that some are cut off
    outward = torch.randn(5, 8, dtype=torch.float64)
    w.requires_grad_(True)
    (layer(w) * outward).sum().backward()
    from bitlaw.lab.precision.rounding import round_values
    from bitlaw.lab.precision.scales import grouped

    peak = layer.grid.peak
    split, _, back = grouped(w.detach(), recipe)
    y = (split / layer.step.detach()).clamp(-peak, peak)
    held = round_values(y, layer.grid) - y

    def surrogate(w_, step):
        split_, _, _ = grouped(w_, recipe)
        return (back(((split_ / step).clamp(-peak, peak) + held) * step) * outward).sum()

    share = 1 / (split.numel() / layer.step.numel() * peak) ** 0.5
    assert torch.allclose(w.grad, numeric(lambda v: surrogate(v, layer.step.detach()), w), atol=1e-6)
    assert torch.allclose(
        layer.step.grad, share * numeric(lambda s: surrogate(w.detach(), s), layer.step), atol=1e-6
    )


def test_a_model_learns_its_steps():
    model = apply_scheme(Transformer(SHAPE, seed=1), Scheme.parse("w=int3 learned, a=int4 learned"))
    steps = [name for name, _ in model.named_parameters() if name.endswith(".step")]
    assert len(steps) == 2 * 4 * SHAPE.depth
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    first = loss_of(model).item()
    before = {name: p.detach().clone() for name, p in model.named_parameters() if name in steps}
    for _ in range(60):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
    assert loss_of(model).item() < 0.6 * first
    assert all((p != before[name]).any() for name, p in model.named_parameters() if name in steps)


@pytest.mark.parametrize("text", ["uint4 channel learned", "int4 token learned"])
def test_steps_that_cannot_be_learned_are_refused(text):
    with pytest.raises(ConfigError, match="step"):
        apply_scheme(Transformer(SHAPE), Scheme.parse(f"a={text}"))


def test_queries_are_rounded_after_they_are_turned():
    plain = Transformer(SHAPE, seed=1)
    low = apply_scheme(copy.deepcopy(plain), Scheme.parse("q=int3"))
    seen = []
    low.blocks[0].attention.queries.register_forward_hook(lambda m, i, o: seen.append((i[0], o)))
    low(TOKENS)
    ((before, after),) = seen
    assert torch.equal(after, quantize(before, Recipe.parse("int3")))


def test_learned_steps_are_of_models_and_not_of_tensors():
    with pytest.raises(ConfigError, match="learned with a model"):
        quantize(torch.randn(3, 4), Recipe.parse("int4 learned"))


# ---- schemes


@pytest.mark.parametrize(
    "text",
    [
        "w4",
        "w4a8kv6",
        "w=nvfp4",
        "w=int3 group64 mse, a=e4m3 token",
        "emb=int8, head=int8, grad_a=e5m2",
        "w=int4 tensor",
    ],
)
def test_schemes_survive_their_name(text):
    assert Scheme.parse(text).name == text
    assert Scheme.parse(Scheme.parse(text).name) == Scheme.parse(text)


@pytest.mark.parametrize(
    "text", ["x=int4", "w=", "w=int4, w=int3", "w=int4 a=int3", "=int4", "w=int1", "grad=int4"]
)
def test_impossible_schemes_are_refused(text):
    with pytest.raises(ConfigError):
        Scheme.parse(text)
