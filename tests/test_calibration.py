"""Calibration: measures and fits against scikit-learn, scipy and hand-made numbers; the split of a gap adds up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import approx_fprime, minimize, minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

from bitlaw import ConfigError, DataError
from bitlaw import calibration as cal
from bitlaw.calibration import fit as fitting
from bitlaw.calibration import objective as objectives
from bitlaw.calibration.fit import METHODS
from bitlaw.calibration.objective import OBJECTIVES, Weighting, class_weights, tune
from bitlaw.calibration.scaling import ClassTemperature, Ensemble, Parametric, Temperature


def drawn(n, classes, seed=0, offset=0.0):
    """Logits and labels drawn from the probabilities that they mean: calibrated, but for chance."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, (n, classes)) + offset * rng.normal(size=classes)
    below = softmax(z, axis=1).cumsum(axis=1) < rng.random((n, 1))
    return z, np.minimum(below.sum(axis=1), classes - 1)


Z, Y = drawn(600, 12)
HOT = 2.5 * Z  # too sure

# ---- measures


def test_proper_scores_are_scikit_learns():
    p = softmax(HOT, axis=1)
    labels = np.arange(12)
    assert cal.nll(HOT, Y) == pytest.approx(log_loss(Y, p, labels=labels), rel=1e-9)
    assert cal.brier(HOT, Y) == pytest.approx(
        brier_score_loss(Y, p, labels=labels, scale_by_half=False), rel=1e-9
    )
    assert cal.accuracy(HOT, Y) == accuracy_score(Y, HOT.argmax(axis=1))


def test_reliability_and_its_error_are_scikit_learns_curve():
    p = softmax(HOT, axis=1)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == Y
    share, mean = calibration_curve(right, confidence, n_bins=15)
    table = [b for b in cal.reliability(HOT, Y) if b.count]
    assert np.allclose([b.accuracy for b in table], share)
    assert np.allclose([b.confidence for b in table], mean)
    expected = sum(b.count * abs(b.accuracy - b.confidence) for b in table) / len(Y)
    assert cal.ece(HOT, Y) == pytest.approx(expected, rel=1e-9)


def test_classwise_error_is_the_mean_of_every_class_against_the_rest():
    p = softmax(HOT, axis=1)
    errors = []
    for k in range(12):
        place = np.clip(np.ceil(p[:, k] * 15) - 1, 0, 14)
        parts = [(Y[place == b] == k).sum() - p[place == b, k].sum() for b in range(15)]
        errors.append(np.abs(parts).sum() / len(Y))
    assert cal.classwise_ece(HOT, Y) == pytest.approx(np.mean(errors), rel=1e-9)


def test_by_hand():
    z = np.log([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.3, 0.7]])
    assert cal.ece(z, [0, 1, 1, 1], bins=2) == pytest.approx(abs(0.2 - 0.6 + 0.3 + 0.3) / 4)
    assert cal.class_losses(z, [0, 1, 1, 1])[1] == pytest.approx(-np.log([0.4, 0.7, 0.7]).mean())
    assert cal.class_loss_spread(z, [0, 0, 0, 0]) == 0


@given(st.integers(0, 2**32 - 1), st.floats(-1e4, 1e4), st.integers(2, 9))
@settings(max_examples=25, deadline=None)
def test_measures_ignore_offsets_and_the_order_of_samples(seed, offset, classes):
    z, y = drawn(40, classes, seed)
    order = np.random.default_rng(seed).permutation(40)
    for name in ("ece", "classwise_ece", "nll", "brier", "accuracy", "class_loss_spread"):
        value = getattr(cal, name)(z, y)
        assert value >= 0
        assert getattr(cal, name)((z + offset)[order], y[order]) == pytest.approx(value, abs=1e-7)


@given(
    arrays(float, (7, 4), elements=st.floats(-1e300, 1e300)), arrays(np.int64, 7, elements=st.integers(0, 3))
)
@settings(max_examples=25, deadline=None)
def test_extreme_logits_give_finite_measures_and_calibrators(z, y):
    z = z / 1e10 if np.abs(z).max() > 1e290 else z
    for name in ("ece", "classwise_ece", "brier", "accuracy"):
        assert np.isfinite(getattr(cal, name)(z, y))
    assert np.isfinite(cal.calibrate(np.clip(z, -1e6, 1e6), y).t)


def test_groups_of_one_class_are_classes_and_larger_ones_sum_probabilities():
    single = np.arange(12)[::-1].copy()
    assert cal.classwise_ece(HOT, Y, single) == pytest.approx(cal.classwise_ece(HOT, Y), rel=1e-12)
    assert np.allclose(cal.class_losses(HOT, Y, single)[single], cal.class_losses(HOT, Y))
    pairs = np.arange(12) // 2
    merged = np.log(softmax(HOT, axis=1).reshape(-1, 6, 2).sum(axis=2))
    assert cal.classwise_ece(HOT, Y, pairs) == pytest.approx(cal.classwise_ece(merged, Y // 2), rel=1e-9)


def test_work_in_blocks_is_the_same_work(monkeypatch):
    whole = cal.measure(HOT, Y, draws=20), cal.calibrate(HOT, Y, "class_temperature", "class_wise").t
    monkeypatch.setattr("bitlaw.calibration.arrays.BLOCK", 3000)
    for name, interval in cal.measure(HOT, Y, draws=20).items():
        assert interval.value == pytest.approx(whole[0][name].value, rel=1e-9)
    assert np.allclose(cal.calibrate(HOT, Y, "class_temperature", "class_wise").t, whole[1], rtol=1e-4)


def test_fifty_thousand_classes():
    z, y = drawn(20, 50_000)
    hot = (z * 2).astype(np.float32)
    groups = cal.frequency_groups(np.arange(50_000))
    assert cal.nll(hot, y) == pytest.approx(-log_softmax(hot.astype(float), axis=1)[np.arange(20), y].mean())
    assert cal.classwise_ece(hot, y, groups) < cal.classwise_ece(hot * 3, y, groups)
    scaled = cal.calibrate(hot, y, "class_temperature", groups=groups)
    assert scaled.t.shape == (10,) and cal.nll(scaled.apply(hot), y) < cal.nll(hot, y)


# ---- intervals


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    big = drawn(200_000, 5, seed=99)
    truth = {name: getattr(cal, name)(2 * big[0], big[1]) for name in ("nll", "accuracy", "ece")}
    hits = dict.fromkeys(truth, 0)
    for seed in range(120):
        z, y = drawn(400, 5, seed)
        for name, i in cal.measure(2 * z, y, list(truth), level=0.8, draws=200, seed=seed).items():
            hits[name] += i.low <= truth[name] <= i.high
    for name, hit in hits.items():
        assert 80 <= hit <= 112, name  # binomial(120, 0.8): 99.9 % within 81 to 109


def test_clusters_of_copies_widen_intervals_as_they_should():
    z, y = drawn(200, 5)
    alone = cal.measure(z, y, ["nll"])["nll"]
    copies = cal.measure(z.repeat(9, 0), y.repeat(9), ["nll"], clusters=np.arange(200).repeat(9))["nll"]
    assert (copies.low, copies.high) == pytest.approx((alone.low, alone.high))
    pretended = cal.measure(z.repeat(9, 0), y.repeat(9), ["nll"])["nll"]
    assert (alone.high - alone.low) / (pretended.high - pretended.low) == pytest.approx(3, rel=0.15)
    assert (copies.method, copies.kind, copies.level) == (
        "percentile bootstrap over clusters, widened as Student's t is",
        "confidence",
        0.9,
    )


# ---- objectives


def test_class_weights_on_hand_made_losses():
    losses = np.array([0.5, 1.0, 3.0])
    n = (losses - 1.5) / np.sqrt((1 + 0.25 + 2.25) / 3)
    for alpha, beta in ((1.0, 1.5), (0.2, 2.0)):
        weights = class_weights(losses, alpha, beta)
        assert np.allclose(weights, beta / (1 + np.exp(-n / alpha)) - beta / 2 + 1)
        assert (np.abs(weights - 1) < beta / 2).all() and (np.diff(weights) > 0).all()
    assert (class_weights(np.full(3, 0.7)) == 1).all()


@pytest.mark.parametrize("classes", [2, 3, 10, 45])
def test_alpha_and_beta_lie_within_their_bounds_and_are_better_than_the_start(classes):
    rng = np.random.default_rng(classes)
    first = rng.gamma(4, 0.5, classes)
    after = first.mean() + 0.7 * (first - first.mean()) + 0.05 * rng.normal(size=classes)
    alpha, beta = tune(first, after)
    assert 0.1 <= alpha <= np.log(classes) / 2 and 1.5 <= beta <= 2

    def off(alpha, beta):
        n = (after - after.mean()) / after.std()
        step = (beta / (1 + np.exp(-n / alpha)) - beta / 2) * (after - first)
        return np.linalg.norm(first - step - after.mean())

    grid = [off(a, b) for a in np.linspace(0.1, np.log(classes) / 2, 60) for b in np.linspace(1.5, 2, 11)]
    assert off(alpha, beta) <= off(min(1, np.log(classes) / 2), 1.5) + 1e-9
    assert off(alpha, beta) <= min(grid) * 1.02


def test_the_weighted_objective_has_the_weights_as_its_slope():
    losses = np.array([0.4, 0.9, 1.1, 2.0])
    frozen = Weighting(1.0, 0.6, 0.3, 1.8)
    slope = approx_fprime(losses, frozen.value, 1e-7)
    assert np.allclose(slope * 4, frozen.weights(losses), atol=1e-5)


def starts(method, groups):
    rng = np.random.default_rng(3)
    if method == "temperature":
        return Temperature(1.7)
    if method == "class_temperature":
        return ClassTemperature(rng.uniform(0.5, 3, groups.max() + 1), groups)
    if method == "ensemble":
        return Ensemble(2.1, (0.5, 0.3, 0.2))
    start = Parametric.start(HOT, 1.7, rng)
    return start.moved(start.coordinates() + rng.normal(0, 0.2, len(start.coordinates())))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_finite_differences(method, objective):
    groups = np.arange(12) // 2
    member = groups[Y]
    weighting = Weighting(1.0, 0.5, 0.4, 1.8) if objective == "class_wise" else None
    problem = fitting._Problem(HOT, Y, member, objective, weighting)
    start = starts(method, groups)
    u = start.coordinates()
    slope = problem.value_and_slope(start)[1]
    numeric = np.array(
        [
            (problem.value_and_slope(start.moved(u + h))[0] - problem.value_and_slope(start.moved(u - h))[0])
            / 2e-6
            for h in 1e-6 * np.eye(len(u))
        ]
    )
    assert np.abs(slope).max() > 1e-3
    assert np.allclose(slope, numeric, atol=1e-7)


def test_losses_by_hand():
    log_p = np.log([[0.7, 0.2, 0.1]])
    y = np.array([1])
    assert objectives.sample_losses("focal", log_p, y)[0] == pytest.approx(0.8**3 * -np.log(0.2))
    smooth = -0.95 * np.log(0.2) - 0.05 * np.log([0.7, 0.2, 0.1]).mean()
    assert objectives.sample_losses("label_smoothing", log_p, y)[0] == pytest.approx(smooth)


# ---- calibrators


def test_temperature_is_scipys_scalar_optimum_and_log_losss():
    found = cal.calibrate(HOT, Y).t
    other = minimize_scalar(
        lambda t: log_loss(Y, softmax(HOT / t, axis=1), labels=np.arange(12)),
        bounds=(0.1, 10),
        options={"xatol": 1e-9},
    )
    assert found == pytest.approx(other.x, rel=1e-5)


def test_class_temperatures_are_those_of_another_optimiser():
    z, y = drawn(500, 4, offset=1.0)
    centred = 2 * (z - z.mean(axis=1, keepdims=True))

    def loss(log_t):
        return log_loss(y, softmax(centred / np.exp(log_t), axis=1), labels=np.arange(4))

    other = minimize(
        loss, np.zeros(4), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12, "maxfev": 4000}
    )
    assert np.allclose(cal.calibrate(2 * z, y, "class_temperature").t, np.exp(other.x), rtol=1e-3)


def test_logits_of_fewer_bits_are_worked_on_in_double_precision():
    short = HOT.astype(np.float16)
    for name in METHODS:
        fitted = starts(name, np.arange(12))
        assert (fitted.apply(short) == fitted.apply(short.astype(float))).all()
    assert cal.calibrate(short, Y) == cal.calibrate(short.astype(float), Y)


@pytest.mark.parametrize("objective", ["cross_entropy", "class_wise"])
def test_calibrated_logits_are_left_alone(objective):
    z, y = drawn(60_000, 6)
    assert cal.calibrate(z, y, "temperature", objective).t == pytest.approx(1, abs=0.02)


@given(st.sampled_from(["temperature", "ensemble", "parametric"]), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_the_argmax_is_kept(method, seed):
    start = starts(method, np.arange(12))
    moved = start.moved(np.random.default_rng(seed).uniform(-6, 6, len(start.coordinates())))
    assert (moved.apply(HOT).argmax(axis=1) == HOT.argmax(axis=1)).all()


def test_richer_calibrators_fit_no_worse(monkeypatch):
    monkeypatch.setattr(fitting, "NETWORKS", 1)
    loss = {method: cal.nll(cal.calibrate(HOT, Y, method).apply(HOT), Y) for method in METHODS}
    assert cal.nll(HOT, Y) > loss["temperature"]
    assert loss["parametric"] <= loss["temperature"] and loss["class_temperature"] <= loss["temperature"]
    assert loss["ensemble"] <= loss["temperature"] + 1e-3  # its weights stay above a thousandth


@given(st.sampled_from(METHODS), st.floats(-50, 50))
@settings(max_examples=20, deadline=None)
def test_calibrators_see_probabilities_and_not_the_offset_of_logits(method, offset):
    fitted = starts(method, np.arange(12) // 2)
    p = softmax(fitted.apply(HOT), axis=1)
    assert np.allclose(softmax(fitted.apply(HOT + offset), axis=1), p, atol=1e-8)


def test_a_mixture_of_logits_would_be_a_temperature():
    """Why `ensemble` mixes probabilities."""
    mixed = 0.6 * HOT / 3 + 0.3 * HOT + 0.1 / 12
    assert np.allclose(softmax(mixed, axis=1), softmax(HOT * (0.6 / 3 + 0.3), axis=1))


def test_ensemble_is_the_mixture_of_probabilities():
    mixed = 0.5 * softmax(HOT / 2.1, axis=1) + 0.3 * softmax(HOT, axis=1) + 0.2 / 12
    assert np.allclose(softmax(Ensemble(2.1, (0.5, 0.3, 0.2)).apply(HOT), axis=1), mixed)


# ---- class-wise losses


@pytest.mark.parametrize("method", ["temperature", "class_temperature"])
def test_class_wise_scaling_ends_where_weighted_class_gradients_cancel(method):
    """Where the authors' algorithm would stand still: the weights are those of the losses that they lead to."""
    z, y = drawn(1500, 12, offset=0.7)
    y = np.where(np.random.default_rng(1).random(1500) < 0.2 * (y < 4), 7, y)  # what no temperature can mend
    start = Temperature(1.0) if method == "temperature" else ClassTemperature(np.ones(12), np.arange(12))
    first = cal.class_losses(z, y)
    one_round = fitting._Problem(z, y, y, "class_wise", Weighting.of(first))
    alpha, beta = tune(first, one_round.class_means(fitting._lowest(one_round, [start])))
    found = cal.calibrate(z, y, method, "class_wise")
    at = found.coordinates()

    def losses(u):
        return cal.class_losses(found.moved(u).apply(z), y)

    jacobian = np.array([(losses(at + h) - losses(at - h)) / 2e-5 for h in 1e-5 * np.eye(len(at))])
    weights = class_weights(losses(at), alpha, beta)
    weighted, unweighted = (np.abs(jacobian @ w).max() for w in (weights, np.ones(12)))
    assert weighted < 1e-3 * np.abs(jacobian).sum() and unweighted > 5 * weighted
    plain = cal.calibrate(z, y, method).apply(z)
    assert cal.class_loss_spread(found.apply(z), y) < cal.class_loss_spread(plain, y)


@pytest.mark.parametrize("method", METHODS)
def test_classes_without_samples_are_passed_over(method, monkeypatch):
    monkeypatch.setattr(fitting, "NETWORKS", 1)
    keep = (Y != 3) & (Y != 7)
    found = cal.calibrate(HOT[keep], Y[keep], method, "class_wise")
    assert np.isfinite(found.apply(HOT)).all()
    only = cal.calibrate(
        HOT[Y == 3], Y[Y == 3], "temperature", "class_wise"
    )  # one class: plain cross-entropy
    assert only.t == pytest.approx(cal.calibrate(HOT[Y == 3], Y[Y == 3]).t, rel=1e-3)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("method", ["temperature", "class_temperature", "ensemble"])
def test_groups_of_one_class_calibrate_as_classes(method, objective):
    single = np.random.default_rng(0).permutation(12)
    one, other = (cal.calibrate(HOT, Y, method, objective, groups) for groups in (None, single))
    assert np.allclose(softmax(one.apply(HOT), axis=1), softmax(other.apply(HOT), axis=1), atol=2e-3)


def test_one_group_of_all_classes_has_one_temperature():
    found = cal.calibrate(HOT, Y, "class_temperature", groups=np.zeros(12, int))
    assert found.t == pytest.approx([cal.calibrate(HOT, Y).t], rel=1e-5)


# ---- the gap in two parts


@given(st.integers(0, 1000), st.floats(0.3, 4.0), st.floats(0, 2))
@settings(max_examples=12, deadline=None)
def test_the_parts_add_up_to_the_gap(seed, heat, noise):
    rng = np.random.default_rng(seed)
    z, y = drawn(300, 5, seed)
    after = heat * z + noise * rng.normal(size=z.shape)
    split = cal.split_gap(z, after, y, np.arange(300) // 6, draws=20, seed=seed)
    on = split.measured
    assert split.gap.value == pytest.approx(cal.nll(after[on], y[on]) - cal.nll(z[on], y[on]), abs=1e-12)
    assert split.recoverable.value + split.remaining.value == pytest.approx(split.gap.value, abs=1e-12)
    mine = cal.nll(split.after.apply(after[on]), y[on]) - cal.nll(split.before.apply(z[on]), y[on])
    assert split.remaining.value == pytest.approx(mine, abs=1e-12)
    documents = np.arange(300) // 6
    assert not set(documents[on]) & set(documents[~on])


def test_a_pure_change_of_temperature_comes_back_whole_and_noise_does_not():
    z, y = drawn(6000, 8)
    documents = np.arange(6000) // 20
    hot = cal.split_gap(z, 2.5 * z, y, documents)
    assert hot.share.value == pytest.approx(1, abs=1e-4) and abs(hot.remaining.value) < 1e-4
    before_too = cal.split_gap(2 * z, 2.5 * z, y, documents)  # one-sided recovers more than the gap
    assert before_too.share.value == pytest.approx(1, abs=1e-4)
    assert before_too.one_sided.high < 0
    noisy = cal.split_gap(z, z + np.random.default_rng(1).normal(0, 1.5, z.shape), y, documents)
    assert noisy.remaining.low > 0.05 and noisy.share.high < 0.6


def test_two_equal_models_have_no_gap_and_no_share():
    split = cal.split_gap(HOT, HOT, Y, np.arange(600) // 6)
    assert (split.gap.low, split.gap.high, split.remaining.value) == (0, 0, 0)
    assert np.isnan([split.share.value, split.share.low, split.share.high]).all()


# ---- refusals

BAD = [
    (Z[0], Y, "samples, classes"),
    (Z[:, :1], Y * 0, "at least two classes"),
    (np.where(Z[5, 5] == Z, np.nan, Z), Y, "finite"),
    (np.where(Z[5, 5] == Z, -np.inf, Z), Y, "finite"),
    (Z.astype(object), Y, "real numbers"),
    (Z, Y[:-1], "one whole number"),
    (Z, Y.astype(float), "one whole number"),
    (Z, Y + 1, "between 0 and 11"),
    (Z, Y - 1, "between 0 and 11"),
    (Z[:0], Y[:0], "samples, classes"),
]


@pytest.mark.parametrize(("z", "y", "says"), BAD)
@pytest.mark.parametrize("function", [cal.ece, cal.nll, cal.calibrate, cal.measure, cal.reliability])
def test_bad_arrays_are_refused(function, z, y, says):
    with pytest.raises(DataError, match=says):
        function(z, y)


def test_bad_groups_clusters_and_settings_are_refused():
    with pytest.raises(DataError, match="without a hole"):
        cal.calibrate(Z, Y, groups=np.arange(12) * 2)
    with pytest.raises(DataError, match="each of the 12 classes"):
        cal.classwise_ece(Z, Y, groups=np.arange(11))
    with pytest.raises(DataError, match="clusters must name"):
        cal.measure(Z, Y, clusters=np.arange(5))
    with pytest.raises(DataError, match="at least two clusters"):
        cal.measure(Z, Y, clusters=np.zeros(600))
    with pytest.raises(ConfigError, match="did you mean 'temperature'"):
        cal.calibrate(Z, Y, "temprature")
    with pytest.raises(ConfigError, match="no objective 'mse'"):
        cal.calibrate(Z, Y, objective="mse")
    with pytest.raises(ConfigError, match="did you mean 'ece'"):
        cal.measure(Z, Y, ["ecee"])
    for wrong in ({"level": 1.0}, {"draws": 1}, {"bins": 0}):
        with pytest.raises(ConfigError):
            cal.measure(Z, Y, **wrong)
    with pytest.raises(DataError, match="same samples"):
        cal.split_gap(Z, Z[:, :5], Y, Y)
    with pytest.raises(DataError, match="each needs two"):
        cal.split_gap(Z, Z, Y, np.arange(600) % 3)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        cal.split_gap(Z, Z, Y, Y, validation=1.5)
    with pytest.raises(DataError, match="cannot make 3 groups"):
        cal.frequency_groups([1, 2, 0], 3)
    with pytest.raises(DataError, match="fitted to 12 classes"):
        cal.calibrate(Z, Y, "class_temperature").apply(Z[:, :5])
    with pytest.raises(DataError, match="10 largest logits"):
        starts("parametric", None).apply(Z[:, :5])


@pytest.mark.parametrize("clusters", [2, 3, 5])
def test_intervals_over_few_clusters_hold_the_truth(clusters):
    """300 data sets of clusters that differ; without Student's t three clusters held it in .69."""
    rng, held = np.random.default_rng(5), 0
    member = np.repeat(np.arange(clusters), 20)
    for seed in range(300):
        share = rng.uniform(0.2, 0.9, clusters)  # right answers of each, .55 in the mean
        right = rng.random(len(member)) < share[member]
        z = np.where(right[:, None], [[1.0, 0.0]], [[0.0, 1.0]])
        found = cal.measure(z, np.zeros(len(z), int), ["accuracy"], clusters=member, draws=200, seed=seed)
        held += found["accuracy"].low <= 0.55 <= found["accuracy"].high
        assert found["accuracy"].low >= 0 and found["accuracy"].high <= 1
    assert held / 300 > 0.83
