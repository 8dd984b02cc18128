"""What figures and captions say holds for the very rows and fit they are of, by calculations of their own."""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
import polars as pl
import pytest
from conftest import synthetic_sweep
from typer.testing import CliRunner

import bitlaw as bl
from bitlaw import Runs
from bitlaw.cli.main import app
from bitlaw.errors import FitError
from bitlaw.explore.answers import residuals
from bitlaw.fitting import influence, profiles
from bitlaw.fitting.tell import draws_text, method_text
from bitlaw.report import figures, write_report
from bitlaw.report.chart import Chart, Line, NothingToDraw, Points
from bitlaw.report.panel import panel_data
from bitlaw.report.view import View


@cache
def rows() -> Runs:
    return synthetic_sweep(0, paired=True, post_of_low=True)


@cache
def fitted() -> bl.Fit:
    return bl.fit("kumar", rows(), draws=60)


def points(chart: Chart, label: str | None = None) -> list[Points]:
    return [m for m in chart.marks if isinstance(m, Points) and label in (None, m.label)]


def with_rows(*more: dict) -> Runs:
    return Runs.from_rows([*rows().frame.to_dicts(), *({"tokens": 1e9, "loss": 9.0, **row} for row in more)])


# ---- which rows are shown


def test_rows_that_the_law_was_not_fitted_to_are_not_shown_as_if_it_had_been():
    size = float(rows().frame["params"].to_numpy().max())
    table = with_rows(
        {"id": "emb", "params": size, "emb_format": "int2"},
        {"id": "grad", "params": size, "grad_format": "int4"},
        {"id": "thin", "params": size, "w_sparsity": 0.5},
    )
    fit = bl.fit("kumar", table, draws=0)
    [dots] = points(figures.predicted_against_measured.chart(fit, table))
    assert len(dots.x) == fit.rows["loss"]
    for figure in (figures.loss_slices, figures.loss_surface, figures.predicted_against_measured):
        shown = {name for mark in points(figure.chart(fit, table)) for name in mark.ids}
        assert shown and not shown & {"emb", "grad", "thin"}


def test_rows_that_a_fit_was_not_made_from_are_said_to_be_others():
    other = Runs(rows().frame.head(200))
    fit = bl.fit("kumar", rows(), draws=0, hold_out=bl.largest())
    charts = figures.charts(other, fit)  # held-out rows have no place in them
    told = [chart.caption for chart in charts if "independent clusters" in chart.caption]
    assert len(told) > 5 and all("all of another table than this" in caption for caption in told)
    assert not any("held out" in chart.caption.lower() for chart in charts)
    chart = figures.predicted_against_measured.chart(fit, other)
    assert chart.caption.startswith("Dots: rows of another table.")
    assert [p.label for p in points(chart)] == ["rows"]


def test_a_table_that_says_what_its_params_are_is_taken_at_its_word():
    parts = {"params_attention": 10, "params_mlp": 20, "params_norm": 5}
    table = Runs.from_rows([{"params": 30.0, "tokens": 1e3, "loss": 3.0, "count": "non_embedding", **parts}])
    assert table.size("non_embedding").to_list() == table.size().to_list() == [30.0]


def test_gaps_that_follow_from_the_loss_of_a_parent_are_shown_as_they_are_fitted():
    trained = [(n, d, 2 + 400 / n**0.3 + 400 / d**0.3) for n in (1e6, 1e7) for d in (1e8, 1e9, 1e10)]
    table = []
    for k, (n, d, loss) in enumerate(trained):
        own = {"params": n, "tokens": d}
        table.append({"id": f"run-{k}", "loss": loss, **own})
        for bits in (3, 4):
            table.append(
                {"parent": f"run-{k}", "loss": loss + 0.01 * k + 1 / bits, "post_format": f"int{bits}", **own}
            )
    runs = Runs.from_rows(table)
    fit = bl.fit("qid", runs, draws=0)
    chart = figures.gap_against_ratio.chart(fit, runs)
    assert sum(len(p.x) for p in points(chart)) == fit.rows["gap"] == 12
    assert sorted(y for p in points(chart) for y in p.y)[0] == pytest.approx(1 / 4)
    assert not any(len(p.error) for p in points(chart)) and "standard error" not in chart.caption


def test_gaps_of_models_trained_in_low_precision_are_told_apart():
    chart = figures.gap_against_ratio.chart(fitted(), rows())
    trained = pl.any_horizontal(pl.col(f"{part}_format").is_not_null() for part in ("w", "a", "kv"))
    low = rows().frame.filter(pl.col("gap").is_not_null() & trained)["id"].to_list()
    assert low and {name for p in points(chart) if p.hollow for name in p.ids} == set(low)
    assert f"Hollow: {len(low)} gaps of models trained in low precision" in chart.caption


def test_gaps_of_several_recipes_are_said_to_be():
    frame = rows().frame.with_row_index()
    recipe = pl.when(pl.col("index") % 2 == 0).then(pl.lit("gptq")).otherwise(pl.lit("rtn"))
    table = Runs(
        frame.with_columns(pl.when(pl.col("gap").is_not_null()).then(recipe).alias("method")).drop("index")
    )
    fit = bl.fit("kumar", table, draws=0)
    assert "The gaps mix 2 recipes: gptq, rtn." in figures.gap_against_ratio.chart(fit, table).caption


def test_slices_and_settings_that_are_left_out_are_counted():
    sizes = [{"params": n, "tokens": d, "loss": 2 + 400 / n**0.3 + 400 / d**0.3} for n in np.geomspace(1e6, 1e9, 9)
             for d in (1e8, 1e9)]  # fmt: skip
    table = Runs.from_rows(sizes)
    chart = figures.loss_slices.chart(bl.fit("chinchilla", table, draws=0), table)
    assert "6 of 9 sizes are shown." in chart.caption


def test_frames_of_sound_are_not_called_tokens():
    table = Runs(rows().frame.with_columns(pl.lit("frames").alias("unit")))
    fit = bl.fit("kumar", table, draws=0)
    for figure in (
        figures.gap_against_ratio,
        figures.u_curves,
        figures.loss_against_bytes,
        figures.loss_slices,
    ):
        chart = figure.chart(fit, table)
        assert "per frame" in chart.y.label and "token" not in chart.x.label.replace(
            "tokens per parameter", "token"
        )


def test_formats_of_as_many_bits_have_lines_of_their_own():
    frame = rows().frame.filter(
        pl.col("post_format").is_null() & pl.col("a_format").is_null() & pl.col("kv_format").is_null()
    )
    other = frame.filter(pl.col("w_format") == "int4").with_columns(
        pl.lit("e2m1").alias("w_format"), pl.col("loss") * 1.02, pl.col("id") + "-float"
    )
    table = Runs(pl.concat([frame, other]))
    fit = bl.fit("efficiency", table, draws=0)
    chart = figures.loss_against_tokens.chart(fit, table)
    lines = {m.label: m for m in chart.marks if isinstance(m, Line)}
    assert {"int4", "e2m1", "16-bit"} <= set(lines)
    for name in ("int4", "e2m1"):
        size = float(frame["params"].to_numpy().max())
        told = fit.predict(params=size, tokens=np.asarray(lines[name].x), w_format=name)
        np.testing.assert_allclose(lines[name].y, told, rtol=1e-12)


# ---- numbers


def test_the_star_of_a_u_curve_stands_at_the_critical_tokens_of_the_plan():
    stars = points(figures.u_curves.chart(fitted(), rows()), "critical tokens")
    assert stars
    size = float(rows().frame.filter(pl.col("gap").is_not_null())["params"].to_numpy().max())
    for star in stars:
        bits = star.hover[0].split(" ")[0]
        plan = bl.plan(fitted(), params=size, quantize_to=f"int{bits}")
        assert star.x[0] == pytest.approx(plan["tokens"].value, rel=1e-4)
        assert star.y[0] == pytest.approx(plan["loss"].value, rel=1e-9)


def test_effective_parameters_are_not_read_off_a_law_in_which_bits_move_more_than_size():
    fit = bl.fit("effective-both", rows(), draws=0)
    with pytest.raises(NothingToDraw, match="no effective parameters"):
        figures.effective_parameters.chart(fit, rows())


def test_runs_that_no_share_of_parameters_explains_are_counted():
    size = float(rows().frame["params"].to_numpy().max())
    table = with_rows({"id": "lucky", "params": size, "loss": 1.0, "w_format": "int4"})
    chart = figures.effective_parameters.chart(bl.fit("kumar", table, draws=0), table)
    shown = np.concatenate([np.asarray(p.y) for p in points(chart)])
    unseen = int((~(shown <= chart.y.high)).sum())
    assert unseen >= 1 and f" {unseen} runs lie above the frame" in chart.caption


def test_the_line_of_cooks_distance_stands_where_it_is_one_under_hubers_loss():
    rng = np.random.default_rng(2)
    cells = [(n, d) for n in (1e6, 3e6, 1e7) for d in (2e7, 1e8, 5e8)]
    wild = np.where(np.arange(9) == 4, 0.2, 0.004) * rng.standard_normal(9)
    table = Runs.from_rows(
        {"params": n, "tokens": d, "loss": (1.8 + 400 / n**0.35 + 600 / d**0.33) * np.exp(e)}
        for (n, d), e in zip(cells, wild, strict=True)
    )
    fit = bl.fit("chinchilla", table, draws=0)
    found = influence(fit, table)
    assert (np.abs(found.residual) > 1.345).any()
    chart = figures.residuals_and_influence.chart(fit, table)
    line = next(m for m in chart.marks if isinstance(m, Line) and np.asarray(m.y)[0] > 0)
    for h, r, d in zip(found.leverage, np.abs(found.residual), found.distance, strict=True):
        if line.x[0] <= h <= line.x[-1]:
            assert (r > np.interp(h, line.x, line.y)) == (d > 1)
            edge = float(np.interp(h, line.x, line.y))
            pull = min(1, 1.345 / edge)
            assert pull * edge**2 * h / (1 - h) ** 2 / 5 == pytest.approx(1, rel=0.02)


def test_constants_of_which_rows_tell_nothing_have_no_profile_and_the_figure_says_so():
    rng = np.random.default_rng(0)
    table = []
    for n, d in [(n, d) for n in (1e6, 3e6, 1e7) for d in (1e8, 1e9, 1e10)]:
        own = {"params": n, "tokens": d}
        loss = (2 + 400 / n**0.3 + 400 / d**0.3) * np.exp(0.01 * rng.standard_normal())
        table.append({"loss": loss, **own})
        # Gaps below zero, which this law cannot have: its term goes.
        table += [
            {"loss": loss, "gap": -0.1 / bits, "post_format": f"int{bits}", **own} for bits in (3, 4, 6)
        ]
    runs = Runs.from_rows(table)
    fit = bl.fit("qid", runs, draws=0)
    found = profiles(fit, runs)
    assert all(np.isfinite(p.rise).all() for p in found)
    missing = {e.parameter.name for e in fit.estimates if e.status != "fixed"} - {p.name for p in found}
    assert missing
    caption = figures.profile_likelihoods.chart(fit, runs, found).caption
    assert all(name in caption for name in missing)


def test_a_pair_of_constants_that_were_not_drawn_is_refused():
    for pair in (("E", "nothing"), ("b", "A"), ("A", "A")):
        with pytest.raises(NothingToDraw, match="name two of"):
            figures.constant_pair.chart(fitted(), *pair)


def test_the_law_in_the_figure_of_bytes_is_the_least_over_bits_in_training_and_after_it():
    chart = figures.loss_against_bytes.chart(fitted(), rows())
    [law] = [m for m in chart.marks if isinstance(m, Line) and m.label == "best by the law"]
    frame = rows().frame
    low, high = frame["params"].to_numpy().min(), frame["params"].to_numpy().max()
    ways = [("w_bits", 16.0, {})]
    for column, name in (("w_format", "w_bits"), ("post_format", "post_bits")):
        ways += [(name, float(f[3:]), {name: float(f[3:])}) for f in frame[column].drop_nulls().unique()]
    for held, shown in zip(law.x, law.y, strict=True):
        sizes = [(8 * held / bits, inputs) for _, bits, inputs in ways]
        losses = [
            float(fitted().predict(params=n, tokens=frame["tokens"].to_numpy().max(), **inputs))
            for n, inputs in sizes
            if low <= n <= high
        ]
        assert shown <= min(losses, default=np.inf) + 1e-9  # of as many bytes at most
    assert "scales" in chart.caption


# ---- what captions say of intervals


def test_bands_of_a_fit_by_profile_are_said_to_be_of_its_bootstrap():
    fit = bl.fit("kumar", rows(), draws=60, method="profile")
    assert method_text(fit) == "profile of the objective" and draws_text(fit) == draws_text(fitted())
    for chart in (figures.loss_slices.chart(fit, rows()), figures.compute_optimal.chart(fit, rows())):
        assert draws_text(fit) in chart.caption and "profile" not in chart.caption
    assert draws_text(fit) in bl.plan(fit, budget=1e20).method
    assert panel_data(fit, command=[])["method"] == draws_text(fit)


def test_levels_are_written_as_they_are():
    fit = bl.fit("kumar", rows(), draws=60, interval=0.995)
    assert "99.5% interval" in str(fit) and "100%" not in str(fit)
    assert "99.5% confidence" in figures.loss_slices.chart(fit, rows()).caption
    assert "99.5% confidence interval" in str(bl.plan(fit, budget=1e20, interval=0.995))


def test_learning_curves_count_what_they_show_and_join_ends_of_one_setting():
    def end(trunk: str, tokens: float, **more: str) -> dict:
        return {"params": 1e6, "tokens": tokens, "loss": 5 - np.log10(tokens) / 4, "trunk": trunk, **more}

    table = [end(f"trunk-{k:02}", d) for k in range(12) for d in (1e7, 1e8)]
    table += [end("alone", 1e7)] + [end("trunk-00", d, a_format="int4") for d in (2e7, 2e8)]
    chart = figures.learning_curves.chart(Runs.from_rows(table))
    lines = [m for m in chart.marks if isinstance(m, Line)]
    assert f"n = {sum(len(m.x) for m in lines)} in 6 trunks" in chart.caption
    assert "6 of 12 trunks are shown" in chart.caption
    assert all((np.diff(m.x) > 0).all() for m in lines) and sum(m.label == lines[0].label for m in lines) == 2
    assert len({m.label for m in lines}) == 6  # names that begin alike are told apart


def test_rows_quantised_after_training_are_no_cells_of_their_own():
    begun = {
        "started": "2026-01-01T00:00:00+00:00",
        "seconds": 1.0,
        "tokens": 1e7,
        "params": 1e6,
        "loss": 3.0,
    }
    table = [
        {"id": "a", **begun},
        {"id": "a-int4", "parent": "a", "post_format": "int4", "gap": 0.1, **begun},
    ]
    chart = figures.sweep_progress.chart(Runs.from_rows(table))
    assert "n = 1 cells" in chart.caption and [m.label for m in chart.marks if isinstance(m, Line)] == [
        "ok (1)"
    ]


# ---- the explorer and the report's command


def test_residuals_of_the_explorer_are_of_the_rows_that_were_fitted():
    fit = bl.fit("chinchilla", rows(), draws=0)
    found = residuals(View.of(rows(), fit))
    assert sum(map(len, found["ids"])) == fit.rows["loss"] < len(rows())
    gaps = bl.fit("gap-kumar", rows(), draws=0)  # it predicts no loss that could be set beside a measured one
    assert residuals(View.of(rows(), gaps)) == {"chart": None, "ids": [], "farthest": []}


def test_a_comparison_that_cannot_be_made_does_not_take_the_held_out_error_away(monkeypatch):
    from bitlaw.fitting import examine as module

    def refuse(*args: object, **how: object) -> None:
        raise FitError("too few")

    monkeypatch.setattr(sys.modules[module.__module__], "compare", refuse)
    fit, comparison = module("kumar", rows(), draws=0)
    assert comparison is None and fit.held_out is not None
    assert "no laws were compared: too few" in fit.notes


@pytest.mark.slow
def test_a_report_has_the_level_that_was_asked_for_everywhere(tmp_path):
    table, page, saved = tmp_path / "runs.csv", tmp_path / "r.md", tmp_path / "fit.json"
    unquantised = pl.all_horizontal(pl.col(f"{part}_format").is_null() for part in ("w", "a", "kv", "post"))
    rows().filter(unquantised).frame.write_csv(table)
    command = ["report", str(table), "--law", "chinchilla", "--interval", "0.8", "--out", str(page)]
    out = CliRunner().invoke(app, command)
    assert out.exit_code == 0, out.output
    text = page.read_text()
    assert "80% confidence interval" in text and "90%" not in text
    assert "--interval 0.8" in text
    bl.fit("chinchilla", table, draws=10).save(saved)
    out = CliRunner().invoke(app, ["report", str(saved), "--interval", "0.8", "--out", str(page)])
    assert "has its intervals already" in str(out.exception)


def test_a_saved_fit_of_a_law_whose_break_is_on_the_scale_of_tokens_can_be_reported(tmp_path):
    cells = [(n, d) for n in (1e6, 1e7) for d in np.geomspace(1e9, 1e12, 6)]
    table = Runs.from_rows(
        {"params": n, "tokens": d, "loss": 2 + 400 / n**0.3 + 400 / d**0.3} for n, d in cells
    )
    fit = bl.fit("broken", table, draws=10)
    assert fit.values["d_1"] > 1e6  # the bound, in units of the middle of the tokens
    fit.save(tmp_path / "fit.json")
    again = bl.load_fit(tmp_path / "fit.json")
    assert again.values == fit.values
    write_report(tmp_path / "report.html", None, again)
