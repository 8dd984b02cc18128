"""The figures of the precision paper, on rows drawn from its law: marks lie on it, and minima where it has them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tables
from conftest import TRUTH
from grid import COSINE, EQUAL, METHODS, TOKENS, full_grid
from matplotlib.figure import Figure as Canvas

import bitlaw as bl
from bitlaw import Runs
from bitlaw.errors import DataError, LawError
from bitlaw.planning import frontier, serving_frontier
from bitlaw.report import figures
from bitlaw.report.chart import Band, Chart, Line, NothingToDraw, Points
from bitlaw.report.draw import draw
from bitlaw.report.figures.gaps import schedules
from bitlaw.report.figures.precision import measured_factors
from bitlaw.report.interactive import plotly
from bitlaw.report.style import style
from bitlaw.report.view import View

ROWS = Path(__file__).parents[1] / "studies" / "thousandth" / "rows.parquet"
PARTS = ("w", "a", "kv")


def gptq(runs: Runs) -> Runs:
    return runs.filter(pl.col("method").is_null() | (pl.col("method") == "gptq"))


@cache
def fitted(law: str = "kumar-unified") -> bl.Fit:
    """To GPTQ after a constant rate; other methods and the cosine cost more, by known factors."""
    return bl.fit(law, gptq(full_grid()).filter(pl.col("schedule").ne_missing("cosine")), draws=30)


@cache
def view() -> View:
    return View.of(full_grid(), fitted())


def marks(chart: Chart, kind: type, label: str | None = None) -> list:
    return [m for m in chart.marks if isinstance(m, kind) and label in (None, m.label)]


def factor(part: str, bits: np.ndarray | float, values: dict[str, float]) -> np.ndarray:
    return 1 - np.exp(-np.asarray(bits) / values[f"gamma_{part}"] + values[f"n_{part}"])


# ---- all of them


def test_the_study_has_every_figure_of_the_paper_in_reading_order_and_both_printers_take_them():
    charts = figures.charts(full_grid(), fitted())
    names = [chart.name for chart in charts]
    assert len(set(names)) == len(names)
    told = (
        "best-bits-against-tokens",
        "equal-parameters-times-bits",
        "serving-optimal",
        "effective-parameters",
        "effective-parameters-by-format",
        "effective-parameters-by-granularity",
        "parts-multiply",
        *(f"gap-against-tokens-per-parameter-{method}-constant-cooldown-0.2" for method in METHODS),
        "gap-by-schedule-gptq",
        "gap-against-training-bits",
        "u-curves",
        "predicted-against-measured-gap",
        "gap-residuals-w-bits",
    )
    assert [name for name in names if name in told] == list(told)
    with style():
        for chart in charts:
            if chart.name in told:
                json.dumps(plotly(chart), allow_nan=False)
                draw(Canvas().subplots(), chart)
                assert chart.caption.endswith(".")


def test_tables_without_low_precision_have_none_of_them():
    plain = full_grid().filter(pl.all_horizontal(pl.col(f"{p}_format").is_null() for p in (*PARTS, "post")))
    names = {c.name for c in figures.charts(plain, bl.fit("chinchilla", plain, draws=0))}
    assert "loss-slices" in names
    assert not [
        n for n in names if n.startswith(("best-bits", "equal", "serving", "effective", "parts", "gap"))
    ]


# ---- figures 1 and 6: equal parameters times bits, and the best bits of a size


def test_equal_parameters_times_bits_have_their_minimum_where_the_law_has_it():
    chart = figures.equal_parameters_times_bits.chart(fitted(), view())
    [points], [line] = marks(chart, Points), marks(chart, Line)
    losses = dict(zip(points.x, points.y, strict=True))
    assert sorted(losses) == [4, 6, 8, 16, 32]
    rows = full_grid().frame.filter(pl.col("trunk").str.starts_with("equal"))
    assert sorted(points.y) == pytest.approx(sorted(rows["loss"]))
    x = np.asarray(line.x)
    held = np.exp(np.mean(np.log([n * b for n, b in zip(EQUAL.values(), (4, 6, 8, 16, 32), strict=True)])))
    bits = {f"{part}_bits": x for part in PARTS}
    assert np.asarray(line.y) == pytest.approx(
        fitted().predict(params=held / x, tokens=16e9, **bits), rel=1e-9
    )
    truth = bl.laws.kumar_unified.predict(TRUTH, params=held / x, tokens=np.full_like(x, 16e9), **bits)
    assert abs(x[np.argmin(line.y)] - x[np.argmin(truth)]) < 0.6
    best = rows.sort("loss")["w_format"][0] or "16-bit"
    assert f"{best} with" in chart.caption and "lowest loss measured" in chart.caption
    assert "4: e2m1" in chart.x.names and "32: 32-bit" in chart.x.names


def test_two_widths_are_no_group_of_equal_parameters_times_bits():
    some = full_grid().filter(pl.col("trunk").is_in(["equal e2m1", "equal e4m3"]) | (pl.col("tokens") < 14e9))
    with pytest.raises(NothingToDraw, match="no three bit widths"):
        figures.equal_parameters_times_bits.chart(fitted(), some.filter(pl.col("params") != 30e6))


def test_best_bits_of_a_size_obey_the_corrected_condition():
    """alpha A u N^-alpha dlnF/dlnP = beta B D^-beta, where F and u = F^-alpha are of all parts (section 4.3)."""
    chart = figures.best_bits_against_tokens.chart(fitted(), view(), sizes=[220e6, 1e9])
    v = fitted().values
    assert [line.label for line in marks(chart, Line)] == ["220M", "1B"]
    for size, line in zip((220e6, 1e9), marks(chart, Line), strict=True):
        assert (np.diff(line.y) >= 0).all()
        for bought, bits in zip(line.x, line.y, strict=True):
            if bits > 15.9:
                continue
            data = 16 * bought / bits
            f = np.prod([factor(part, bits, v) for part in PARTS])
            slope = sum(
                bits / v[f"gamma_{part}"] * (1 - factor(part, bits, v)) / factor(part, bits, v)
                for part in PARTS
            )
            beta = v.get("beta", v["alpha"])
            left = v["alpha"] * v["A"] * (f * size) ** -v["alpha"] * slope
            assert left == pytest.approx(beta * v["B"] * data**-beta, rel=2e-3)
    band = marks(chart, Band, "1B")[0]
    line = marks(chart, Line, "1B")[0]
    assert (np.asarray(band.low) <= np.asarray(line.y) + 0.2).all() and (
        np.asarray(band.high) + 0.2 >= line.y
    ).all()


def test_frontiers_of_published_constants_are_those_of_the_reference():
    for size, budgets, bits in (
        (1e9, (1e20, 1e21, 1e22), (8.05, 10.71, 13.61)),
        (8e9, (1e22, 1e23), (8.53, 11.26)),
    ):
        found = frontier("kumar-2024", budgets, params=size)
        assert found["bits"][:, 0] == pytest.approx(bits, abs=0.006)
        assert found["params"][:, 0] == pytest.approx(size)
        assert (6 / 16 * found["params"] * found["tokens"] * found["bits"])[:, 0] == pytest.approx(budgets)
        assert np.isnan(found["bits"][:, 1:]).all()


# ---- figure 9: serving


def test_serving_frontiers_of_published_constants_are_those_of_the_reference():
    found = serving_frontier("kumar-2024", [1e9, 1e10, 1e11])
    assert found["bits"][:, 0] == pytest.approx([5.82, 6.86, 7.87], abs=0.006)
    assert found["params"][:, 0] == pytest.approx([1.72e8, 1.46e9, 1.27e10], rel=0.005)
    assert found["tokens"][:, 0] == pytest.approx([1.14e12, 1.36e13, 1.57e14], rel=0.005)
    with pytest.raises(LawError, match="no gap by bits"):
        serving_frontier("chinchilla-2024", [1e9])
    small = gptq(full_grid()).filter(pl.col("tokens") < 4e9)
    named = bl.fit(
        "qid-per-format", small, draws=0
    )  # its gap knows formats by name, and not bits between them
    with pytest.raises(LawError, match="no gap by bits"):
        serving_frontier(named, [1e9])
    with pytest.raises(NothingToDraw, match="no gap by bits"):
        figures.serving_optimal.chart(named, small)


def test_a_gap_that_does_not_grow_with_tokens_has_no_best_ones():
    """The search ends at the most tokens there are, which is no optimum."""
    fit = bl.fit("kumar-unified", gptq(full_grid()), draws=0, fix={"gamma_D": -0.5})
    assert np.isnan(serving_frontier(fit, [1e9])["tokens"][0, 0])
    chart = figures.serving_optimal.chart(fit, view())
    assert not marks(chart, Line, "tokens") and marks(chart, Line, "params")
    assert "more tokens always help" in chart.caption


def test_serving_optimal_spends_the_budget_and_stops_at_the_critical_tokens():
    chart = figures.serving_optimal.chart(fitted(), view())
    params, tokens, bits = (np.asarray(marks(chart, Line, n)[0].y) for n in ("params", "tokens", "bits"))
    budgets = np.asarray(marks(chart, Line, "params")[0].x)
    assert params * bits == pytest.approx(budgets, rel=1e-6)
    for at in range(len(budgets)):
        critical = bl.plan(fitted(), params=params[at], quantize_to=f"int{round(bits[at])}")["tokens"].value
        v = fitted().values  # per bit, critical tokens grow by exp(1 / gamma_post / (gamma_D + beta))
        grow = np.exp(
            (bits[at] - round(bits[at])) / v["gamma_post"] / (v["gamma_D"] + v.get("beta", v["alpha"]))
        )
        assert tokens[at] == pytest.approx(critical * grow, rel=0.02)


# ---- figures 13, 15, 16, 17: formats


def test_formats_lie_on_the_factor_that_their_rows_were_drawn_with():
    chart = figures.effective_parameters_by_format.chart(fitted(), view())
    told = {points.label for points in marks(chart, Points)}
    assert told == {
        "integers", "integers, a tensor", "the paper's floats", "ExM3", "E3Mx", "blocks", "blocks, activations too"
    }  # fmt: skip
    for points in marks(chart, Points):
        bits = np.round(points.x)
        planted = factor("w", bits, TRUTH)
        if points.label.endswith("too"):
            planted = planted * factor("a", bits, TRUTH)
        assert np.asarray(points.y) == pytest.approx(planted, abs=0.05)
    hover = {points.label: " ".join(points.hover) for points in marks(chart, Points)}
    assert "e3m3" in hover["ExM3"] and "e3m3" in hover["E3Mx"] and "mxfp4" in hover["blocks"]
    assert f"mean of {len(TOKENS)} runs" in hover["blocks"]


def test_granularities_stand_beside_each_other_for_weights_and_activations():
    chart = figures.effective_parameters_by_granularity.chart(fitted(), view())
    labels = [line.label for line in marks(chart, Line) if line.label != "fitted law"]
    assert {
        "weights, a channel",
        "weights, a tensor",
        "activations, a tensor",
        "activations, a token",
    } <= set(labels)
    token = marks(chart, Points, "activations, a token")[0]
    assert np.asarray(token.y) == pytest.approx(factor("a", np.round(token.x), TRUTH), abs=0.05)
    one = full_grid().filter(
        pl.col("a_granularity").ne_missing("token"), pl.col("w_granularity").ne_missing("tensor")
    )
    with pytest.raises(NothingToDraw, match="no part has integers of two"):
        figures.effective_parameters_by_granularity.chart(fitted(), one)


# ---- figure 5: parts multiply


def test_parts_multiply_where_the_law_says_so():
    chart = figures.parts_multiply.chart(fitted(), view())
    assert {p.label for p in marks(chart, Points)} == {
        "w4 a4 kv4",
        "w6 a6 kv6",
        "w8 a8 kv8",
        "w4 a8",
        "w8 a8",
    }
    factors = dict(zip(view().trained["id"], measured_factors(view(), view().trained), strict=True))
    points = marks(chart, Points, "w4 a8")[0]
    rows = full_grid().frame
    for name, x, y in zip(points.ids, points.x, points.y, strict=True):
        own = rows.row(by_predicate=pl.col("id") == name, named=True)
        same = (pl.col("params") == own["params"]) & (pl.col("tokens") == own["tokens"])
        alone = rows.filter(same & pl.col("kv_format").is_null() & pl.col("post_format").is_null())
        of_w = alone.filter((pl.col("w_format") == "int4") & (pl.col("w_granularity") == "channel"))
        of_a = alone.filter((pl.col("a_format") == "int8") & (pl.col("a_granularity") == "tensor"))
        w = np.mean([factors[i] for i in of_w.filter(pl.col("a_format").is_null())["id"]])
        a = np.mean([factors[i] for i in of_a.filter(pl.col("w_format").is_null())["id"]])
        assert (x, y) == pytest.approx((w * a, factors[name]))
    ratio = float(chart.caption.partition("Measured over product: ")[2].split()[0])
    assert ratio == pytest.approx(1, abs=0.03)


def test_parts_that_do_not_multiply_are_seen_not_to():
    worse = pl.col("w_format").is_not_null() & pl.col("a_format").is_not_null()
    bent = Runs(
        full_grid().frame.with_columns(
            pl.when(worse).then(pl.col("loss") + 0.1).otherwise("loss").alias("loss")
        )
    )
    caption = figures.parts_multiply.chart(fitted(), bent).caption
    assert float(caption.partition("confidence ")[2].split(" to ")[1].split()[0]) < 0.95


# ---- figure 7: one law of all gaps


def test_predicted_gaps_lie_on_the_diagonal_and_what_is_not_shown_is_counted():
    table = gptq(full_grid())
    some = table.frame.filter(pl.col("gap").is_not_null())["id"].to_list()
    gap = (
        pl.when(pl.col("id").is_in(some[:3]))
        .then(-0.001)
        .when(pl.col("id") == some[3])
        .then(2e-6)
        .otherwise("gap")
    )
    changed = Runs(table.frame.with_columns(gap.alias("gap")))
    chart = figures.predicted_against_measured_gap.chart(fitted(), changed)
    assert "Not shown: 3 gaps are zero or less, and 1 are below 1e-05 nats" in chart.caption
    assert sum(len(p.x) for p in marks(chart, Points)) == len(some) - 4
    low = {name for p in marks(chart, Points) if p.hollow for name in p.ids}
    assert low == {
        i for i in some[4:] if changed.frame.row(by_predicate=pl.col("id") == i, named=True)["w_format"]
    }
    constant = changed.filter(pl.col("schedule").ne_missing("cosine"))
    for points in marks(figures.predicted_against_measured_gap.chart(fitted(), constant), Points):
        assert np.asarray(points.y) == pytest.approx(points.x, rel=0.2)
    with pytest.raises(NothingToDraw, match="no gap"):
        figures.predicted_against_measured_gap.chart(bl.fit("chinchilla", table, draws=0), table)


def test_gaps_by_bits_of_training_are_rows_and_law_of_one_cell():
    chart = figures.gap_against_training_bits.chart(fitted(), view())
    assert chart.title == "Gap by GPTQ by bits of training: 220M params on 13B tokens"
    line, points = marks(chart, Line, "3 bits")[0], marks(chart, Points, "3 bits")[0]
    law = fitted().law.predict_gap(
        fitted().values, params=220e6, tokens=13e9, w_bits=np.asarray(line.x), post_bits=3.0
    )
    assert np.asarray(line.y) == pytest.approx(law)
    assert list(points.x) == [4, 5, 6, 8, 10, 12, 16]
    assert np.asarray(points.y) == pytest.approx(np.interp(points.x, line.x, line.y), rel=0.15)
    other = figures.gap_against_training_bits.chart(fitted(), view(), params=30e6, tokens=3e9, method="rtn")
    assert "RTN" in other.title and "30M params on 3B tokens" in other.title
    with pytest.raises(NothingToDraw, match="trained in several bits"):
        figures.gap_against_training_bits.chart(fitted(), view(), params=7e9)


# ---- figure 21: errors by any column


def test_errors_by_method_are_the_factors_that_were_planted():
    rows = full_grid().filter(pl.col("schedule").ne_missing("cosine"))
    chart = figures.gap_residuals.chart(fitted(), rows, by="method")
    means = next(p for p in marks(chart, Points) if not p.faint)
    found = dict(zip(chart.x.names, means.y, strict=True))
    assert found == pytest.approx({method: 1 / cost for method, cost in METHODS.items()}, rel=0.04)


def test_errors_of_two_laws_are_of_the_same_rows():
    both = [fitted(), fitted("kumar-unified-n")]
    rows = gptq(full_grid())
    chart = figures.gap_residuals.chart(both, rows)
    single = [p for p in marks(chart, Points) if p.faint]
    assert [p.label for p in single] == ["kumar-unified", "kumar-unified-n"]
    assert set(single[0].ids) == set(single[1].ids)
    assert "16-bit" in chart.x.names and "kumar-unified-n: " in chart.caption
    with pytest.raises(DataError, match="no column 'nonsense'"):
        figures.gap_residuals.chart(fitted(), rows, by="nonsense")
    with pytest.raises(NothingToDraw, match="no row with a clear gap has seed"):
        figures.gap_residuals.chart(fitted(), rows, by="seed")
    with pytest.raises(DataError, match="the table of runs"):
        figures.gap_residuals.chart(both, view())


# ---- figures 2, 10, 11, 12: methods and schedules


def test_a_gap_figure_of_a_method_and_a_schedule_has_their_rows_alone():
    chart = figures.gap_against_ratio.chart(fitted(), view(), "rtn", "cosine")
    shown = {name for p in marks(chart, Points) for name in p.ids}
    wanted = full_grid().frame.filter((pl.col("method") == "rtn") & (pl.col("schedule") == "cosine"))
    assert shown == set(wanted["id"])
    assert "Trained with the schedule cosine." in chart.caption and "RTN" in chart.title
    with pytest.raises(NothingToDraw):
        figures.gap_against_ratio.chart(fitted(), view(), "nonsense")
    curves = figures.u_curves.chart(fitted(), view(), method="awq")
    after = {name for p in marks(curves, Points) if p.label != "as trained" for name in p.ids}
    assert after and all("awq" in name for name in after)


def test_schedules_stand_apart_by_the_factor_that_was_planted():
    chart = figures.gap_by_schedule.chart(
        fitted(), full_grid().filter(pl.col("params") != 60e6)
    )  # no ratio twice
    assert "3 bits by GPTQ" in chart.title
    means: dict[str, dict[float, float]] = {}
    for line in marks(chart, Line):
        means.setdefault(line.label, {}).update(zip(np.asarray(line.x).round(6), line.y, strict=True))
    assert set(means) == {"cosine", "constant, cooldown 0.2"}
    ratios = [gap / means["constant, cooldown 0.2"][x] for x, gap in means["cosine"].items()]
    assert np.exp(np.mean(np.log(ratios))) == pytest.approx(COSINE, rel=0.05)
    with pytest.raises(NothingToDraw, match="one schedule"):
        figures.gap_by_schedule.chart(fitted(), full_grid().filter(pl.col("schedule").ne_missing("cosine")))


def test_a_method_without_several_schedules_of_unquantised_models_is_passed_over():
    """GPTQ has most rows, and here none of unquantised models; names of schedules hang on no choice of rows."""
    low = pl.col("w_format").fill_null("bf16") != "bf16"
    runs = full_grid().filter((pl.col("method").fill_null("") != "gptq") | low)
    several = runs.filter((pl.col("method").fill_null("") != "rtn") | (pl.col("schedule") != "cosine"))
    for rows, method in ((runs, "rtn"), (several, "awq")):
        chart = figures.gap_by_schedule.chart(fitted(), rows)
        assert chart.name == f"gap-by-schedule-{method}"
    with pytest.raises(NothingToDraw, match="one schedule"):
        figures.gap_by_schedule.chart(fitted(), several, method="rtn")


def test_rates_are_told_where_there_are_several_and_none_is_lost():
    frame = full_grid().frame.filter(pl.col("schedule") == "cosine").head(3)
    rates = pl.Series("learning_rate", [0.01, 0.02, None], dtype=pl.Float64)
    named = schedules(frame.with_columns(rates, width=pl.Series([48, None, 48], dtype=pl.Int64)))
    assert named.to_list() == ["cosine, rate 0.48 / width", "cosine, rate 0.02", "cosine, rate not told"]


# ---- rows of others, and our own


def test_public_runs_of_equal_size_do_best_in_four_bits(public_data):
    """As QuEST says of its quantiser (Panferov et al. 2025, 2502.05003)."""
    runs = tables.quest(public_data, ("w", "a"))
    chart = figures.equal_parameters_times_bits.chart(bl.fit("kumar", runs, draws=0), runs)
    assert chart.caption.startswith(
        "Marks: single runs, n = 3. midrise4 with 103M params has the lowest loss"
    )
    [points], [line] = marks(chart, Points), marks(chart, Line)
    assert list(points.x) == [2, 4, 8] and 3.5 < line.x[int(np.argmin(line.y))] < 5.5


def test_our_own_rows_have_the_figures_of_gaps():
    runs = bl.read_runs(ROWS)
    fit = bl.fit("kumar-unified", gptq(runs), draws=0)
    charts = {c.name: c for c in figures.charts(gptq(runs), fit)}
    shown = charts["predicted-against-measured-gap"]
    there = gptq(runs).filter(pl.col("gap") > 1e-4, pl.col("post_format") != "int8").frame
    ids = {name for p in marks(shown, Points) for name in p.ids}
    assert len(ids) > 100 and len(set(there["id"]) & ids) > 0.9 * len(ids)
    cell = charts["gap-against-training-bits"]
    gaps = dict(zip(runs.frame["id"], runs.frame["gap"], strict=True))
    for points in marks(cell, Points):
        assert list(points.y) == [gaps[name] for name in points.ids]


# ---- intervals


def test_ends_of_intervals_are_the_same_whether_draws_are_missing_elsewhere_or_not():
    draws = np.random.default_rng(0).normal(size=(50, 4))
    draws[:, 1] = np.nan
    draws[3:9, 2] = np.nan
    low, high = view().ends(draws)
    known = [0, 2, 3]
    assert np.stack([low, high])[:, known] == pytest.approx(
        np.nanquantile(draws[:, known], [0.05, 0.95], axis=0)
    )
    assert np.isnan([low[1], high[1]]).all()
