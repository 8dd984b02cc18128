"""Sweeps at their edges: odd schedules, few sizes, formats added later, odd corpora."""

from __future__ import annotations

import json

import polars as pl
import pytest
from pydantic import ValidationError

from bitlaw import ConfigError, DataError, read_runs
from bitlaw.lab.corpus import read_corpus, spread_windows
from bitlaw.lab.model import load_model
from bitlaw.lab.quantize import Reference
from bitlaw.lab.sweep import After, SweepConfig, run_sweep, trunks
from bitlaw.lab.train import TrunkConfig, schedule
from bitlaw.runs import Store
from bitlaw.shapes import ladder_shape
from bitlaw.study import read_study, run_study

BASE = {
    "sizes": (4000, 6000),
    "budgets": (8_000, 12_000, 16_000),
    "schemes": ("16", "w3"),
    "batch_size": 4,
    "seq_len": 64,
    "eval_tokens": 4096,
}


def sweep(folder, **changes):
    config = SweepConfig(**{**BASE, **changes})
    store = Store(folder / "runs.sqlite")
    run_sweep(
        trunks(config, read_corpus(None)),
        store,
        folder / "checkpoints",
        after=After.of(config, folder),
    )
    store.close()
    return read_runs(folder).frame


@pytest.mark.slow
def test_cosine_runs_do_not_share_a_folder(tmp_path):
    config = SweepConfig(**{**BASE, "schedule": "cosine"})
    planned = trunks(config, read_corpus(None))
    assert len({c.work_id() for c in planned}) == len(planned) == 12
    frame = sweep(tmp_path, schedule="cosine")
    assert frame.height == 12
    assert frame["trunk"].n_unique() == 4
    assert not list((tmp_path / "checkpoints").glob("*"))


@pytest.mark.slow
def test_formats_and_methods_added_later_are_measured(tmp_path):
    few = {"sizes": (4000,), "budgets": (8_000, 12_000)}
    first = sweep(tmp_path, **few, post_formats=("int3",))
    more = {"post_formats": ("int3", "int5"), "post_methods": ("rtn", "gptq"), "calibration_tokens": 2048}
    second = sweep(tmp_path, **few, **more)
    assert first.height == 4 + 2
    assert second.height == 4 + 8
    assert (second["calibration_sha256"].is_not_null() == (second["method"] == "gptq").fill_null(False)).all()
    both = first.join(second, on="id", suffix="_again")
    assert both.height == first.height
    assert (both["loss"] == both["loss_again"]).all()
    assert second.filter(pl.col("parent").is_not_null())["curve"].null_count() == second["parent"].count()
    for row in second.filter(pl.col("parent").is_null()).iter_rows(named=True):
        tokens, losses = zip(*json.loads(row["curve"]), strict=True)
        assert list(tokens) == sorted(set(tokens)) and tokens[-1] == row["tokens"]
        assert losses[0] > 5.4 and abs(losses[-1] - row["loss"]) < 1


@pytest.mark.parametrize("low", [pytest.param(False, marks=pytest.mark.slow), True])
def test_models_are_kept_if_asked(low, tmp_path):
    few = {"schemes": ("16", "w3a6"), "sizes": (4000,), "budgets": (8_000,)}
    frame = sweep(tmp_path, **few, keep_models=True, keep_low=low)
    text = spread_windows(read_corpus(None).evaluation, 4096, 64)
    for row in frame.to_dicts():
        if not low and row["w_format"] == "int3":
            assert not (tmp_path / "models" / row["id"]).exists()
            continue
        kept = load_model(tmp_path / "models" / row["id"])
        assert kept.row["trunk"] == row["trunk"] and kept.row["tokens"] == row["tokens"]
        assert Reference(kept.model, text).loss.value == row["loss"]


@pytest.mark.slow
def test_late_schemes_are_rows_of_the_16_bit_trunks(tmp_path):
    frame = sweep(tmp_path, late_schemes=("w3", "16"), late_cooldowns=(0.5,), post_formats=("int3",))
    late = frame.filter(pl.col("qat_share").is_not_null())
    assert late.height == 6  # two sizes, three budgets
    assert (
        set(late["w_format"]) == {"int3"}
        and set(late["cooldown"]) == {0.5}
        and set(late["qat_share"]) == {0.5}
    )
    control = frame.filter((pl.col("cooldown") == 0.5) & pl.col("qat_share").is_null())
    assert control["post_format"].null_count() == 6 and control.height == 12
    sixteen = frame.filter((pl.col("cooldown") == 0.2) & (pl.col("w_format") == "bf16"))
    assert set(late["trunk"]) == set(sixteen["trunk"]) == set(control["trunk"])


def test_a_cooldown_within_the_warm_up_does_not_jump_to_the_peak():
    config = TrunkConfig(
        shape=ladder_shape(4000),
        scheme="16",
        seed=0,
        corpus_sha256="",
        budgets=(20 * 256,),
        batch_size=4,
        seq_len=64,
        learning_rate=0.01,
        warmup_steps=10,
        cooldown=1.0,
        eval_tokens=4096,
    )
    (branch,) = config.branches()
    rates = [schedule.rate(step, config, branch) for step in range(20)]
    assert rates[0] < 0.1
    assert max(rates) < 0.6


@pytest.mark.slow
def test_a_study_of_two_sizes_ends_with_a_report(tmp_path):
    lines = [f"{k} = {list(v) if isinstance(v, tuple) else v}" for k, v in BASE.items()]
    text = "\n".join(["[sweep]", *lines, "[fit]", 'law = "chinchilla"', "draws = 50"]).replace("'", '"')
    (tmp_path / "two.toml").write_text(text)
    outcome = run_study(read_study(str(tmp_path / "two.toml")), tmp_path / "out")
    assert outcome.comparison is None
    assert outcome.report.exists()
    assert any("no rows were held out" in note for note in outcome.fit.notes)


@pytest.mark.slow
def test_a_changed_study_does_not_mix_its_rows(tmp_path):
    """Rows that other settings left in the store are not fitted."""
    sweep(tmp_path)
    frame = sweep(tmp_path, seed=1)
    assert frame.height == 24
    assert frame.filter(pl.col("post_format").is_null())["trunk"].n_unique() == 8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"eval_tokens": 64}, "two sequences"),
        ({"post_formats": ("int4", "4")}, "twice"),
        ({"sizes": (10**13,)}, "ladder"),
        ({"post_formats": ("int4 learned",)}, "nothing is learned"),
        ({"post_formats": ("int4 block32",), "post_methods": ("gptq",)}, "square blocks"),
        ({"late_schemes": ("w4",)}, "belong together"),
        ({"late_schemes": ("w4",), "late_cooldowns": (1.5,)}, "no share"),
        ({"late_schemes": ("w4",), "late_cooldowns": (0.5,), "schedule": "cosine"}, "constant rate"),
        ({"late_schemes": ("w=int4 stored",), "late_cooldowns": (0.5,)}, "begin with their trunk"),
        ({"calibration_tokens": 64}, "two sequences"),
    ],
)
def test_settings_that_would_fail_after_training_fail_before(changes, words):
    with pytest.raises((ValueError, ConfigError), match=words):
        SweepConfig(**{**BASE, **changes})


# ---- corpora


def test_one_large_file_and_a_tiny_one_leave_text_on_both_sides(tmp_path):
    (tmp_path / "large.txt").write_text("".join(f"line {k}\n" for k in range(15_000)))
    for k in range(6):
        (tmp_path / f"tiny-{k}.txt").write_text(f"tiny {k}")
        corpus = read_corpus(str(tmp_path / "large.txt")) if k == 0 else read_corpus(str(tmp_path))
        assert len(corpus.train.tokens) > 20 * len(corpus.evaluation.tokens) > 20 * 1000
        read_corpus.cache_clear()


def test_copies_of_a_file_count_once(tmp_path):
    text = "".join(f"line {k}\n" for k in range(10_000))
    for k in range(3):
        (tmp_path / f"{k}.txt").write_text(text)
    corpus = read_corpus(str(tmp_path))
    assert sum(len(t.tokens) for t in (corpus.train, corpus.calibration, corpus.evaluation)) == len(text)


def test_a_corpus_larger_than_the_limit_is_cut_and_said(tmp_path, monkeypatch, caplog):
    from bitlaw.lab.corpus import sources

    monkeypatch.setattr(sources, "MAX_BYTES", 100_000)
    (tmp_path / "large.txt").write_text("é" * 80_000)
    corpus = read_corpus(str(tmp_path / "large.txt"))
    assert sum(len(t.tokens) for t in (corpus.train, corpus.calibration, corpus.evaluation)) == 100_000
    assert "the rest is left out" in caplog.text


def test_a_file_name_too_long_is_refused():
    with pytest.raises(DataError):
        read_corpus("x" * 5000)


def test_budgets_of_as_many_steps_and_numbers_without_end_are_refused():
    sweep = {"sizes": (4000,), "schemes": ("16",)}
    with pytest.raises(ValidationError, match="as many steps of 8 x 128 tokens at size 4000"):
        SweepConfig(**sweep, budgets=(300_000, 300_100))
    for given in ({"cooldown": 0.05}, {"cooldown_shape": "square"}):
        with pytest.raises(ValidationError, match="a cosine has none"):
            SweepConfig(**sweep, budgets=(300_000,), schedule="cosine", **given)
    assert SweepConfig(**sweep, budgets=(300_000,), schedule="cosine", cooldown=0.0)
    for name in ("rate_times_width", "weight_decay"):
        with pytest.raises(ValidationError, match="finite"):
            SweepConfig(**sweep, budgets=(300_000,), **{name: float("inf")})


def test_checkpoints_of_work_that_is_not_asked_for_outlive_the_start(tmp_path):
    """A configuration that was cut down for a moment loses nothing."""
    text, store = read_corpus(None), Store(tmp_path / "runs.sqlite")
    shape = {"sizes": (4000,), "budgets": (8_000,), "batch_size": 4, "seq_len": 64, "eval_tokens": 4096}
    first, other = (trunks(SweepConfig(**shape, schemes=(scheme,)), text) for scheme in ("16", "w4"))
    kept = tmp_path / "c" / other[0].work_id() / "step-10"
    kept.mkdir(parents=True)
    seen = []
    run_sweep(first, store, tmp_path / "c", workers=1, on_rows=lambda rows: seen.append(kept.exists()))
    assert seen == [True]
