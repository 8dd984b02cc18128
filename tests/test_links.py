"""What laws are joined to: links, chains, rules, closed forms, and which parts go together."""

from __future__ import annotations

import csv
from itertools import product

import numpy as np
import pytest
from scipy.optimize import curve_fit, minimize_scalar

from bitlaw import ConfigError, DataError, LawError, Runs
from bitlaw.laws import (
    LAWS,
    chain,
    chinchilla,
    compatible,
    downstream,
    floating,
    from_spec,
    kumar,
    published,
    rules,
)
from bitlaw.laws.spec import BASE
from bitlaw.laws.terms import GAP, LOSS, PRECISION

SUN = published("sun-2025")
GADRE = {"c4_original": "c4", "rpj": "redpajama", "rw_original": "refinedweb"}


# ---- error from loss


def gadre_rows(folder, dataset):
    """(params, tokens per parameter, tokens, loss on C4, error) of the models of one training set."""
    with (folder / "gadre_openlm" / "tidy.csv").open() as file:
        for raw in csv.DictReader(file):
            if raw["train_dataset"] == dataset and raw["loss_c4_val"] and raw["err_avg17"]:
                n, m = float(raw["n_params"]), round(20 * float(raw["chinchilla_mult"]))
                yield n, m, float(raw["d_tokens"]), float(raw["loss_c4_val"]), float(raw["err_avg17"])


@pytest.mark.parametrize("dataset", GADRE)
def test_gadres_link_from_its_own_runs(public_data, dataset):
    """Plain least squares on six models, as the paper does."""
    rows = list(gadre_rows(public_data, dataset))
    chosen = [r for r in rows if r[0] < 2e9 and (r[1] == 20 or (r[1] == 320 and r[0] < 2e7))]
    assert len(chosen) == 6
    loss, error = np.array(chosen)[:, 3:].T
    found, _ = curve_fit(lambda x, e, k, g: e - k * np.exp(-g * x), loss, error, maxfev=10000)
    assert list(published(f"gadre-2024-{GADRE[dataset]}-error").values.values()) == pytest.approx(
        found, rel=1e-4
    )


@pytest.mark.parametrize(
    ("dataset", "params", "multiplier", "percent"),
    [
        ("c4_original", 6.9e9, 20, 0.14),
        ("rpj", 6.9e9, 20, 0.05),
        ("rw_original", 6.9e9, 20, 2.94),
        ("rpj", 1.4e9, 640, 3.64),
    ],
)
def test_gadres_errors_predicted_from_size_and_tokens(public_data, dataset, params, multiplier, percent):
    """As printed, up to the rounding of the constants."""
    link, law = (published(f"gadre-2024-{GADRE[dataset]}{end}") for end in ("-error", ""))
    both = chain(link.law, law.law)
    ((n, _, d, _, error),) = [
        r for r in gadre_rows(public_data, dataset) if abs(r[0] / params - 1) < 0.05 and r[1] == multiplier
    ]
    predicted = float(both.predict({**law.values, **link.values}, params=n, tokens=d))
    assert 100 * abs(predicted / error - 1) == pytest.approx(percent, abs=0.1)


def test_a_chain_is_the_link_of_the_loss():
    link, law = published("gadre-2024-c4-error"), published("kumar-2024")
    both = chain(link.law, law.law)
    assert both.target == "error"
    assert both.columns == law.law.columns
    at = {"params": 1e8, "tokens": 1e10, "post_bits": 4}
    values = {**law.values, **link.values}
    loss = law.law.predict(law.values, **at)
    assert both.predict(values, **at) == pytest.approx(
        float(link.law.predict(link.values, loss=loss)), rel=1e-14
    )
    trained = link.law.predict(link.values, loss=law.law.predict(law.values, params=1e8, tokens=1e10))
    assert both.predict_gap(values, **at) == pytest.approx(
        float(both.predict(values, **at) - trained), rel=1e-9
    )
    assert both.predict_gap(values, params=1e8, tokens=1e10) == 0
    assert list(both.display())[0] == "Err"
    with pytest.raises(LawError, match="too few bits"):
        both.predict(values, params=1e8, tokens=1e10, a_bits=3)


def test_a_chain_is_made_again_from_its_description():
    both = chain(BASE["gadre-error"], kumar)
    again = from_spec(both.spec.as_json())
    assert (again.loss, again.gap, again.names, again.target) == (both.loss, both.gap, both.names, "error")


def test_descriptions_from_before_links_are_read():
    spec = kumar.spec.as_json()
    del spec["link"]
    assert from_spec(spec).loss == kumar.loss


@pytest.mark.parametrize(
    ("link", "law", "words"),
    [
        ("chinchilla", "kumar", "it reads no loss"),
        ("gadre-error", "trajectory", "no expression of the loss"),
        ("gadre-error", "gadre-error", "no expression of the loss"),
    ],
)
def test_chains_that_mean_nothing_are_refused(link, law, words):
    with pytest.raises(ConfigError, match=words):
        chain(LAWS[link], LAWS[law])


def test_bits_a_byte():
    assert downstream.bits_per_byte([np.log(256), 2.0], [1, 2.885390081777927]) == pytest.approx([8, 1])
    with pytest.raises(ConfigError, match="must be positive"):
        downstream.bits_per_byte(2.0, 0)


def test_accuracy_of_quantised_models_speaks_of_quantised_models_only():
    law = LAWS["task-accuracy"]
    values = {"A": 900.0, "alpha": -0.36, "beta": -1.07, "gamma": -0.03, "delta": 0.07}
    at = {"params": 4e9, "calibration_samples": 128, "post_group": 128}
    by_hand = 900 * 4e9**-0.36 * 2**-1.07 * 7**-0.03 * 128**0.07
    assert law.predict(values, post_bits=4, **at) == pytest.approx(by_hand, rel=1e-12)
    with pytest.raises(LawError, match="quantised after training"):
        law.predict(values, post_bits=1e6, **at)
    with pytest.raises(LawError, match="two calibration texts"):
        law.predict(values, post_bits=4, **(at | {"calibration_samples": 1}))


# ---- rules


@pytest.mark.parametrize(("per_byte", "share"), [(18.6, 0.10), (264, 0.30), (4.3e3, 0.45), (7.7e4, 0.55)])
def test_dremovs_share_of_tokens(per_byte, share):
    assert rules.qat_fraction(1e9, per_byte * 1e9 / 2, 4) == pytest.approx(share, abs=0.005)


def test_the_share_grows_with_tokens_and_ends_where_it_says_nothing():
    shares = rules.qat_fraction(1e9, np.geomspace(6e8, 1e15, 20), 4)
    assert (np.diff(shares) > 0).all()
    assert ((shares > 0) & (shares < 1)).all()
    with pytest.raises(LawError, match="more than one token per byte"):
        rules.qat_fraction(1e9, [1e12, 5e8], 4)


# ---- floating point


@pytest.mark.parametrize(
    ("params", "exponent", "mantissa", "tokens"),
    [
        (1e9, 2, 1, 3.9e11),
        (1e9, 4, 3, 2.7e13),
        (70e9, 2, 1, 1.0e12),
        (70e9, 4, 3, 7.2e13),
        (70e9, 8, 7, 4.6e15),
        (1e9, 1, 1, 8.1e10),
    ],
)
def test_suns_critical_tokens(params, exponent, mantissa, tokens):
    found = float(floating.critical_tokens(params, exponent, mantissa, 128, SUN.values))
    assert found == pytest.approx(tokens, rel=0.05)
    at = {"params": params, "w_exponent": exponent, "w_mantissa": mantissa, "w_group": 128}
    lowest = minimize_scalar(
        lambda x: float(SUN.law.predict(SUN.values, tokens=np.exp(x), **at)),
        bounds=(np.log(tokens) - 5, np.log(tokens) + 5), method="bounded", options={"xatol": 1e-9},
    )  # fmt: skip
    assert np.exp(lowest.x) == pytest.approx(found, rel=1e-3)


def test_suns_layouts():
    e, m = floating.best_layout([4, 8, 16], SUN.values)
    assert np.round(e).tolist() == [2, 4, 8]
    assert np.round(m).tolist() == [1, 3, 7]
    assert e + m == pytest.approx([3, 7, 15])
    grid = np.linspace(0, 7, 7001)
    worth = (grid + 0.5) ** SUN.values["delta_w"] * (7 - grid + 0.5) ** SUN.values["nu_w"]
    assert grid[worth.argmax()] == pytest.approx(e[1], abs=1e-3)
    with pytest.raises(LawError, match="too few bits"):
        floating.best_layout(0.5, SUN.values)


@pytest.mark.parametrize(("tokens", "bits"), [(1e11, 4.27), (1e12, 5.18), (1e13, 6.28), (1e14, 7.62)])
def test_suns_best_bits(tokens, bits):
    """And they are the lowest loss at a fixed N D P, whatever that is."""
    found = float(floating.best_bits(tokens, 128, SUN.values))
    assert found == pytest.approx(bits, abs=0.005)

    def loss(p, budget):
        e, m = floating.best_layout(p, SUN.values)
        at = {"params": budget / (tokens * p), "tokens": tokens, "w_group": 128}
        return float(SUN.law.predict(SUN.values, w_exponent=e, w_mantissa=m, **at))

    for budget in (1e21, 1e24):
        best = minimize_scalar(
            lambda p, c=budget: loss(p, c), bounds=(2, 16), method="bounded", options={"xatol": 1e-9}
        )
        assert best.x == pytest.approx(found, rel=1e-4)


def test_unquantised_rows_have_no_penalty_and_integers_none_that_is_known():
    at = {"params": 1e9, "tokens": 1e11}
    assert SUN.law.predict(SUN.values, **at) == pytest.approx(
        1.9061 + 69.2343 / 1e9**0.2368 + 68973.0621 / 1e11**0.5162
    )
    assert SUN.law.predict(SUN.values, w_exponent=0, w_mantissa=3, w_group=64, **at) > SUN.law.predict(
        SUN.values, **at
    )
    with pytest.raises(LawError, match="two elements"):
        SUN.law.predict(SUN.values, w_exponent=4, w_mantissa=3, w_group=1, **at)
    with pytest.raises(ConfigError, match="must be zero or more"):
        SUN.law.predict(SUN.values, w_exponent=-1, w_mantissa=3, **at)
    runs = Runs.from_rows([{**at, "loss": 2.0}, {**at, "loss": 2.0, "w_format": "int4"}])
    for name in ("w_exponent", "w_mantissa"):
        first, second = runs.quantity(name)
        assert first == 1e6
        assert np.isnan(second)


# ---- groups


def chen(name, group, params=595e6, tokens=1e11):
    p = published(name)
    part = "a" if "w16" in name else "w"
    at = {"params": params, "tokens": tokens}
    low = p.law.predict(p.values, **at, **{f"{part}_format": "int4", f"{part}_group": group})
    return float(low - p.law.predict(p.values, **at))


def test_chens_coarse_scales_cost_what_the_paper_says():
    assert chen("chen-2025-w4a4", 2048) - chen("chen-2025-w4a4", 32) == pytest.approx(0.037, abs=0.0005)


def test_chens_parts_add_up():
    """delta(W4A4) is 0.906 of the sum of its parts; eight bits into the second layer cut it by a fifth."""
    grid = list(product((32, 64, 128, 256), (74e6, 145e6, 297e6, 595e6), (1e10, 2e10, 5e10, 1e11)))
    shares = [
        chen("chen-2025-w4a4", *x) / (chen("chen-2025-w4a16", *x) + chen("chen-2025-w16a4", *x)) for x in grid
    ]
    assert np.mean(shares) == pytest.approx(0.906, abs=0.02)
    cut = [1 - chen("chen-2025-w4a4-fc2-8", *x) / chen("chen-2025-w4a4", *x) for x in grid if x[0] == 32]
    assert np.mean(cut) == pytest.approx(0.205, abs=0.02)


# ---- what goes together


@pytest.mark.parametrize(
    ("base", "precision", "gap", "words"),
    [
        ("chinchilla", {"w": "kumar"}, "kumar-unified", ""),
        ("chinchilla", {"w": "additive-granular", "a": "kumar"}, "kumar", ""),
        ("trajectory", {"w": "efficiency"}, None, ""),
        ("broken", {"w": "additive-power"}, None, ""),
        ("broken", {"w": "kumar"}, None, "needs N"),
        ("broken", {}, "qid", "needs N"),
        ("trajectory", {"grad": "efficiency"}, None, "needs D"),
        ("trajectory", {"w": "additive-granular"}, None, "equation"),
        ("kaplan", {"w": "multiplicative-power"}, None, "stated on chinchilla"),
        ("outer", {"w": "floating-point"}, None, "stated on chinchilla"),
        ("chinchilla", {"a": "floating-point"}, None, "for weights only"),
        ("chinchilla", {"kv": "additive-granular"}, None, "for weights and activations only"),
        ("chinchilla", {"w": "kumar", "a": "additive-granular"}, "kumar-unified", "use 'kumar-unified-n'"),
        ("gadre-error", {}, "kumar", "predicts error, not loss"),
    ],
)
def test_pairs_that_mean_nothing_are_refused_with_a_reason(base, precision, gap, words):
    reason = compatible(base, precision, gap)
    assert words in reason
    assert bool(reason) == bool(words)
    if words:
        with pytest.raises(ConfigError) as caught:
            law = BASE[base].with_precision(**precision) if precision else BASE[base]
            law.with_gap(gap)
        assert str(caught.value) == reason


def test_a_tied_base_has_no_beta_left_to_share():
    assert "shares beta" in compatible(chinchilla.tie(beta="alpha"), {"w": "floating-point"})


def test_names_that_do_not_exist_are_not_a_reason():
    for question in (("chinchila",), ("chinchilla", {"w": "kumr"}), ("chinchilla", {}, "kumr")):
        with pytest.raises(ConfigError, match="there is no"):
            compatible(*question)


def test_what_goes_together_still_does_with_less():
    """Fits drop parts and gaps that no row tells anything about; none of that may be refused."""
    for base, (w, a), gap in product(
        ("chinchilla", "trajectory"), product(PRECISION, ("kumar", "additive-granular")), GAP
    ):
        if not compatible(base, {"w": w, "a": a}, gap):
            for less in ({"w": w}, {"a": a}, {}):
                assert not compatible(base, less, gap)
                assert not compatible(base, less)


@pytest.mark.slow
def test_pairs_that_go_together_know_every_letter_they_use():
    for base, form, gap in product(BASE, PRECISION, (None, *GAP)):
        if not compatible(base, {"w": form}, gap):
            law = BASE[base].with_precision(w=form)
            law = law.with_gap(gap) if gap else law
            declared = {i.symbol for i in law.inputs} | {p.symbol for p in law.parameters}
            used = (law.loss + law.gap).free_symbols.union(
                *(c.expression.free_symbols for c in law.conditions)
            )
            assert used <= declared | ({LOSS} if law.implicit else set()), law.name


@pytest.mark.parametrize("form", ["efficiency", "capacity", "additive-granular"])
def test_gaps_of_models_trained_unquantised_know_low_precision_whatever_the_form(form):
    law = chinchilla.with_precision(w=form).with_gap("kumar")
    law = law.for_labels({column: ("int4",) for column in law.label_columns})
    assert not law.reads_bits
    assert "w_bits" in law.columns
    values = {p.name: p.fixed if p.fixed is not None else p.start[1] for p in law.parameters}
    law.predict(values, params=1e8, tokens=1e9, post_bits=4)
    with pytest.raises(LawError, match="trained unquantised"):
        law.predict(values, params=1e8, tokens=1e9, w_bits=4, post_bits=3)


# ---- what rows give


def test_quantities_follow_from_columns():
    row = {"tokens": 1e9, "loss": 3.0}
    runs = Runs.from_rows(
        [
            {**row, "steps": 1000, "batch_size": 8, "seq_len": 100, "error": 0.5, "chance": 0.25},
            {**row, "steps": 1000, "error": 0.9, "chance": 0.25},
            {**row, "w_format": "int4", "w_group": 64, "width": 256},
            {**row, "w_format": "int4", "w_granularity": "channel", "width": 256},
            {**row, "w_format": "int4", "w_granularity": "tensor", "width": 256},
        ]
    )
    assert runs.quantity("batch_tokens").to_list() == [800.0, 1e6, None, None, None]
    assert runs.quantity("w_group").to_list() == [2.0, 2.0, 64.0, 256.0, None]
    assert runs.quantity("w_format=int4").to_list() == [0.0, 0.0, 1.0, 1.0, 1.0]
    assert runs.quantity("post_bits").to_list() == [1e6] * 5
    assert runs.quantity("w_capacity").to_list() == runs.capacity("w").to_list()
    accuracy = runs.quantity("neg_log_accuracy").to_list()
    assert accuracy[0] == pytest.approx(-np.log(1 / 3))
    assert accuracy[1:] == [None] * 4
    assert runs.quantity("steps").to_list() == [1000.0, 1000.0, None, None, None]
    for name in ("w_format", "stepz", "w_grop", "x_bits", "kv_group", "x_format=int4"):
        with pytest.raises(DataError, match="no quantity"):
            runs.quantity(name)


def test_every_law_reads_and_predicts_what_rows_can_give():
    runs = Runs.from_rows([{"tokens": 1e9, "loss": 3.0}])
    for law in LAWS.values():
        law = law.for_labels({column: ("int4",) for column in law.label_columns})
        for name in (*law.columns, law.target):
            assert len(runs.quantity(name)) == 1
