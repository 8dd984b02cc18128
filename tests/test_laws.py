"""Laws: the paper's numbers to the printed digit, exact derivatives, refusals outside the domain."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import sympy as sp
from conftest import TRUTH
from hypothesis import given, settings
from hypothesis import strategies as st

from bitlaw.errors import ConfigError, LawError
from bitlaw.laws import LAWS, PUBLISHED, chinchilla, from_spec, get, kumar, kumar_unified, published
from bitlaw.laws.terms import LOSS

KUMAR = published("kumar-2024")


def loss(n, d, w=None, a=None, kv=None):
    bits = {f"{p}_bits": b for p, b in (("w", w), ("a", a), ("kv", kv)) if b is not None}
    return float(KUMAR.law.predict(KUMAR.values, params=n, tokens=d, **bits))


def gap(n, d, post):
    return float(KUMAR.law.predict_gap(KUMAR.values, params=n, tokens=d, post_bits=post))


# ---- numeric self-checks, section 7 of the paper's reference


@pytest.mark.parametrize(
    ("n", "losses"),
    [
        (30e6, (4.1005, 3.9543, 3.8507, 3.7703, 3.7202)),
        (60e6, (3.8578, 3.7116, 3.6080, 3.5276, 3.4775)),
        (110e6, (3.7042, 3.5580, 3.4544, 3.3740, 3.3239)),
        (220e6, (3.5769, 3.4307, 3.3271, 3.2466, 3.1966)),
    ],
)
def test_base_losses(n, losses):
    for d, expected in zip((1.5e9, 3e9, 6e9, 13e9, 26e9), losses, strict=True):
        assert loss(n, d) == pytest.approx(expected, abs=5.1e-5)


FACTORS = {
    3: (0.5587, None, 0.5102, None),
    4: (0.6964, 0.3314, 0.8276, 0.1910),
    5: (0.7911, 0.5747, 0.9393, 0.4271),
    6: (0.8563, 0.7295, 0.9786, 0.6113),
    7: (0.9011, 0.8279, 0.9925, 0.7404),
    8: (0.9320, 0.8906, 0.9974, 0.8278),
    10: (0.9678, 0.9557, 0.9997, 0.9246),
    12: (0.9847, 0.9821, 1.0000, 0.9671),
    16: (0.9966, 0.9971, 1.0000, 0.9937),
}


def factor(**bits):
    data = kumar.arrange({"params": 1.0, "tokens": 1.0, **{f"{p}_bits": float(b) for p, b in bits.items()}})
    return float(kumar.compiled.n_eff(kumar.vector(KUMAR.values), data))


@pytest.mark.parametrize("bits", FACTORS)
def test_factors_with_offsets(bits):
    w, a, kv, product = FACTORS[bits]
    assert factor(w=bits) == pytest.approx(w, abs=5.1e-5)
    assert factor(kv=bits) == pytest.approx(kv, abs=5.1e-5)
    if a is not None:
        assert factor(a=bits) == pytest.approx(a, abs=5.1e-5)
        assert factor(w=bits, a=bits, kv=bits) == pytest.approx(product, abs=5.1e-5)


@pytest.mark.parametrize(
    ("n", "d", "bits", "expected"),
    [
        (30e6, 13e9, (3, None, None), 4.0497),
        (30e6, 13e9, (4, None, None), 3.9344),
        (30e6, 13e9, (8, None, None), 3.8000),
        (220e6, 13e9, (4, None, None), 3.3077),
        (110e6, 13e9, (None, 4, None), 3.6934),
        (110e6, 13e9, (None, 8, None), 3.3999),
        (110e6, 13e9, (None, None, 4), 3.4171),
        (110e6, 13e9, (None, None, 8), 3.3746),
        (220e6, 13e9, (4, 4, 4), 3.6419),
        (220e6, 13e9, (6, 6, 6), 3.3325),
        (220e6, 13e9, (8, 8, 8), 3.2771),
        (220e6, 13e9, (16, 16, 16), 3.2476),
        (220e6, 13e9, (4, 8, 6), 3.3339),
        (1.76e9, 16e9, (4, 4, 4), 3.1710),
        (1.17e9, 16e9, (6, 6, 6), 3.0925),
        (880e6, 16e9, (8, 8, 8), 3.0909),
        (440e6, 16e9, (16, 16, 16), 3.1402),
        (220e6, 16e9, (32, 32, 32), 3.2298),
    ],
)
def test_training_losses(n, d, bits, expected):
    assert loss(n, d, *bits) == pytest.approx(expected, abs=5.1e-5)


@pytest.mark.parametrize(
    ("n", "post", "short", "long"),
    [
        (30e6, 3, 0.1380, 0.5858),
        (30e6, 4, 0.02539, 0.1078),
        (30e6, 5, 0.00467, 0.01983),
        (220e6, 3, 0.06955, 0.2952),
        (220e6, 4, 0.01280, 0.05432),
        (220e6, 6, 0.000433, 0.001839),
        (8e9, 4, 0.00372, 0.01578),
    ],
)
def test_gaps(n, post, short, long):
    for d, expected in ((1.5e9, short), (26e9, long)):
        assert gap(n, d, post) == pytest.approx(expected, rel=2e-3)


def test_the_unified_gap_is_not_monotone_in_training_bits():
    """With C_w = 1 the smaller effective size briefly outweighs robustness (section 5.4)."""
    values = {**TRUTH, "C_w": 1.0}
    expected = {16: 0.3252, 8: 0.3305, 6: 0.3256, 5: 0.3044, 4: 0.2325}
    for bits, value in expected.items():
        got = kumar_unified.predict_gap(values, params=60e6, tokens=13e9, w_bits=bits, post_bits=3)
        assert float(got) == pytest.approx(value, abs=1e-4)


def test_equal_training_and_serving_bits_leave_no_gap():
    assert kumar_unified.predict_gap(TRUTH, params=60e6, tokens=13e9, w_bits=4, post_bits=4) == 0


# ---- domains


def test_too_few_bits_are_refused_not_clamped():
    with pytest.raises(LawError, match="activations have too few bits"):
        loss(30e6, 1e9, a=3)


def test_two_negative_factors_do_not_make_a_positive_one():
    with pytest.raises(LawError):
        loss(30e6, 1e9, a=2, kv=2)


def test_the_plain_gap_refuses_models_trained_in_low_precision():
    with pytest.raises(LawError, match="kumar-unified"):
        kumar.predict(KUMAR.values, params=3e7, tokens=1e9, w_bits=8, post_bits=4)


def test_quantising_to_more_bits_than_trained_is_refused():
    with pytest.raises(LawError, match="more bits than the w part"):
        kumar_unified.predict(TRUTH, params=3e7, tokens=1e9, w_bits=4, post_bits=6)


def test_inputs_that_a_law_does_not_know_are_named():
    with pytest.raises(ConfigError, match="did you mean 'w_bits'"):
        kumar.predict(KUMAR.values, params=1e6, tokens=1e6, w_bit=4)
    with pytest.raises(ConfigError, match="needs tokens"):
        kumar.predict(KUMAR.values, params=1e6)


# ---- composing


def test_laws_compose_and_are_made_again_from_their_description():
    for law in LAWS.values():
        again = from_spec(law.spec.as_json())
        assert again.loss == law.loss
        assert again.gap == law.gap
        assert again.names == law.names


def test_precision_is_not_applied_twice():
    with pytest.raises(ConfigError, match="already"):
        chinchilla.with_precision(w="kumar").with_precision(a="kumar")


@pytest.mark.parametrize(
    "spec", [{}, {"base": "os"}, {"base": "chinchilla", "precision": [], "gap": 3, "ties": {}}, [1]]
)
def test_a_foreign_description_is_refused(spec):
    with pytest.raises(ConfigError):
        from_spec(spec)


def test_unknown_names_hint_at_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'kumar-2024'"):
        published("kumar-2042")
    with pytest.raises(ConfigError, match="did you mean 'chinchilla'"):
        get("chinchila")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_constants_fit_their_law(name):
    p = PUBLISHED[name]
    sizes = {"params": 1e9, "tokens": 2e10, "unique_tokens": 1e10}
    others = {"steps": 4e4, "batch_tokens": 5e5, "loss": 2.8}
    data = {c: x for c, x in (sizes | others).items() if c in p.law.columns}
    low, high = {"loss": (1, 5), "error": (0.3, 0.9)}[p.law.target]
    assert low < p.law.predict(p.values, **data) < high
    for parameter in p.law.parameters:
        unit = {**data, "params/tokens": 0.05, None: 1}[parameter.scale_of]
        assert parameter.low * unit <= p.values[parameter.name] <= parameter.high * unit


# ---- derivatives, against two independent ways


def point(law, draw):
    return np.array(
        [
            np.exp(draw(st.floats(np.log(p.start[0]), np.log(p.start[1]))))
            if p.positive
            else draw(st.floats(p.start[0], max(p.start[1], p.start[0] + 1e-9)))
            for p in law.parameters
        ]
    )


@pytest.mark.parametrize("name", LAWS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_jacobians_agree_with_mpmath(name, data):
    law = get(name)
    law = law.for_labels({column: ("int3", "int4") for column in law.label_columns})
    units = {None: 1, "params": 3e7, "tokens": 2e9, "params/tokens": 1}
    theta = point(law, data.draw) * [units[p.scale_of] for p in law.parameters]
    row = {"params": 3e7, "tokens": 2e9, "w_bits": 6.0, "a_bits": 7.0, "kv_bits": 5.0, "post_bits": 4.0}
    row |= {"w_sparsity": 0.5, "unique_tokens": 1e9, "w_capacity": 3.1, "a_capacity": 4.0, "kv_capacity": 2.2}
    row |= {"w_exponent": 4.0, "w_mantissa": 3.0, "w_group": 64.0, "a_group": 128.0, "post_group": 32.0}
    row |= {"steps": 4e3, "batch_tokens": 5e5, "loss": 3.1, "calibration_samples": 128.0}
    row |= {i.column: 1.0 for i in law.inputs if i.label == "int4"}
    row = {i.column: np.array([row.get(i.column, i.default)]) for i in law.inputs}
    value, jacobian = law.compiled.total.jacobian(theta, row)
    factors = [
        m
        for m, c in zip(law.compiled.margins(theta, row), law.conditions, strict=True)
        if c.expression.has(sp.exp)
    ]
    if not np.isfinite(value).all() or any(
        (m < 1e-3).any() for m in factors
    ):  # complex beyond the domain's edge
        return
    expression = law.loss + law.gap
    inputs = {i.symbol: sp.Float(row[i.column][0], 40) for i in law.inputs}
    symbols = [p.symbol for p in law.parameters]
    right = sp.lambdify([LOSS, *symbols], expression.subs(inputs), "mpmath")

    def function(*theta):
        if not law.implicit:
            return right(None, *theta)
        start = mpmath.mpf(float(value[0]))
        return mpmath.findroot(lambda x: x - right(x, *theta), (start, start * (1 + mpmath.mpf(10) ** -9)))

    with mpmath.workdps(40):
        assert abs(function(*map(mpmath.mpf, map(float, theta))) / float(value[0]) - 1) < 1e-13
        exact = [mpmath.mpf(float(t)) for t in theta]
        for k in range(len(theta)):
            slope = mpmath.diff(lambda x, k=k: function(*exact[:k], x, *exact[k + 1 :]), exact[k])
            typical = abs(float(value[0])) / max(abs(theta[k]), 1.0)
            scale = max(abs(float(slope)), 1e-4 * typical)  # sums of powers cancel
            assert abs(jacobian[0, k] - float(slope)) <= 1e-9 * scale


def test_a_constant_derivative_has_the_shape_of_the_rows():
    rows = chinchilla.arrange({"params": np.full(5, 1e7), "tokens": np.full(5, 1e9)})
    _, jacobian = chinchilla.compiled.total.jacobian(np.ones((3, 5)), rows)
    assert jacobian.shape == (3, 5, 5)
    assert (jacobian[..., 0] == 1).all()


def test_linear_parameters_are_found():
    names = [kumar_unified.names[k] for k in kumar_unified.compiled.total.linear]
    assert names == ["E", "A", "B", "C_T"]


def test_unquantised_parts_have_no_derivative():
    rows = kumar.arrange({"params": np.array([1e7]), "tokens": np.array([1e9])})
    _, jacobian = kumar.compiled.total.jacobian(kumar.vector(KUMAR.values), rows)
    idle = [
        kumar.names.index(n) for n in ("gamma_w", "n_w", "gamma_a", "n_a", "gamma_kv", "n_kv", "gamma_post")
    ]
    assert (jacobian[0, idle] == 0).all()
