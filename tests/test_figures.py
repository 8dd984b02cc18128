"""The figures: their numbers are those of fits, plans and rows, and both printers show them."""

from __future__ import annotations

import html
import json
from functools import cache

import numpy as np
import PIL.Image
import polars as pl
import pytest
import tables
from conftest import synthetic_sweep
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure as Canvas

import bitlaw as bl
from bitlaw import Runs, calibration
from bitlaw.errors import ConfigError, DataError
from bitlaw.fitting import influence, profiles
from bitlaw.report import figures
from bitlaw.report.chart import Axis, Band, Bars, Chart, Contours, Line, NothingToDraw, Points, Rule
from bitlaw.report.draw import draw
from bitlaw.report.figures.base import Figure
from bitlaw.report.interactive import plotly
from bitlaw.report.style import COLOURS, STAR, colour, marker, style
from bitlaw.report.ticks import log_ticks, placed, symlog_ticks, unplaced

EVIL = "<script>alert(1)</script>$\\frac{a}{ & $"


@cache
def rows() -> Runs:
    return synthetic_sweep(0, paired=True, post_of_low=False)


@cache
def fitted() -> bl.Fit:
    return bl.fit("kumar", rows(), hold_out=bl.largest(), draws=60)


@cache
def compared() -> bl.Comparison:
    return bl.compare(rows(), ["kumar", "chinchilla"])


@cache
def grid() -> Runs:
    """Unquantised rows of three sizes and three token counts with noise."""
    rng = np.random.default_rng(3)
    sizes = [(n, d) for n in (1e6, 3e6, 1e7) for d in (2e7, 1e8, 5e8)]
    return Runs.from_rows(
        {
            "params": n,
            "tokens": d,
            "loss": (1.8 + 400 / n**0.35 + 600 / d**0.33) * np.exp(0.004 * rng.standard_normal()),
            "trunk": f"trunk-{n:g}",
            "seed": 1,
        }
        for n, d in sizes
    )


def marks(chart: Chart, kind: type, label: str | None = None) -> list:
    return [m for m in chart.marks if isinstance(m, kind) and label in (None, getattr(m, "label", ""))]


@cache
def all_charts() -> tuple[Chart, ...]:
    plans = [bl.plan(fitted(), budget=1e21, bits="any")]
    charts = figures.charts(rows(), fitted(), comparison=compared(), plans=plans, slow=True)
    bins = calibration.reliability([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], [0, 0, 0])
    return (
        *charts,
        figures.reliability_diagram.chart({"before": bins}),
        figures.learning_curves.chart(grid()),
        figures.sweep_progress.chart(swept(), planned=12),
    )


def swept() -> Runs:
    times = [(0, "ok"), (60, "ok"), (90, "diverged"), (200, "ok")]
    return Runs.from_rows(
        {
            "params": 1e6,
            "tokens": 1e7,
            "loss": 3.0 if status == "ok" else None,
            "status": status,
            "started": f"2026-01-01T00:{at // 60:02}:{at % 60:02}+00:00",
            "seconds": 30.0,
        }
        for at, status in times
    )


# ---- every figure, by both printers


def test_a_sweep_with_everything_fills_every_figure_that_is_of_rows_and_a_fit():
    assert [c.name for c in all_charts()[:-3]] == [
        "plan-options",
        "compute-optimal",
        "loss-against-bits",
        "best-bits-against-tokens",
        "serving-optimal",
        "effective-parameters",
        "parts-multiply",
        "loss-against-tokens",
        "loss-slices",
        "loss-surface",
        "isoloss",
        "gap-against-tokens-per-parameter",
        "u-curves",
        "loss-against-bytes",
        "law-ranking",
        "predicted-against-measured",
        "predicted-against-measured-gap",
        "residuals-and-influence",
        "profile-likelihoods",
        *(c.name for c in all_charts() if c.name.startswith("pair-")),
    ]
    assert sum(c.name.startswith("pair-") for c in all_charts()) == 2


def test_every_chart_is_a_figure_to_plotly_and_says_what_it_shows():
    import plotly.graph_objects as go

    for chart in all_charts():
        figure = plotly(chart)
        json.dumps(figure, allow_nan=False)
        go.Figure(figure)
        assert {trace["type"] for trace in figure["data"]} <= {"scatter", "contour"}
        layout = figure["layout"]
        assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0,0,0,0)"
        assert "color" not in layout.get("font", {}) and "gridcolor" not in layout["xaxis"]
        assert chart.title and chart.x.label and (chart.y.label or chart.y.names)
        assert chart.caption.endswith(".")
        assert "n = " in chart.caption or chart.name in ("plan-options", "law-ranking")
        shown = [t["legendgroup"] for t in figure["data"] if t["showlegend"]]
        assert len(shown) == len(set(shown))


def test_every_chart_can_be_drawn_on_an_ax_of_ones_own():
    with style():
        for chart in all_charts():
            ax = Canvas().subplots()
            assert draw(ax, chart) is ax
            assert ax.get_xlabel() == chart.x.label
            assert ax.get_title(loc="left") == chart.title
            low, high = sorted(ax.get_xlim())
            assert (low, high) == pytest.approx(chart.limits("x"))


def test_a_figure_takes_an_ax_and_returns_it():
    ax = Canvas().subplots()
    assert figures.effective_parameters(ax, fitted(), rows()) is ax
    assert len(ax.get_lines()) > 3
    assert all(isinstance(getattr(figures, n), Figure) for n in ("u_curves", "isoloss", "law_ranking"))


def test_files_are_written_whole_and_the_same_again(tmp_path):
    chart = [figures.effective_parameters.chart(fitted(), rows())]
    first = figures.write_figures(tmp_path / "a", chart)
    again = figures.write_figures(tmp_path / "b", chart, ("svg", "pdf"))
    assert [p.name for p in first] == [f"effective-parameters.{kind}" for kind in ("svg", "png", "pdf")]
    heads = [p.read_bytes()[:5] for p in first]
    assert heads == [b"<?xml", b"\x89PNG\r", b"%PDF-"]
    assert [first[k].read_bytes() for k in (0, 2)] == [p.read_bytes() for p in again]
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot make the folder"):
        figures.write_figures(tmp_path / "file" / "x", chart)


def test_files_carry_their_evidence(tmp_path):
    [chart] = [figures.effective_parameters.chart(fitted(), rows())]
    svg, png, pdf = figures.write_figures(tmp_path, [chart])
    words = chart.caption.split(". ")[0]
    assert words in html.unescape(svg.read_text()).replace("\n", " ")
    with PIL.Image.open(png) as image:
        assert image.info["Description"] == chart.caption
    assert b"/Subject" in pdf.read_bytes()


#: What red, green and blue light become without one kind of cones (Machado, Oliveira & Fernandes 2009, severity 1).
SEEN = {
    "all cones": np.eye(3),
    "no long": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no middle": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no short": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.mark.parametrize("eye", SEEN)
def test_colours_are_told_apart_by_every_eye(eye):
    """In CIELAB, where 2.3 is just seen; colours of lines that lie side by side need several times as much."""
    rgb = np.array([[int(c[k : k + 2], 16) / 255 for k in (1, 3, 5)] for c in COLOURS])
    light = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(light @ np.array(SEEN[eye]).T, 0, 1)
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    t = seen @ to_xyz.T / [0.95047, 1, 1.08883]
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], -1)
    apart = np.linalg.norm(lab[:, None] - lab, axis=-1) + 100 * np.eye(len(lab))
    assert apart.min() > 13


def test_text_of_strangers_is_text_in_both_printers(tmp_path):
    points = Points([1.0, 2.0], [1.0, 2.0], EVIL, hover=[EVIL, EVIL], ids=["a", "b"])
    bars = Bars([0.0], [1.0], [0.5], [1.5], EVIL)
    axis = Axis(EVIL, ticks=(0.0,), names=(EVIL,), low=-1, high=3)
    chart = Chart("evil", EVIL, EVIL, Axis(EVIL), axis, (points, bars, Rule(x=1.0, text=EVIL)), legend=EVIL)
    figure = plotly(chart)
    assert "<script" not in json.dumps(figure)
    assert figure["data"][0]["customdata"] == ["a", "b"]
    assert figure["data"][0]["hovertext"][0].startswith(
        "&lt;script&gt;alert(1)&lt;/script&gt;$\\frac{a}{ &amp; $"
    )
    [path] = figures.write_figures(tmp_path, [chart], ["svg"])
    text = path.read_text()
    assert "<script" not in text and "&lt;script&gt;" in text and "\\frac{a}{" in text


# ---- the numbers


def test_effective_parameters_are_the_factor_of_the_law():
    chart = figures.effective_parameters.chart(fitted(), rows())
    values = fitted().values
    [line] = marks(chart, Line, "weights")
    expected = 1 - np.exp(-np.asarray(line.x) / values["gamma_w"] + values["n_w"])
    assert np.asarray(line.y) == pytest.approx(expected)
    [band] = marks(chart, Band, "weights")
    assert (np.asarray(band.low) <= np.asarray(band.high) + 1e-12).all()
    [dots] = marks(chart, Points, "weights")
    assert len(dots.x) == 18 * 6  # sizes and tokens, by bits
    eight = np.abs(np.asarray(dots.x) - 8) < 0.2
    factor = 1 - np.exp(-8 / values["gamma_w"] + values["n_w"])
    assert np.median(np.asarray(dots.y)[eight]) == pytest.approx(factor, abs=0.05)


def test_slices_show_the_rows_and_the_law_between_its_intervals():
    chart = figures.loss_slices.chart(fitted(), rows())
    whole = rows().frame.filter(
        pl.all_horizontal(pl.col(f"{p}_format").is_null() for p in ("w", "a", "kv", "post"))
    )
    seen = sorted(y for points in marks(chart, Points) for y in points.y)
    assert seen == pytest.approx(sorted(whole["loss"]))
    held = [p for p in marks(chart, Points) if p.hollow]
    assert [p.label for p in held] == ["220M"]  # the largest size was held out
    line, band = marks(chart, Line, "60M")[0], marks(chart, Band, "60M")[0]
    assert np.asarray(line.y) == pytest.approx(fitted().predict(params=60e6, tokens=np.asarray(line.x)))
    low, high = fitted().band(params=60e6, tokens=np.asarray(line.x))
    assert np.asarray(band.low) == pytest.approx(low) and np.asarray(band.high) == pytest.approx(high)


def test_surfaces_are_the_law_at_every_point():
    for chart, names in (
        (figures.loss_surface.chart(fitted(), rows()), ("tokens", "params")),
        (figures.isoloss.chart(fitted(), rows()), ("w_bits", "params")),
    ):
        [surface] = marks(chart, Contours)
        x, y = np.meshgrid(surface.x, surface.y)
        inputs = {"tokens": 6e9, **dict(zip(names, (x, y), strict=True))}
        assert surface.z == pytest.approx(fitted().predict(**inputs))
        steps = np.diff(surface.levels)
        assert len(steps) > 2 and steps == pytest.approx(steps[0])


def test_a_gap_figure_has_every_gap_and_the_fitted_line():
    chart = figures.gap_against_ratio.chart(fitted(), rows())
    gaps = rows().frame.filter(pl.col("gap").is_not_null())
    assert sum(len(p.y) for p in marks(chart, Points)) == len(gaps)
    assert "circle 30M, square 60M" in chart.caption
    line = marks(chart, Line, "4 bits")[0]
    curve = fitted().law.predict_gap(
        fitted().values, params=30e6, tokens=np.asarray(line.x) * 30e6, post_bits=4.0
    )
    assert np.asarray(line.y) == pytest.approx(curve)


def test_the_star_of_a_u_curve_is_the_planners_critical_budget():
    chart = figures.u_curves.chart(fitted(), rows())
    stars = {p.hover[0].split("\n")[0]: p for p in marks(chart, Points) if p.marker == STAR}
    assert {"3 bits", "4 bits"} <= set(stars)
    for bits in (3, 4):
        plan = bl.plan(fitted(), params=220e6, quantize_to=f"int{bits}")
        assert stars[f"{bits} bits"].x[0] == pytest.approx(
            plan["tokens"].value, rel=0.1
        )  # a step of its grid
    assert "as trained" in {line.label for line in marks(chart, Line)}


def test_compute_optimal_is_what_the_planner_says():
    chart = figures.compute_optimal.chart(fitted(), rows())
    for name, mark in (("params", "params"), ("tokens", "tokens"), ("bits", "bits")):
        [line] = marks(chart, Line, mark)
        plan = bl.plan(fitted(), budget=float(line.x[2]))
        assert line.y[2] == pytest.approx(plan[name].value, rel=2e-3)


def test_options_of_a_plan_are_drawn_best_first():
    plan = bl.plan(fitted(), budget=1e21, bits="any")
    chart = figures.plan_options.chart(plan)
    assert chart.y.names == tuple(o.formats for o in plan.options)
    near = marks(chart, Bars, "near-optimal")[0]
    assert list(near.value) == [o.loss for o in plan.options if o.near_optimal]
    with pytest.raises(NothingToDraw, match="compares no formats"):
        figures.plan_options.chart(bl.plan("chinchilla-2024", budget=1e21))


def test_bytes_are_parameters_times_bits_and_the_front_is_beaten_by_no_row():
    chart = figures.loss_against_bytes.chart(fitted(), rows())
    four = marks(chart, Points, "4 bits")[0]
    assert set(np.asarray(four.x)) == {n * 4 / 8 for n in (30e6, 60e6, 110e6, 220e6)}
    every = np.concatenate([np.stack([p.x, p.y]) for p in marks(chart, Points)], axis=1)
    [front] = marks(chart, Line, "best of the rows")
    for x, y in zip(front.x, front.y, strict=True):
        assert not ((every[0] <= x) & (every[1] < y)).any()


def test_a_ranking_shows_errors_and_margins_of_the_comparison():
    ranking = compared().rankings[0]
    chart = figures.law_ranking.chart(compared())
    laws = marks(chart, Bars, "laws")[0]
    assert list(laws.value) == pytest.approx([100 * e.held_out.error for e in ranking.entries])
    assert laws.high[0] - laws.value[0] == pytest.approx(100 * ranking.entries[0].margin)
    assert ranking.verdict in chart.caption
    assert chart.y.names[: len(ranking.entries)] == tuple(e.name for e in ranking.entries)


def test_held_out_errors_are_drawn_at_their_rows():
    chart = figures.predicted_against_measured.chart(fitted(), rows())
    [held] = marks(chart, Points, "held out")
    losses = rows().ok()["loss"].to_numpy()
    assert np.asarray(held.x) == pytest.approx(losses[list(fitted().held_out.index)])
    assert np.asarray(held.y) == pytest.approx(100 * np.array(fitted().held_out.errors))
    assert list(held.ids) == rows().ok()["id"][list(fitted().held_out.index)].to_list()
    [all_] = marks(chart, Points, "fitted")
    assert len(all_.x) == rows().frame.filter(pl.col("post_format").is_null()).height


def test_profiles_cross_the_limit_where_profile_intervals_end():
    fit = bl.fit("chinchilla", grid(), method="profile", draws=40)
    for found in profiles(fit, grid(), ["alpha", "beta"]):
        ends = np.interp([-found.limit, found.limit], found.rise, found.values)
        estimate = next(e for e in fit.estimates if e.parameter.name == found.name)
        assert ends == pytest.approx([estimate.low, estimate.high], rel=0.03)
        assert np.interp(0.0, found.rise, found.values) == pytest.approx(estimate.value, rel=1e-3)
    with pytest.raises(ConfigError, match="'gamma' was not fitted"):
        profiles(fit, grid(), ["gamma"])


def test_influence_predicts_what_leaving_a_row_out_does():
    """By least squares Cook's distance is |prediction without the row - with it|^2 / (p s^2), to first order."""
    fit = bl.fit("chinchilla", grid(), objective="log-squares", draws=0)
    found = influence(fit, grid())
    assert found.leverage.sum() == pytest.approx(5, rel=1e-6)
    middle = int(np.argsort(found.distance)[4])  # of nine
    table = grid().frame
    other = bl.fit(
        "chinchilla", grid().filter(pl.col("id") != found.ids[middle]), objective="log-squares", draws=0
    )
    sizes = {name: table[name].to_numpy() for name in ("params", "tokens")}
    moved = np.log(fit.predict(**sizes)) - np.log(other.predict(**sizes))
    distance = (moved**2).sum() / 5 / fit.noise["loss"] ** 2
    assert distance == pytest.approx(found.distance[middle], rel=0.3)


def test_rows_that_are_not_the_fits_own_are_refused():
    fit = bl.fit("chinchilla", grid(), draws=0)
    other = Runs(grid().frame.head(8))
    with pytest.raises(DataError, match="not the rows that the fit was made from"):
        influence(fit, other)
    with pytest.raises(NothingToDraw, match="not the rows"):
        figures.residuals_and_influence.chart(fit, other)
    weighted = bl.fit("chinchilla", grid(), weights=[1, 9, 1, 1, 9, 1, 1, 1, 9], draws=0)
    with pytest.raises(DataError, match="weighted its rows"):
        profiles(weighted, grid())


def test_the_ellipse_of_a_pair_holds_as_many_draws_as_it_says():
    fit = fitted()
    chart = figures.constant_pair.chart(fit, "gamma_w", "n_w")
    [rim] = marks(chart, Line)
    names = [e.parameter.name for e in fit.estimates]
    x, y = np.log(fit.draws[:, names.index("gamma_w")]), fit.draws[:, names.index("n_w")]
    from matplotlib.path import Path

    inside = Path(np.stack([np.log(rim.x), rim.y], axis=1)).contains_points(np.stack([x, y], axis=1))
    assert inside.mean() == pytest.approx(fit.level, abs=0.02)
    with pytest.raises(NothingToDraw, match="no draws"):
        figures.constant_pair.chart(bl.fit("chinchilla", grid(), draws=0))


def test_learning_curves_show_the_loss_of_training_where_rows_have_it():
    frame = grid().frame
    told = pl.when(pl.col("post_format").is_null()).then(pl.lit("[[1, 9.0], [1e9, 4.5], [2e9, 4.0]]"))
    chart = figures.learning_curves.chart(Runs(frame.with_columns(curve=told)))
    lines = [m for m in chart.marks if isinstance(m, Line) and m.label == ""]
    assert lines and "Lines without marks: the loss in training" in chart.caption
    assert lines and all(list(line.y)[-1] == 4.0 and 9.0 not in line.y for line in lines)
    for text in ("no JSON", "[1, 2, 3]", '[["a", 1]]', "[" * 100_000, f"[[1, 1{'0' * 400}]]"):  # of strangers
        strange = figures.learning_curves.chart(Runs(frame.with_columns(curve=pl.lit(text))))
        assert not [m for m in strange.marks if isinstance(m, Line) and len(m.x) and m.label == ""]


def test_learning_curves_follow_trunks():
    chart = figures.learning_curves.chart(grid())
    lines = marks(chart, Line)
    assert len(lines) == 3 and all(len(line.x) == 3 for line in lines)
    with pytest.raises(NothingToDraw, match="no trunk"):
        figures.learning_curves.chart(rows())


def test_progress_counts_cells_by_status_when_they_ended():
    chart = figures.sweep_progress.chart(swept(), planned=12)
    ok, diverged = marks(chart, Line)
    assert (ok.label, diverged.label) == ("ok (3)", "diverged (1)")
    assert np.asarray(ok.y).max() == 3 and np.asarray(ok.x).max() == pytest.approx(230 / 3600)
    assert np.interp(100 / 3600, ok.x, ok.y) == 2  # of the three, two had ended
    assert marks(chart, Rule)[0].y == 12.0
    with pytest.raises(NothingToDraw, match="no row says when"):
        figures.sweep_progress.chart(grid())


def test_a_reliability_diagram_shows_filled_bins_and_their_error():
    rng = np.random.default_rng(1)
    z = rng.normal(size=(900, 4))
    labels = [rng.choice(4, p=np.exp(v) / np.exp(v).sum()) for v in z]
    bins = calibration.reliability(z, labels)
    chart = figures.reliability_diagram.chart({"model": bins})
    [points] = marks(chart, Points)
    filled = [b for b in bins if b.count]
    assert list(points.y) == [b.accuracy for b in filled]
    assert f"ECE {calibration.ece(z, labels):.3f}" in points.label
    assert (points.error >= 0).all() and points.error.shape == (2, len(filled))
    for b, (down, up) in zip(
        filled, points.error.T, strict=True
    ):  # Wilson's ends: so far off, a share is rejected
        for end in (b.accuracy - down, b.accuracy + up):
            off = 1.6449 * np.sqrt(end * (1 - end) / b.count)
            assert abs(b.accuracy - end) == pytest.approx(off, abs=1e-9) or end in (0.0, 1.0)
            assert -1e-12 <= end <= 1 + 1e-12


def test_isoflop_parabolas_go_through_their_minima():
    law = bl.laws.chinchilla.predict
    known = {"E": 1.8, "A": 500.0, "B": 1500.0, "alpha": 0.35, "beta": 0.35}
    sweep = Runs.from_rows(
        {"params": n, "tokens": c / 6 / n, "loss": float(law(known, params=n, tokens=c / 6 / n))}
        for c in (1e18, 1e19, 1e20)
        for n in (c / 60) ** 0.5 * np.array([0.3, 0.6, 1.2, 2.4])
    )
    path = bl.isoflop(sweep)
    chart = figures.isoflop_parabolas.chart(path)
    stars = [p for p in marks(chart, Points) if p.marker == STAR]
    assert [p.x[0] for p in stars] == [m.params.value for m in path.minima]
    for star, line in zip(stars, marks(chart, Line), strict=True):
        assert star.y[0] == pytest.approx(np.min(line.y), rel=1e-4)
    assert "valleys" not in path.as_json()


# ---- axes


@given(st.floats(-1e6, 1e6), st.sampled_from(["linear", "symlog"]), st.floats(1e-6, 10))
def test_places_lead_back_to_values(value, scale, linear_below):
    back = unplaced(placed(value, scale, linear_below), scale, linear_below)
    assert back == pytest.approx(value, rel=1e-9, abs=1e-12)


@given(st.floats(-20, 25), st.floats(0.01, 40))
def test_logarithmic_axes_have_a_few_round_numbers_inside(start, decades):
    low, high = 10.0**start, 10.0 ** (start + decades)
    ticks = log_ticks(low, high)
    assert 1 <= len(ticks) <= 8
    assert all(low * (1 - 1e-9) <= t <= high * (1 + 1e-9) for t in ticks)
    assert list(ticks) == sorted(set(ticks))


def test_negative_gaps_have_places_ticks_and_error_bars():
    points = Points([1.0, 2.0], [-0.002, 0.5], error=[0.001, 0.1])
    axis = Axis("gap", "symlog", linear_below=1e-3)
    figure = plotly(Chart("gap", "Gaps", "n = 2.", Axis("tokens", "log"), axis, (points,)))
    [trace] = figure["data"]
    assert trace["y"][0] == pytest.approx(placed(-0.002, "symlog", 1e-3), rel=1e-5)
    top = trace["y"][1] + trace["error_y"]["array"][1]
    assert top == pytest.approx(placed(0.6, "symlog", 1e-3), rel=1e-5)
    assert figure["layout"]["yaxis"]["ticktext"] == ["-0.001", "0", "0.001", "0.01", "0.1"]
    assert trace["hovertext"][0] == "1, -0.002"
    assert symlog_ticks(0.0, 1e-4, 1e-3) == (0.0,)


# ---- rows that spoil a figure spoil no other


def test_a_row_without_tokens_costs_no_figure_wherever_it_stands():
    table = rows().frame.to_dicts()
    lone = {"id": "lone", "params": 30e6, "loss": 3.3}
    first, last = Runs.from_rows([lone, *table]), Runs.from_rows([*table, lone])
    charts = [figures.charts(runs, bl.fit("kumar", runs, draws=30)) for runs in (first, last)]
    assert [c.name for c in charts[0]] == [c.name for c in charts[1]]
    for few in charts:
        (chart,) = (c for c in few if c.name == "loss-against-bytes")
        assert marks(chart, Line, "best by the law")


@pytest.mark.parametrize("draws", [50, 200])
def test_rows_without_noise_have_their_figures(draws):
    exact = synthetic_sweep(0, paired=True, post_of_low=False, noise=0.0)
    charts = figures.charts(exact, bl.fit("kumar", exact, draws=draws))
    assert {"compute-optimal", "effective-parameters", "loss-against-bytes"} <= {c.name for c in charts}


def test_rows_that_a_law_leaves_out_are_in_no_figure_of_gaps_or_bytes():
    table = [row | {"method": "rtn"} if row["post_format"] else row for row in rows().frame.to_dicts()]
    copies = [row for row in table if row["post_format"]]
    also = [row | {"id": f"{row['id']} a", "post_a_format": "int4", "gap": 9.0} for row in copies[:7]]
    tuned = {**next(row for row in table if row["loss"]), "id": "tuned", "tuning": "lora", "loss": 0.1}
    runs = Runs.from_rows([*table, *also, tuned])
    fit = bl.fit("kumar", runs, draws=0)
    gaps = figures.gap_against_ratio.chart(fit, runs)
    assert "Not drawn: 7 rows treated otherwise" in gaps.caption and f"n = {len(copies)} gaps" in gaps.caption
    assert max(max(mark.y) for mark in marks(gaps, Points)) < 9
    held = figures.loss_against_bytes.chart(fit, runs)
    assert "Not drawn: 8 rows treated otherwise" in held.caption
    assert "Not drawn: 7 rows" in figures.u_curves.chart(fit, runs).caption
    every = Runs.from_rows([row for row in table if not row["post_format"]] + also)
    with pytest.raises(NothingToDraw, match="7 rows treated otherwise"):
        figures.gap_against_ratio.chart(bl.fit("kumar", every, draws=0), every)
    assert min(marks(held, Line, "best of the rows")[0].y) > 1


def test_a_figure_that_fails_is_told_of_and_costs_no_other(monkeypatch):
    def fails(*_):
        raise ZeroDivisionError("by zero")

    whole = [chart.name for chart in figures.charts(rows(), fitted())]
    monkeypatch.setattr(figures.loss_surface, "chart", fails)
    with pytest.warns(RuntimeWarning, match="the figure fails is left out.*ZeroDivisionError: by zero"):
        charts = figures.charts(rows(), fitted())
    assert [c.name for c in charts] == [name for name in whole if name != "loss-surface"]


def test_methods_that_are_written_alike_have_figures_of_their_own():
    table = [row for row in rows().frame.to_dicts() if not row["post_format"]]
    copies = [row for row in rows().frame.to_dicts() if row["post_format"]]
    every = [
        row | {"id": f"{row['id']} {name}", "method": name}
        for row in copies
        for name in ("RTN", "rtn", "rtn 2", "方法", "方")
    ]
    runs = Runs.from_rows([*table, *every])
    names = [chart.name for chart in figures.charts(runs, bl.fit("kumar", runs, draws=0))]
    assert len(names) == len(set(names)) and all(name.isascii() for name in names)
    assert sum(name.startswith("gap-against-tokens-per-parameter") for name in names) == 5


def test_a_figure_of_one_method_says_that_its_fit_is_of_all():
    table = [row | {"method": "rtn"} if row["post_format"] else row for row in rows().frame.to_dicts()]
    copies = [row | {"id": f"{row['id']} g", "method": "gptq"} for row in table if row["post_format"]]
    both, one = Runs.from_rows([*table, *copies]), Runs.from_rows(table)
    for runs, mixed in ((both, True), (one, False)):
        fit = bl.fit("kumar", runs, draws=0)
        for figure in (figures.gap_against_ratio, figures.u_curves):
            assert (
                "The fit is of the rows of all methods." in figure.chart(fit, runs, method="rtn").caption
            ) == mixed


def test_colours_that_come_again_come_with_other_markers():
    looks = [(colour(k), marker(k)) for k in range(64)]
    assert len(set(looks)) == 64


def test_gaps_that_are_all_one_have_no_share_explained():
    table = [row | {"gap": 0.01} if row["post_format"] else row for row in rows().frame.to_dicts()]
    runs = Runs.from_rows(table)
    chart = figures.predicted_against_measured_gap.chart(bl.fit("kumar", runs, draws=0), runs)
    assert "R²" not in chart.title + chart.caption
    assert "R²" in figures.predicted_against_measured_gap.chart(fitted(), rows()).title


# ---- tables that others published, and those that are odd


def test_public_runs_have_the_figures_of_a_law_without_bits(public_data):
    runs = tables.epoch(public_data)
    names = [c.name for c in figures.charts(runs, bl.fit("chinchilla", runs, draws=50))]
    assert names[:3] == ["compute-optimal", "loss-slices", "loss-surface"]
    assert not {"best-bits-against-tokens", "serving-optimal", "parts-multiply"} & set(names)
    assert "effective-parameters" not in names and "gap-against-tokens-per-parameter" not in names


def test_weights_and_activations_of_one_precision_have_a_slice_of_both(public_data):
    runs = tables.quest(public_data, ("w", "a"))
    chart = figures.loss_against_tokens.chart(bl.fit("kumar", runs, draws=0), runs)
    assert {"w4 a4", "16-bit"} <= {line.label for line in marks(chart, Line)}


def test_a_law_of_gaps_alone_has_the_figures_of_gaps():
    fit = bl.fit("gap-kumar", rows(), draws=40)
    names = [c.name for c in figures.charts(rows(), fit)]
    assert "gap-against-tokens-per-parameter" in names and "loss-slices" not in names
    with pytest.raises(NothingToDraw, match="has no loss in training"):
        figures.loss_slices.chart(fit, rows())


@pytest.mark.parametrize(
    "how",
    [
        {"objective": "lad"},
        {"objective": "squares"},
        {"delta": 1e-3},
        {"fix": {"E": 1.8}},
        {"count": "total"},
    ],
    ids=str,
)
def test_every_objective_can_be_posed_again(how):
    runs = Runs(grid().frame.with_columns(pl.lit("total").alias("count")))
    fit = bl.fit("chinchilla", runs, draws=0, **how)
    found = influence(fit, runs)
    assert found.leverage.sum() == pytest.approx(5 - len(how.get("fix", ())), rel=1e-3)
    [profile] = profiles(fit, runs, ["alpha"])
    assert profile.rise[0] < -1 and profile.rise[-1] > 1


@pytest.mark.slow
def test_every_law_that_our_own_rows_carry_can_be_drawn():
    from pathlib import Path

    runs = bl.read_runs(Path(__file__).parents[1] / "studies" / "thousandth" / "rows.parquet")
    drawn = 0
    for name in bl.laws.LAWS:
        try:
            fit = bl.fit(name, runs, draws=20)
        except bl.BitlawError:
            continue
        charts = figures.charts(runs, fit)
        for chart in charts:
            json.dumps(plotly(chart), allow_nan=False)
            with style():
                draw(Canvas().subplots(), chart)
        drawn += len(charts)
    assert drawn > 200


@pytest.mark.slow
def test_a_browser_draws_every_chart_without_a_complaint(browser, tmp_path):
    """Chromium, plotly's own JavaScript, no network: every trace arrives, and nothing is said on the console."""
    from plotly.offline import get_plotlyjs

    found = [plotly(c) for c in all_charts()]
    data = json.dumps(found).replace("<", "\\u003c")
    page = tmp_path / "page.html"
    page.write_text(
        f"<!doctype html><meta charset=utf-8><body></body><script>{get_plotlyjs()}</script><script>"
        f"const all = {data}; window.drawn = Promise.all(all.map(f => {{ const e = document.createElement('div');"
        "document.body.append(e); return Plotly.newPlot(e, f.data, f.layout) }));</script>"
    )
    said: list[str] = []
    tab = browser.new_page(offline=True)
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(page.as_uri())
    counts = tab.evaluate("window.drawn.then(all => all.map(e => e._fullData.filter(t => t.visible).length))")
    ticks = tab.evaluate("document.querySelectorAll('.xtick, .ytick').length")
    tab.close()
    assert said == []
    assert counts == [len(figure["data"]) for figure in found]
    assert ticks > 5 * len(found)
