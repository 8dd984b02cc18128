"""Approaches 1 and 2: what they recover exactly, how they are biased, how often their intervals cover."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest

from bitlaw import ConfigError, FitError, Runs
from bitlaw.fitting.isoflop import isoflop
from bitlaw.fitting.minima import number_sizes
from bitlaw.laws import chinchilla

EVEN = {"E": 1.8, "A": 500.0, "B": 1500.0, "alpha": 0.35, "beta": 0.35}
EPOCH = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
LOPSIDED = {"E": 1.8, "A": 300.0, "B": 20000.0, "alpha": 0.3, "beta": 0.5}
BUDGETS = np.geomspace(1e18, 1e20, 5)
LADDER = np.geomspace(2e6, 3e10, 21)
AROUND = np.geomspace(1 / 4, 4, 7)  # sizes, relative to the best


def exponent(law):
    return law["beta"] / (law["alpha"] + law["beta"])


def best(law, flops):
    """N_opt of a Chinchilla law in closed form."""
    g = (law["alpha"] * law["A"] / law["beta"] / law["B"]) ** (1 / (law["alpha"] + law["beta"]))
    return g * (flops / 6) ** exponent(law)


def sweep(law, design, noise=0.0, rng=None, extra=None):
    """Rows of a design [(flops, sizes)], with noise on log loss."""
    rows = []
    for flops, sizes in design:
        for n in np.asarray(sizes):
            row = {"params": float(n), "tokens": float(flops / 6 / n)}
            loss = float(chinchilla.predict(law, **row))
            row["loss"] = loss * math.exp(noise * rng.standard_normal()) if noise else loss
            rows.append(row | (extra(flops, n) if extra else {}))
    return Runs.from_rows(rows)


def centred(law, sizes=AROUND, budgets=BUDGETS, shift=lambda c: 1.0):
    return [(c, best(law, c) * shift(c) * sizes) for c in budgets]


def ladder(law, wide=25.0):
    """The same sizes at each of six budgets: off centre by more at some than at others."""
    return [
        (c, LADDER[np.abs(np.log(LADDER / best(law, c))) < math.log(wide)])
        for c in np.geomspace(3e17, 3e20, 6)
    ]


def curves(law, sizes, noise=0.0, rng=None):
    rows = []
    for n in sizes:
        level = noise * rng.standard_normal() if noise else 0.0
        for d in n * np.geomspace(1, 500, 40):
            loss = float(chinchilla.predict(law, params=n, tokens=d)) * math.exp(level)
            rows.append({"params": float(n), "tokens": float(d), "loss": loss, "trunk": f"{n:.0f}"})
    return Runs.from_rows(rows)


# ---- what is exact


def test_a_symmetric_surface_on_centred_sizes_is_recovered_exactly():
    """alpha = beta and sizes alike on both sides: the valley is a hyperbolic cosine, whose parabola has its minimum."""
    path = isoflop(sweep(EVEN, centred(EVEN)))
    assert path.a.value == pytest.approx(0.5, abs=1e-6)
    assert path.b.value == pytest.approx(0.5, abs=1e-6)
    for minimum in path.minima:
        assert minimum.params.value == pytest.approx(best(EVEN, minimum.flops), rel=1e-6)
        assert minimum.tokens == pytest.approx(minimum.flops / 6 / minimum.params.value)
    assert path.bias == pytest.approx(0, abs=1e-5) and path.bias_params == pytest.approx(1, abs=1e-4)
    assert path.scale == pytest.approx(best(EVEN, 1.0), rel=1e-4)


def test_a_lopsided_surface_keeps_its_exponent_where_sizes_lie_alike():
    """All valleys have one shape in log N / N_opt: the minimum is off by one factor, and the exponent is exact."""
    path = isoflop(sweep(LOPSIDED, centred(LOPSIDED)))
    assert path.a.value == pytest.approx(exponent(LOPSIDED), abs=1e-6)
    factors = [m.params.value / best(LOPSIDED, m.flops) for m in path.minima]
    assert np.ptp(factors) < 1e-6 and abs(factors[0] - 1) > 0.02
    assert path.bias_params == pytest.approx(factors[0], rel=1e-3)


def test_a_symmetric_surface_does_not_help_sizes_that_drift_off_centre():
    drift = centred(EVEN, shift=lambda c: 2 * (c / 1e18) ** -0.3)
    path = isoflop(sweep(EVEN, drift), width=math.inf)
    assert 1e-3 < abs(path.a.value - 0.5) < 0.02
    assert path.bias == pytest.approx(path.a.value - 0.5, abs=1e-4)


def test_the_factor_of_a_wide_grid_is_that_of_the_nearest_parabola():
    """Least squares on (-w, w) in Legendre polynomials, by quadrature: slope and bend of L - E."""
    w = math.log(4)
    path = isoflop(sweep(LOPSIDED, centred(LOPSIDED, np.exp(np.linspace(-w, w, 401)))))
    x, weight = np.polynomial.legendre.leggauss(60)
    x, weight = w * x, w * weight
    valley = (
        np.exp(-LOPSIDED["alpha"] * x) / LOPSIDED["alpha"] + np.exp(LOPSIDED["beta"] * x) / LOPSIDED["beta"]
    )
    slope = 3 / (2 * w**3) * (weight * x * valley).sum()
    bend = 45 / (8 * w**5) * (weight * (x**2 - w**2 / 3) * valley).sum()
    assert path.bias_params == pytest.approx(math.exp(-slope / (2 * bend)), rel=1e-3)


def vertex(sizes, losses):
    x = np.log(sizes / sizes.mean())
    c2, c1, _ = np.polyfit(x, losses, 2)
    return math.log(sizes.mean()) - c1 / (2 * c2)


@pytest.mark.parametrize(("wide", "about"), [(6, 0.002), (25, 0.012)])
def test_the_bias_of_a_lopsided_surface_is_the_one_calculated(wide, about):
    """One ladder of sizes at all budgets, parabolas through all of them: against plain polyfits.

    The weights, one over the variance of log N_opt under equal relative noise, are taken by finite differences.
    """
    design = ladder(LOPSIDED, wide)
    path = isoflop(sweep(LOPSIDED, design), width=math.inf)
    places, weights = [], []
    for flops, sizes in design:
        loss = chinchilla.predict(LOPSIDED, params=sizes, tokens=flops / 6 / sizes)
        places.append(vertex(sizes, loss))
        moved = [vertex(sizes, loss * (1 + 1e-6 * unit)) - places[-1] for unit in np.eye(len(sizes))]
        weights.append(1 / np.square(np.array(moved) / 1e-6).sum())
    assert [m.params.value for m in path.minima] == pytest.approx(np.exp(places), rel=1e-9)
    log_c = np.log([c for c, _ in design])
    slope = np.polyfit(log_c, places, 1, w=np.sqrt(weights))[0]
    assert path.a.value == pytest.approx(slope, abs=1e-5)
    assert path.bias == pytest.approx(slope - exponent(LOPSIDED), abs=1e-5)
    assert path.bias == pytest.approx(about, rel=0.1)


def test_the_window_takes_the_bias_away():
    """Sizes that end below the best of the largest budget: there the whole valley is one slope."""
    runs = sweep(LOPSIDED, [(c, sizes[sizes < 3.1e9]) for c, sizes in ladder(LOPSIDED)])
    wide, narrow = isoflop(runs, width=math.inf), isoflop(runs)
    assert wide.bias > 0.03 > 0.003 > abs(narrow.bias)
    assert f"{wide.bias:+.4f}" in wide.notes[-1]


def test_the_envelope_of_even_steps_is_exact():
    path = isoflop(curves(EPOCH, np.geomspace(1e7, 2e10, 12)), approach=1)
    assert path.a.value == pytest.approx(exponent(EPOCH), abs=1e-3)
    assert abs(path.bias) < 1e-3
    assert [m.flag for m in path.minima] == ["cut off"] + ["ok"] * 10 + ["cut off"]


def test_the_bias_of_an_envelope_of_uneven_steps_is_told():
    sizes = [1e7, 1.3e7, 3e7, 4e7, 9e7, 3e8, 4e8, 1.5e9, 2e9]
    path = isoflop(curves(EPOCH, sizes), approach=1)
    assert abs(path.bias) > 2e-3
    assert path.bias == pytest.approx(path.a.value - exponent(EPOCH), abs=1e-3)


# ---- budgets, rows and flags


def test_compute_that_misses_its_budget_is_moved_to_it():
    rng = np.random.default_rng(0)
    rows = []
    for c, sizes in centred(EPOCH):
        for n in sizes:
            d = c / 6 / n * math.exp(rng.uniform(-0.08, 0.08))
            rows.append(
                {"params": n, "tokens": d, "loss": float(chinchilla.predict(EPOCH, params=n, tokens=d))}
            )
    found, given = (
        isoflop(Runs.from_rows(rows)),
        isoflop(Runs.from_rows(rows), budgets=["1e18 flops", *BUDGETS[1:]]),
    )
    for path in (found, given):
        assert path.a.value == pytest.approx(exponent(EPOCH), abs=4e-3)
        assert len(path.minima) == 5 and any("compute lies up to" in n for n in path.notes)
    assert given.minima[0].flops == pytest.approx(1e18)


def test_budgets_without_a_minimum_inside_are_flagged_and_not_used():
    design = centred(EVEN, budgets=np.geomspace(1e18, 1e20, 6))
    design[0] = (design[0][0], design[0][1] * 30)
    runs = sweep(EVEN, design)
    path = isoflop(runs, width=math.inf)
    assert [m.flag for m in path.minima] == ["outside the sizes"] + ["ok"] * 5
    assert math.isnan(path.minima[0].params.value) and path.df == 3
    assert path.a.value == pytest.approx(0.5, abs=1e-6)
    assert "1 of 6 minima are not used: outside the sizes" in path.notes
    rows = runs.frame.to_dicts()
    for row in rows[:7]:
        row["loss"] = 4 - (math.log(row["params"]) - math.log(rows[3]["params"])) ** 2 / 50
    assert isoflop(Runs.from_rows(rows), width=math.inf).minima[0].flag == "no minimum"


def test_flops_of_the_table_come_before_6nd():
    runs = sweep(EVEN, centred(EVEN), extra=lambda c, n: {"flops": 2 * c})
    path = isoflop(runs)
    assert path.flops_per == pytest.approx(12) and path.minima[0].flops == pytest.approx(2e18)
    assert path.minima[0].tokens == pytest.approx(1e18 / 6 / path.minima[0].params.value)
    assert path.bias_params == pytest.approx(1, abs=1e-4)
    uneven = sweep(EVEN, centred(EVEN), extra=lambda c, n: {"flops": c * (1 + 1e7 / n)})
    assert any("geometric mean" in n for n in isoflop(uneven, tolerance=0.3).notes)


def test_rows_of_low_precision_are_left_out():
    rows = sweep(EVEN, centred(EVEN)).frame.to_dicts()
    low = [
        {**row, "id": f"low-{k}", "w_format": "int4", "loss": row["loss"] + 0.3} for k, row in enumerate(rows)
    ]
    post = [
        {**row, "id": f"post-{k}", "post_format": "int4", "loss": row["loss"] + 0.3}
        for k, row in enumerate(rows)
    ]
    path = isoflop(Runs.from_rows([*rows, *low, *post]))
    assert path.a.value == pytest.approx(0.5, abs=1e-6) and path.rows == 35
    assert {
        "35 rows trained in low precision are left out",
        "35 rows quantised after training are left out",
    } <= set(path.notes)
    assert isoflop(Runs.from_rows(low)).a.value == pytest.approx(0.5, abs=1e-6)
    with pytest.raises(FitError, match="2 combinations of formats"):
        isoflop(Runs.from_rows([*low[:20], *({**row, "w_format": "int8"} for row in low[20:])]))


def test_sizes_that_are_rounded_are_one_size():
    assert number_sizes(np.array([3e8, 1e8, 1.0001e8, 2e8])).tolist() == [2, 0, 0, 1]


# ---- what is said


def test_the_best_size_of_a_budget_comes_with_its_interval():
    rng = np.random.default_rng(1)
    path = isoflop(sweep(EPOCH, centred(EPOCH), 0.003, rng))
    near, far = path.optimum("1e19 flops"), path.optimum(1e23)
    assert near.inside and not far.inside and "extrapolated" in str(far)
    for a in (near, far):
        assert a.params.low < a.params.value < a.params.high and a.tokens.low < a.tokens.value < a.tokens.high
        assert 6 * a.params.value * a.tokens.value == pytest.approx(a.flops)
        assert 6 * a.params.low * a.tokens.high == pytest.approx(a.flops)
    assert far.params.high / far.params.low > near.params.high / near.params.low
    assert path.b.low == pytest.approx(1 - path.a.high)
    with pytest.raises(ConfigError, match="flops"):
        path.optimum("a lot")


def test_a_path_prints_and_becomes_json():
    path = isoflop(sweep(EPOCH, centred(EPOCH), 0.003, np.random.default_rng(1)))
    text = str(path)
    for part in (
        "isoFLOP parabolas",
        "N_opt = G C^a",
        "90% interval",
        "confidence, Student's t",
        "3 degrees",
        "without noise",
    ):
        assert part in text
    assert max(map(len, text.splitlines())) <= 110
    data = json.loads(json.dumps(path.as_json(), allow_nan=False))
    assert data["a"]["value"] == path.a.value and len(data["minima"]) == 5 and "line" not in data


def test_budgets_that_share_trunks_get_a_cluster_bootstrap():
    rng = np.random.default_rng(0)
    design = ladder(EPOCH)
    own = {n: 0.003 * rng.standard_normal() for n in LADDER}
    rows = sweep(EPOCH, design, 0.001, rng).frame.to_dicts()
    for row in rows:
        near = min(own, key=lambda n: abs(n - row["params"]))
        row |= {"loss": row["loss"] * math.exp(own[near]), "trunk": f"{near:.0f}"}
    path, again = isoflop(Runs.from_rows(rows)), isoflop(Runs.from_rows(rows))
    assert path.method == "wild cluster bootstrap" and path.a == again.a
    assert path.a.low < exponent(EPOCH) < path.a.high
    plain = isoflop(Runs.from_rows({**row, "trunk": None} for row in rows))
    assert plain.a.value == path.a.value and plain.a.high - plain.a.low < path.a.high - path.a.low
    assert any("name it in the column trunk" in n for n in plain.notes)
    assert isoflop(Runs.from_rows(rows), draws=0).method.startswith("Student")


# ---- refusals


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"approach": 3}, "approach 3 is fit"),
        ({"interval": 1.5}, "interval must lie between 0 and 1"),
        ({"width": 1.0}, "width must be above 1"),
        ({"tolerance": 0.0}, "tolerance between 0 and 1"),
        ({"approach": 1, "budgets": [1e18]}, "drop budgets"),
        ({"budgets": ["many"]}, "cannot read 'many' as flops"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        isoflop(sweep(EVEN, centred(EVEN)), **settings)


def test_rows_that_are_too_few_are_refused_in_words():
    with pytest.raises(FitError, match="2 budgets have 4 sizes within 10%.*approach=1"):
        isoflop(sweep(EVEN, centred(EVEN, budgets=BUDGETS[:2])))
    with pytest.raises(FitError, match="0 budgets have 4 sizes"):
        isoflop(sweep(EVEN, centred(EVEN, sizes=AROUND[:3])))
    with pytest.raises(FitError, match=r"budget 1e\+18 flops has 3 sizes within 10%, and a parabola needs 4"):
        isoflop(sweep(EVEN, centred(EVEN, sizes=AROUND[:3])), budgets=list(BUDGETS))
    with pytest.raises(FitError, match="0 minima can be used.*5 of 5 minima.*outside the sizes.*both sides"):
        isoflop(sweep(EVEN, centred(EVEN, sizes=np.geomspace(10, 100, 6))))
    with pytest.raises(FitError, match="0 sizes have losses at two budgets"):
        isoflop(sweep(EVEN, centred(EVEN, shift=lambda c: c**0.05)), approach=1)
    short = [(c, np.geomspace(1e7, 1e8, 5)) for c in (1e18, 2e18)]
    with pytest.raises(FitError, match="0 minima can be used.*longer training curves"):
        isoflop(sweep(EVEN, short), approach=1)


# ---- intervals


def coverage(law, design, sweeps, noise=0.003, approach=2):
    rng = np.random.default_rng(11)
    hits = 0
    for _ in range(sweeps):
        runs = sweep(law, design, noise, rng) if approach == 2 else curves(law, design, noise, rng)
        a = isoflop(runs, approach).a
        hits += a.low <= exponent(law) <= a.high
    return hits / sweeps


@pytest.mark.slow
def test_the_interval_covers_in_forty_sweeps():
    assert 0.8 <= coverage(EPOCH, centred(EPOCH), 40) <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("law", [EVEN, EPOCH], ids=["even", "epoch"])
@pytest.mark.parametrize("design", [centred, ladder])
def test_the_interval_covers(law, design):
    """Nominal 90 %, 200 sweeps: the binomial 99 % band about 0.9 is 0.845 to 0.955."""
    assert 0.845 <= coverage(law, design(law), 200) <= 0.97


@pytest.mark.slow
def test_the_interval_of_an_envelope_covers_less_than_it_says():
    assert 0.78 <= coverage(EPOCH, np.geomspace(1e7, 2e10, 12), 200, 0.002, approach=1) <= 0.93


# ---- published tables


def setting(folder, *which):
    """Rows of one of Porian's settings; points of one size are read off one training curve, unless it is cosine."""
    names = ("source", "hparams", "warmup", "decay", "param_count_convention", "loss_kind")
    rows, reported = [], {}
    with (folder / "porian" / "tidy.csv").open() as file:
        for r in csv.DictReader(file):
            if tuple(r[n] for n in names) == which:
                trunk = None if r["decay"] == "chinchilla" else r["n_params"]
                row = {
                    "params": float(r["n_params"]),
                    "tokens": float(r["d_tokens"]),
                    "flops": float(r["isoflop"]),
                }
                rows.append({**row, "loss": float(r["loss"]), "trunk": trunk})
                if r["n_opt_reported"]:
                    reported[float(r["isoflop"])] = float(r["n_opt_reported"])
    return Runs.from_rows(rows), reported


#: Porian et al. 2024 (2406.19146), RefinedWeb: Kaplan's recipe; head counted; short warm-up; cosine; tuned.
PORIAN = [
    (("summary_df", "base", "long", "kaplan", "kaplan", "train"), 0.835),
    (("summary_df", "base", "long", "kaplan", "standard", "val"), 0.706),
    (("summary_df", "base", "short", "kaplan", "standard", "val"), 0.602),
    (("summary_df", "base", "short", "chinchilla", "standard", "val"), 0.571),
    (("summary_df", "tuned", "short", "const", "standard", "val"), 0.497),
]


@pytest.mark.parametrize(("approach", "near"), [(1, 0.02), (2, 0.035)])
def test_porians_path_from_kaplan_to_chinchilla(public_data, approach, near):
    """Porian et al. interpolate (Akima) and weigh by seed noise; parabolas and envelopes come this close."""
    found = []
    for which, published in PORIAN:
        runs, reported = setting(public_data, *which)
        path = isoflop(runs, approach)
        found.append(path.a.value)
        assert path.a.value == pytest.approx(published, abs=near)
        assert path.a.low - 0.005 < published < path.a.high
        if approach == 2:
            off = [
                math.log(m.params.value / n)
                for m in path.minima
                for c, n in reported.items()
                if m.flag == "ok" and abs(math.log(c / m.flops)) < 1e-6
            ]
            assert len(off) >= 10 and np.median(np.abs(off)) < 0.25
    assert found == sorted(found, reverse=True)


HOFFMANN = [6e18, 1e19, 3e19, 6e19, 1e20, 3e20, 6e20, 1e21, 3e21]


def epoch_runs(folder):
    with (folder / "epoch_chinchilla" / "tidy.csv").open() as file:
        return Runs.from_rows(
            {"params": float(r["n_params"]), "tokens": float(r["d_tokens"]), "loss": float(r["loss"])}
            for r in csv.DictReader(file)
            if r["epoch_excluded"] == "False"
        )


def test_the_rows_read_off_hoffmanns_figure(public_data):
    """They published .49 (approach 2) and .50 (1) from their own curves; these are 240 final losses, +-0.01 nat."""
    runs = epoch_runs(public_data)
    given, found, one = isoflop(runs, budgets=HOFFMANN), isoflop(runs), isoflop(runs, 1)
    assert given.a.value == pytest.approx(0.535, abs=0.003) and len(given.minima) == 9
    assert found.a.value == pytest.approx(0.532, abs=0.003)
    assert given.a.low < 0.50 and given.a.low < exponent(EPOCH) < given.a.high
    assert abs(given.bias) < 0.005  # so the parabola is not why it lies above approach 3's .513
    assert one.a.value == pytest.approx(0.506, abs=0.003) and one.a.low < 0.45 and one.a.high > 0.55
