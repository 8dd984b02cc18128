"""Training time predicted: exact where the model is a straight line, refused where it is none."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from typer.testing import CliRunner

from bitlaw import ConfigError, DataError, LabError, LawError, plan
from bitlaw.cli.main import app
from bitlaw.formats import Scheme
from bitlaw.lab.corpus import batch, read_corpus
from bitlaw.lab.dynamics import linearise, second_moments
from bitlaw.lab.model import Loaded, Transformer, save_model
from bitlaw.lab.precision import apply_scheme
from bitlaw.planning import Record, read_record, recovery
from bitlaw.planning.descent import Part
from bitlaw.planning.recovery import flow
from bitlaw.shapes import Shape

torch.set_num_threads(1)
LOSSES = {"cross-entropy": F.cross_entropy, "mse": F.mse_loss}


def problem(loss, examples=40, seed=0, features=6, outputs=3):
    """A linear model and data that it cannot fit."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(examples, features, generator=draw, dtype=torch.float64)
    model = nn.Linear(features, outputs).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=draw, dtype=torch.float64))
    values = torch.randn(examples, outputs, generator=draw, dtype=torch.float64)
    return model, x, values if loss == "mse" else values.argmax(-1)


def real_curve(model, x, y, loss, steps, optimizer, batch=None, seed=0, measured=None):
    """What torch's own optimiser does."""
    losses, draw = [], torch.Generator().manual_seed(seed)
    xs, ys = (x, y) if measured is None else measured
    for _ in range(steps + 1):
        losses.append(LOSSES[loss](model(xs), ys).item())
        some = slice(None) if batch is None else torch.randint(len(x), (batch,), generator=draw)
        optimizer.zero_grad()
        LOSSES[loss](model(x[some]), y[some]).backward()
        optimizer.step()
    return np.array(losses)


def kept(tmp_path, found, name="record"):
    """A record as the law half reads it."""
    found.save(tmp_path / name)
    return read_record(tmp_path / name)


def predicted(record, steps, **how):
    """The whole curve: the target is out of reach."""
    answer = recovery(record, target=-1.0, steps=steps, draws=0, lazy=math.inf, **how)
    return np.array(answer.curve)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_of_a_linear_model_the_curve_is_the_real_one(tmp_path, loss, momentum):
    model, x, y = problem(loss)
    record = kept(tmp_path, linearise(model, x, y, loss=loss, trained=30))
    assert record.exact and record.params == 21 and record.drift < 1e-12
    assert record.progress == pytest.approx(1, abs=1e-12)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum)
    real = real_curve(model, x[:30], y[:30], loss, 60, optimizer, measured=(x[30:], y[30:]))
    found = predicted(record, 60, learning_rate=0.05, momentum=momentum)
    assert np.abs(found / real - 1).max() < 1e-9


@pytest.mark.parametrize("loss", LOSSES)
def test_training_the_last_layer_alone_is_predicted_exactly_through_rounded_layers_too(tmp_path, loss):
    torch.manual_seed(0)
    shape = Shape(width=16, depth=2, heads=2, ffn=32, vocab=11)
    model = apply_scheme(Transformer(shape), Scheme.parse("w3a8")).double()
    for name, p in model.named_parameters():
        p.requires_grad_(name == "head.weight")
    tokens = torch.randint(11, (6, 9))
    x, y = tokens[:, :-1], tokens[:, 1:]
    if loss == "mse":
        y = F.one_hot(y, 11).double()
    record = kept(tmp_path, linearise(model, x, y, loss=loss, directions=200))
    assert record.exact and record.params == 176
    optimizer = torch.optim.SGD([model.head.weight], 0.5)
    losses = []
    for _ in range(31):
        f = model(x)
        value = F.mse_loss(f, y) if loss == "mse" else F.cross_entropy(f.flatten(0, 1), y.flatten())
        losses.append(value.item())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert np.abs(predicted(record, 30, learning_rate=0.5) / losses - 1).max() < 1e-6


def test_few_directions_hold_the_way_of_gradient_descent(tmp_path):
    """24 Lanczos vectors instead of 650 weights."""
    model, x, y = problem("cross-entropy", examples=200, features=64, outputs=10)
    found = linearise(model, x, y, directions=24)
    assert not found.exact and found.factor.shape[-1] == 24
    real = real_curve(model, x, y, "cross-entropy", 100, torch.optim.SGD(model.parameters(), 0.3))
    assert np.abs(predicted(kept(tmp_path, found), 100, learning_rate=0.3) / real - 1).max() < 5e-3


def test_outputs_fewer_than_directions_lose_nothing(tmp_path):
    model, x, y = problem("cross-entropy", examples=4, features=64, outputs=3)
    record = kept(tmp_path, linearise(model, x, y, directions=12))
    assert record.exact and record.factor.shape == (4, 1, 3, 12)
    real = real_curve(model, x, y, "cross-entropy", 40, torch.optim.SGD(model.parameters(), 0.05))
    assert np.abs(predicted(record, 40, learning_rate=0.05) / real - 1).max() < 1e-9


def test_classes_that_are_joined_change_neither_the_loss_nor_its_slope(tmp_path):
    model, x, y = problem("cross-entropy", examples=50, outputs=20)
    whole = kept(tmp_path, linearise(model, x, y, directions=140), "whole")
    joined = kept(tmp_path, linearise(model, x, y, directions=140, classes=8), "joined")
    assert joined.outputs.shape == (50, 1, 8)
    curves = [predicted(record, 200, learning_rate=0.01) for record in (whole, joined)]
    assert curves[0][0] == pytest.approx(curves[1][0], rel=1e-12)
    assert curves[0][0] - curves[0][1] == pytest.approx(curves[1][0] - curves[1][1], rel=1e-3)
    assert np.abs(curves[1] / curves[0] - 1).max() < 0.02  # the spread among the joined is lost


def test_mini_batches_are_within_their_noise(tmp_path):
    model, x, y = problem("cross-entropy", examples=64)
    record = kept(tmp_path, linearise(model, x, y))
    state = {name: t.clone() for name, t in model.state_dict().items()}
    ends = []
    for seed in range(40):
        model.load_state_dict(state)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        ends.append(real_curve(model, x, y, "cross-entropy", 30, optimizer, batch=8, seed=seed)[-1])
    drawn = [predicted(record, 30, learning_rate=0.1, batch=8, seed=seed)[-1] for seed in range(40)]
    apart = np.mean(drawn) - np.mean(ends)
    assert abs(apart) < 3 * math.hypot(np.std(drawn), np.std(ends)) / 40**0.5
    assert 0.6 < np.std(drawn) / np.std(ends) < 1.6


def test_adam_with_a_frozen_scale_is_predicted_exactly(tmp_path):
    """Of gradient descent on D^(-1/2) w, which is what Adam is once its second moments have settled."""
    model, x, y = problem("cross-entropy")
    moments = second_moments(model, x, y, batch=8)
    record = kept(tmp_path, linearise(model, x, y, second_moments=moments))
    losses, means = [], {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for step in range(1, 42):
        loss = F.cross_entropy(model(x), y)
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for (name, p), g in zip(model.named_parameters(), gradients, strict=True):
                means[name] += 0.1 * (g - means[name])
                p -= 0.01 * means[name] / (1 - 0.9**step) / (moments[name].sqrt() + 1e-8)
    found = predicted(record, 40, learning_rate=0.01, optimizer="adam")
    assert np.abs(found / losses - 1).max() < 1e-9
    with pytest.raises(LawError, match="says nothing of sgd"):
        recovery(record, learning_rate=0.01, target=0.1)
    of_eight = kept(tmp_path / "b", linearise(model, x, y, second_moments=moments, batch=8))
    for other in (None, 4):
        with pytest.raises(LawError, match="of batches of 8 examples"):
            recovery(of_eight, learning_rate=0.01, target=0.1, optimizer="adam", batch=other)
    assert recovery(of_eight, learning_rate=0.01, target=2.0, optimizer="adam", batch=8, draws=0).steps > 0


def test_the_closed_form_is_what_small_steps_do(tmp_path):
    model, x, y = problem("mse")
    record = kept(tmp_path, linearise(model, x, y, loss="mse", trained=25))
    small = predicted(record, 2000, learning_rate=1e-4)
    assert np.abs(small / flow(record, 1e-4 * np.arange(2001)) - 1).max() < 1e-3
    with pytest.raises(LawError, match="squared errors"):
        flow(kept(tmp_path, linearise(*problem("cross-entropy")), "other"), np.zeros(1))


@pytest.mark.parametrize("loss", LOSSES)
def test_half_the_rate_takes_twice_the_steps(tmp_path, loss):
    record = kept(tmp_path, linearise(*problem(loss), loss=loss))
    begin = predicted(record, 1, learning_rate=1e-3)[0]
    slow, fast = (
        recovery(record, learning_rate=rate, target=0.6 * begin, steps=5000, draws=0).steps
        for rate in (1e-3, 2e-3)
    )
    assert 100 < fast < 2500
    assert slow / fast == pytest.approx(2, rel=0.02)


def test_momentum_is_a_larger_rate_after_its_first_steps(tmp_path):
    record = kept(tmp_path, linearise(*problem("cross-entropy")))
    plain, heavy = (
        recovery(record, learning_rate=rate, momentum=m, target=1.0, steps=5000, draws=0).steps
        for rate, m in ((1e-2, 0.0), (1e-3, 0.9))
    )
    assert plain > 50 and abs(heavy - plain) < 2 / (1 - 0.9)


def test_a_rate_beyond_the_limit_is_refused_and_one_below_it_is_stable(tmp_path):
    model, x, y = problem("mse")
    record = kept(tmp_path, linearise(model, x, y, loss="mse"))
    features = torch.cat([x, torch.ones(40, 1)], 1)
    curvature = 2 / (40 * 3) * torch.linalg.eigvalsh(features.T @ features)[-1].item()
    for momentum in (0.0, 0.5):
        limit = 2 * (1 + momentum) / curvature
        with pytest.raises(LawError, match="unstable"):
            recovery(record, learning_rate=1.001 * limit, momentum=momentum, target=0.1)
        curve = predicted(record, 3000, learning_rate=0.98 * limit, momentum=momentum)
        assert np.isfinite(curve).all() and curve[-1] < 0.6 * curve[0]


def test_the_interval_is_as_wide_as_fresh_examples_say(tmp_path):
    """Many data sets of one kind, the same model: steps spread as the bootstrap of one of them says."""
    model = problem("cross-entropy")[0]
    answers = []
    for seed in range(30):
        _, x, _ = problem("cross-entropy", examples=60, seed=seed + 1)
        y = (x @ torch.ones(6, 3, dtype=torch.float64).cumsum(1)).sin().argmax(-1)
        start = F.cross_entropy(model(x), y).item()
        record = kept(tmp_path, linearise(model, x, y), str(seed))
        answers.append(recovery(record, learning_rate=0.1, target=start - 0.5, steps=2000, seed=seed))
    steps = np.array([answer.steps for answer in answers])
    middle = np.median(steps)
    inside = [answer.low <= middle <= answer.high for answer in answers]
    assert np.isfinite(steps).all() and steps.std() > 0.05 * middle
    assert sum(inside) >= 22  # of 30, at a nominal 90 %


def test_what_is_fast_is_the_residual_in_the_leading_directions(tmp_path):
    draw = np.random.default_rng(0)
    turned, _ = np.linalg.qr(draw.standard_normal((3, 3)))
    factor = (turned * [3.0, 2.0, 1.0])[:, None, None, :]
    residual = turned @ [0.6, 0.0, 0.8]
    record = Record(residual[:, None, None], np.zeros((3, 1, 1)), factor, "mse", trained=3)
    answer = recovery(record, learning_rate=0.01, target=0.2, draws=0)
    assert answer.leading == pytest.approx((0.36, 0.36, 1.0))


def moving(width=8, seed=0):
    """A small network far from where it is going."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3)).double()
    x = torch.randn(60, 4, dtype=torch.float64)
    return model, x, (3 * x[:, :3] * x[:, 1:]).argmax(-1)


def test_features_that_move_are_refused(tmp_path):
    record = kept(tmp_path, linearise(*moving(), directions=200))
    assert record.drift > 0.05 and record.exact
    near = recovery(record, learning_rate=0.1, target=0.98 * predicted(record, 1, learning_rate=0.1)[0])
    assert near.reached and 0 < near.drift < 0.4
    with pytest.raises(LawError, match="features move"):
        recovery(record, learning_rate=0.1, target=0.3)
    looked = recovery(record, learning_rate=0.1, target=0.3, lazy=math.inf, draws=0)
    assert looked.drift > 0.4


def test_what_is_not_reached_is_censored(tmp_path):
    record = kept(tmp_path, linearise(*problem("cross-entropy"), reference=0.1))
    answer = recovery(record, learning_rate=1e-3, within=0.05, steps=30)
    assert not answer.reached and answer.target == pytest.approx(0.15)
    assert len(answer.curve) == 31 and "not reached in 30 steps" in answer.notes[0]
    told = json.loads(json.dumps(answer.as_json(), allow_nan=False))
    assert told["steps"] is None and told["horizon"] == 30
    how = "90% confidence, bootstrap of examples, the line taken as it is"
    assert str(answer).startswith(f"more than 30 steps ({how}: more than 30 to more than 30) from a loss of")


def test_draws_are_said_to_be_followed_no_further_than_they_were(tmp_path):
    record = kept(tmp_path, linearise(*problem("mse"), loss="mse"))
    curve = predicted(record, 5, learning_rate=0.01)
    found = recovery(record, learning_rate=0.01, target=(curve[4] + curve[5]) / 2, steps=1000)
    assert found.steps == 5
    assert "to more than 30)" in str(replace(found, high=math.inf))


def test_a_record_without_real_steps_does_not_say_that_features_stay(tmp_path):
    record = replace(kept(tmp_path, linearise(*problem("mse"), loss="mse")), drift=0.0, moved=0.0)
    answer = recovery(
        record, learning_rate=0.01, target=0.99 * predicted(record, 1, learning_rate=0.01)[0], draws=0
    )
    assert any("nothing tells whether features move" in note for note in answer.notes)


def test_too_few_examples_are_learnt_by_heart_and_that_is_said(tmp_path):
    model, x, y = problem("mse", examples=60, features=12)
    with torch.no_grad():
        y = x[:, :3] + y
    for trained, told in ((10, True), (50, False)):
        record = kept(tmp_path, linearise(model, x, y, loss="mse", trained=trained), str(trained))
        answer = recovery(record, learning_rate=0.1, target=0.01, steps=3000, draws=0, lazy=math.inf)
        assert any("by heart" in note for note in answer.notes) == told


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ({}, ConfigError, "not both"),
        ({"target": 1.0, "within": 0.1}, ConfigError, "not both"),
        ({"within": 0.1}, ConfigError, "no reference"),
        ({"target": 99.0}, ConfigError, "already"),
        ({"target": math.nan}, ConfigError, "already"),
        ({"target": 0.5, "learning_rate": math.nan}, ConfigError, "rate"),
        ({"target": 0.5, "momentum": 1.0}, ConfigError, "momentum"),
        ({"target": 0.5, "optimizer": "lion"}, ConfigError, "no optimizer"),
        ({"target": 0.5, "optimizer": "adam"}, LawError, "nothing of adam"),
        ({"target": 0.5, "batch": 0}, ConfigError, "examples a step"),
        ({"target": 0.5, "steps": 0}, ConfigError, "steps"),
        ({"target": 0.5, "interval": 1.0}, ConfigError, "interval"),
        ({"target": 0.5, "lazy": 0.0}, ConfigError, "lazy"),
    ],
)
def test_questions_that_mean_nothing(tmp_path, how, error, says):
    record = kept(tmp_path, linearise(*problem("cross-entropy")))
    with pytest.raises(error, match=says):
        recovery(record, **{"learning_rate": 0.1, **how})


def test_what_cannot_be_linearised_is_said():
    model, x, y = problem("cross-entropy")
    with pytest.raises(ConfigError, match="examples"):
        linearise(model, x, y[:3])
    with pytest.raises(ConfigError, match="no loss"):
        linearise(model, x, y, loss="hinge")
    with pytest.raises(ConfigError, match="cannot train"):
        linearise(model, x, y, trained=0)
    with pytest.raises(ConfigError, match="targets of shape"):
        linearise(model, x, y, loss="mse")
    with pytest.raises(LabError, match="not finite"):
        linearise(model, x * math.inf, y)
    for p in model.parameters():
        p.requires_grad_(False)
    with pytest.raises(ConfigError, match="no weight"):
        linearise(model, x, y)
    tokens = torch.zeros(2, 4, dtype=torch.long)
    shape = Shape(width=16, depth=1, heads=1, ffn=16, vocab=11)
    for scheme, says in (
        ("w=int8 stored", "stored weights"),
        ("w=int8, grad_w=int8", "gradients that are rounded"),
        ("w=int3 stochastic", "rounded by chance"),
    ):
        with pytest.raises(LabError, match=says):
            linearise(apply_scheme(Transformer(shape), Scheme.parse(scheme)), tokens, tokens)


def test_the_model_and_its_gradients_stay_as_they_are():
    model, x, y = moving()
    before = [p.detach().clone() for p in model.parameters()]
    linearise(model, x, y)
    assert all(
        torch.equal(p, old) and p.grad is None for p, old in zip(model.parameters(), before, strict=True)
    )


def test_a_record_that_is_not_what_was_written_is_refused(tmp_path):
    found = linearise(*problem("cross-entropy"))
    found.save(tmp_path / "good")
    with pytest.raises(ConfigError, match="exists"):
        found.save(tmp_path / "good")
    manifest = json.loads((tmp_path / "good/MANIFEST.json").read_text())
    data = (tmp_path / "good/record.safetensors").read_bytes()
    with pytest.raises(DataError, match="cannot read"):
        read_record(tmp_path / "none")
    for change, says in (
        ({"bitlaw_dynamics": 9}, "another version"),
        ({"loss": "hinge"}, "hinge"),
        ({"loss": "mse"}, "targets"),
        ({"trained": 41}, "41 of 40"),
        ({"trained": -1}, "whole record"),
        ({"drift": math.nan}, "whole record"),
        ({"drift": "0"}, "whole record"),
        ({"optimizer": None}, "whole record"),
        ({"sha256": "0"}, "SHA-256"),
        ({"exact": 1}, "whole record"),
    ):
        (tmp_path / "good/MANIFEST.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(DataError, match=says):
            read_record(tmp_path / "good")
    (tmp_path / "good/MANIFEST.json").write_text(
        json.dumps({k: v for k, v in manifest.items() if k != "moved"})
    )
    with pytest.raises(DataError, match="whole record"):
        read_record(tmp_path / "good")
    (tmp_path / "good/MANIFEST.json").write_text(json.dumps(manifest))
    (tmp_path / "good/record.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DataError, match="SHA-256"):
        read_record(tmp_path / "good")


@pytest.mark.parametrize("what", ["nan", "class", "shape", "integers"])
def test_a_record_of_wrong_numbers_is_refused(what):
    f, y, G = np.zeros((3, 1, 2)), np.zeros((3, 1), int), np.ones((3, 1, 2, 4))
    if what == "nan":
        G[0] = math.nan
    elif what == "class":
        y[0] = 2
    elif what == "shape":
        G = G[:2]
    else:
        G = G.astype(int)
    with pytest.raises(DataError):
        Record(f, y, G, "cross-entropy", trained=3)


def error_at(width, seed):
    """|log(predicted / real)| of steps to 0.5 of the first loss, of a network as torch draws it."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 5)
    )
    x = torch.randn(60, 16)
    y = (x @ torch.randn(16, 5)).argmax(-1)
    found = linearise(model, x, y, directions=300)  # one each output: nothing is missing
    record = Record(
        *(t.numpy() for t in (found.outputs, found.targets, found.factor)), "cross-entropy", trained=60
    )
    curvature = Part(record, slice(0, 60), 300).curvature()
    rate = 0.5 / float(np.linalg.eigvalsh(curvature)[-1])
    target = 0.5 * F.cross_entropy(model(x), y).item()
    predicted = recovery(record, learning_rate=rate, target=target, draws=0, steps=3000).steps
    optimizer = torch.optim.SGD(model.parameters(), rate)
    real = np.argmax(real_curve(model, x, y, "cross-entropy", 400, optimizer) <= target)
    assert real > 0
    return abs(math.log(predicted / real))


@pytest.mark.slow
def test_the_wider_the_network_the_nearer_to_a_straight_line():
    means = [float(np.mean([error_at(width, seed) for seed in range(3)])) for width in (32, 96, 288)]
    assert means[0] > 1.25 * means[1] > 1.25**2 * means[2]
    assert means[2] < 0.75


def test_plans_are_made_with_a_record_in_place_of_a_law():
    line = np.array([[[1.0]], [[2.0]]])
    found = Record(line, np.zeros((2, 1, 1)), line[..., None], "mse", trained=2)
    answer = plan(
        found, loss=0.6, learning_rate=0.1
    )  # w halves at each step, the loss of 2.5 w^2 falls to a quarter
    assert answer["steps"].value == 2 and answer["loss"].given
    assert any("unstable" in note for note in answer.notes) and "None" not in str(answer)
    with pytest.raises(ConfigError, match="give learning_rate"):
        plan(found, loss=0.6)
    with pytest.raises(ConfigError, match="budget plays no part"):
        plan(found, loss=0.6, learning_rate=0.1, budget=1e20)
    with pytest.raises(ConfigError, match="learning_rate plays no part"):
        plan("kumar-2024", budget=1e20, learning_rate=0.1)


def test_a_model_of_a_study_becomes_a_record_and_a_plan(tmp_path):
    model, corpus = Transformer(Shape(width=32, depth=1, heads=2, ffn=80), seed=0), read_corpus(None)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for step in range(60):
        x, y = batch(corpus, 1, step, 8, 32)
        optimizer.zero_grad()
        F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
        optimizer.step()
    save_model(Loaded("tiny", "", model, None, 256, 32, Scheme(), {}), tmp_path / "tiny")
    record = tmp_path / "record"
    small = ["--windows", "6", "--measured", "2", "--directions", "4", "--classes", "8", "--json"]
    words = ["task", "recovery", str(tmp_path / "tiny"), "--scheme", "w2", "-o", str(record), *small]
    made = CliRunner().invoke(app, words)
    assert made.exit_code == 0, made.output
    told = json.loads(made.output)
    assert read_record(record).reference == pytest.approx(told["reference"])
    asked = ["plan", "--record", str(record), "--learning-rate", "0.01", "--json", "--loss"]
    answer = CliRunner().invoke(app, [*asked, str(told["loss"] - 1e-4)])
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.output)["answers"][0]["value"] >= 1
    too_high = CliRunner().invoke(app, [*asked, str(told["loss"] + 1)])
    assert isinstance(too_high.exception, ConfigError) and "already" in str(too_high.exception)


def test_a_model_that_ten_steps_lose_is_no_straight_line():
    x, y = batch(read_corpus(None), 0, 0, 6, 32)
    untrained = Transformer(Shape(width=32, depth=1, heads=2, ffn=80), seed=0)
    with pytest.raises(LabError, match="no straight line"):
        linearise(untrained, x, y, directions=4, classes=8)
