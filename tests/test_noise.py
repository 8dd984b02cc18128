"""Noise of a gradient: against closed forms, NumPy, the paper's two batch sizes, and what must not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bitlaw import ConfigError, Scheme
from bitlaw.lab.model import Transformer
from bitlaw.lab.precision import StoredWeights, apply_scheme
from bitlaw.lab.train import GradientNoise, gradient_noise
from bitlaw.shapes import Shape

torch.set_num_threads(1)
STORED = "w=int8 stored stochastic, head=int3 tensor stored stochastic"


def some_gradients(parts=24, size=40, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(parts, size, generator=draw, dtype=torch.float64) + 0.3


def test_a_linear_model_has_the_noise_that_algebra_gives_it():
    """Of (x.w - y)^2 / 2 with x ~ N(0, 1) and y = x.v + s e:  G = w - v = d,  tr(Sigma) = (p + 1) |d|^2 + p s^2."""
    p, s, parts, n = 6, 0.7, 4000, 8
    draw = torch.Generator().manual_seed(1)
    d = torch.linspace(-0.5, 1.0, p, dtype=torch.float64)
    x = torch.randn(parts, n, p, generator=draw, dtype=torch.float64)
    w = torch.ones(p, dtype=torch.float64, requires_grad=True)
    y = x @ (w.detach() - d) + s * torch.randn(parts, n, generator=draw, dtype=torch.float64)
    rows = [torch.autograd.grad(((xs @ w - ys) ** 2 / 2).mean(), w)[0] for xs, ys in zip(x, y, strict=True)]
    found = GradientNoise.of(torch.stack(rows), examples=n)
    square = float(d @ d)
    exact = (p + 1) * square + p * s**2
    assert found.signal == pytest.approx(square, rel=0.02)
    assert found.noise == pytest.approx(exact, rel=0.03)
    assert abs(math.log(found.batch / (exact / square))) < 3 * found.log_se
    assert 0.005 < found.log_se < 0.05


def test_without_bias_where_noise_is_twice_the_signal():
    """Over many small batches both numbers are right on the mean; |G_mean|^2 as it stands is far too large."""
    found = [GradientNoise.of(some_gradients(8, 5, seed) * 1.0, examples=2) for seed in range(4000)]
    signals, noises = np.array([g.signal for g in found]), np.array([g.noise for g in found])
    error = len(found) ** -0.5
    assert abs(signals.mean() - 5 * 0.3**2) < 3 * signals.std() * error
    assert abs(noises.mean() - 5 * 2) < 3 * noises.std() * error


def test_numpys_covariance_and_the_papers_two_batch_sizes_say_the_same():
    rows = some_gradients()
    found = GradientNoise.of(rows, examples=3)
    assert found.noise == pytest.approx(3 * np.trace(np.cov(rows.numpy(), rowvar=False)), rel=1e-12)
    small, big = 3, 3 * len(rows)
    of_small, of_big = float(rows.square().sum(1).mean()), float(rows.mean(0).square().sum())
    assert found.signal == pytest.approx((big * of_big - small * of_small) / (big - small), rel=1e-12)
    assert found.noise == pytest.approx((of_small - of_big) / (1 / small - 1 / big), rel=1e-12)


def test_the_error_is_that_of_leaving_out_each_part():
    rows = some_gradients()
    logs = [
        math.log(GradientNoise.of(torch.cat([rows[:k], rows[k + 1 :]]), 3).batch) for k in range(len(rows))
    ]
    expected = math.sqrt((len(rows) - 1) * np.var(logs))
    assert GradientNoise.of(rows, 3).log_se == pytest.approx(expected, rel=1e-9)


def test_the_error_is_the_scatter_of_estimates():
    found = [GradientNoise.of(some_gradients(64, 30, seed) + 0.3, examples=1) for seed in range(300)]
    scatter = np.std([math.log(g.batch) for g in found])
    assert np.mean([g.log_se for g in found]) == pytest.approx(scatter, rel=0.15)


def test_order_units_and_axes_do_not_matter():
    rows = some_gradients()
    found = GradientNoise.of(rows, 3)
    turn, _ = torch.linalg.qr(some_gradients(40, 40, seed=2))
    for other in (rows.flip(0), -5 * rows, rows @ turn):
        assert GradientNoise.of(other, 3).batch == pytest.approx(found.batch, rel=1e-9)
        assert GradientNoise.of(other, 3).log_se == pytest.approx(found.log_se, rel=1e-9)
    assert GradientNoise.of(-5 * rows, 3).noise == pytest.approx(25 * found.noise, rel=1e-12)


def test_a_signal_that_noise_drowns_is_no_batch():
    rows = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    found = GradientNoise.of(rows, 1)
    assert found.signal < 0
    assert found.batch == math.inf
    assert math.isnan(found.log_se)


@pytest.mark.parametrize("scheme", ["16", "w4a8", STORED])
def test_parts_of_a_models_batch_make_up_its_gradient(scheme):
    model = apply_scheme(Transformer(Shape(width=16, depth=1, heads=1, ffn=24), seed=3), Scheme.parse(scheme))
    StoredWeights(model).read()
    tokens = torch.randint(256, (12, 17), generator=torch.Generator().manual_seed(4))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    gradient_noise(
        model, inputs[:4], targets[:4], parts=4
    )  # scales of activations are set by the first batch
    found = gradient_noise(model, inputs, targets, parts=12)
    assert all(p.grad is None for p in model.parameters())
    rows = []
    for k in range(12):
        F.cross_entropy(model(inputs[k : k + 1]).flatten(0, 1), targets[k]).backward()
        rows.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad]))
        model.zero_grad()
    expected = GradientNoise.of(torch.stack(rows), examples=16)
    assert found.noise == pytest.approx(expected.noise, rel=1e-4)
    assert found.signal == pytest.approx(expected.signal, rel=1e-3)


def test_what_shows_no_noise_is_refused():
    with pytest.raises(ConfigError, match="2 parts of 8"):
        GradientNoise.of(some_gradients(2), 8)
    model = Transformer(Shape(width=16, depth=1, heads=1, ffn=24), seed=3)
    tokens = torch.zeros(6, 4, dtype=torch.long)
    with pytest.raises(ConfigError, match="6 sequences are not 4 equal parts"):
        gradient_noise(model, tokens, tokens, parts=4)
