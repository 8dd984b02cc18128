"""Errors on tasks and confidence, measured in the same pass as the loss: by hand, against calibration, in rows."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
import torch
from torch import nn

from bitlaw import calibration, read_runs
from bitlaw.formats import Scheme
from bitlaw.lab.corpus import Text, Windows, read_corpus, spread_windows
from bitlaw.lab.model import Transformer
from bitlaw.lab.precision import apply_scheme
from bitlaw.lab.quantize import Exam, Reference, Setting, logits, token_losses, try_settings
from bitlaw.lab.quantize import tasks as rules
from bitlaw.lab.quantize.scores import best_temperature
from bitlaw.lab.sweep import After, SweepConfig, run_sweep, trunks
from bitlaw.lab.sweep.folders import OF_THE_ROW_BEFORE
from bitlaw.lab.sweep.plan import undone
from bitlaw.lab.sweep.rows import MEASURED, post_row
from bitlaw.runs import COLUMN, Store
from bitlaw.shapes import Shape

TASKS = ("next", "bracket", "copy", "word", "keyword")


def text_of(data: bytes, kind: type = np.uint8) -> Text:
    return Text(np.frombuffer(data, np.uint8).astype(kind), np.zeros(1, np.int64))


def judged(data: bytes, other: bytes = b"", windows: int = 1, kind: type = np.uint8) -> dict[str, str]:
    """The targets that each task judges, dots for the others."""
    cut = spread_windows(text_of(data, kind), len(data) - 1, (len(data) - 1) // windows)
    masks = rules.task_masks(cut, text_of(other, kind))
    return {
        task: bytes(torch.where(mask, cut.targets, ord(".")).flatten().tolist()).decode()
        for task, mask in masks.items()
    }


@pytest.fixture
def few(monkeypatch):
    """Tasks of one place count."""
    monkeypatch.setattr(rules, "FEWEST", 1)


def test_tasks_judge_what_they_say(few):
    assert judged(b"-f(a[0]) ]) lambda", b"lambda lambda other") == {
        "next": "f(a[0]) ]) lambda",
        "bracket": ".....])..........",
        "word": "..............bda",
        "keyword": ".............mbda",
    }
    assert judged(b"-the window; the window; and") == {
        "next": "the window; the window; and",
        "copy": "....................ow; ...",  # what came before the first `the` was another byte
        "word": ".......dow.........dow.....",
    }


def test_what_is_in_another_window_is_out_of_view(few):
    text = b"-(same words, same words);"
    assert judged(text)["bracket"].index(")") == 23 and "ds" in judged(text)["copy"]
    assert set(judged(text[:-1], windows=2)) == {"next", "word"}


def test_tasks_of_few_places_are_left_out_and_so_are_those_of_bytes_without_bytes(few, monkeypatch):
    text = b"-(same words, same words);"
    assert set(judged(text, kind=np.uint16)) == {"next"}
    monkeypatch.setattr(rules, "FEWEST", 6)
    assert set(judged(text)) == {"next", "word"}  # two letters of each `words`, one of each `same`
    monkeypatch.setattr(rules, "FEWEST", 7)
    assert set(judged(text)) == {"next"}


def guesser(seed: int, sure: float) -> tuple[nn.Module, Windows, Windows]:
    """A model of 12 tokens, and texts of which its logits over `sure` say the truth."""
    model = nn.Embedding(12, 12)
    g = torch.Generator().manual_seed(seed)
    truth = torch.randn(12, 12, generator=g)
    with torch.no_grad():
        model.weight.copy_(sure * truth)

    def windows(count: int) -> Windows:
        inputs = torch.randint(0, 12, (count, 16), generator=g)
        targets = truth.softmax(-1)[inputs.flatten()].multinomial(1, generator=g).view_as(inputs)
        return Windows(inputs, targets, torch.zeros_like(inputs), "")

    return model, windows(50), windows(70)


@pytest.mark.parametrize("sure", [0.2, 1.0, 4.0])
def test_confidence_is_what_calibration_says(sure):
    model, evaluation, other = guesser(1, sure)
    masks = {"all": torch.ones(50, 16, dtype=torch.bool), "first": torch.arange(800).view(50, 16) < 100}
    scores = Reference(model, evaluation, Exam(masks, other)).scores
    z, y = (
        np.concatenate(list(part)).reshape(800, -1)
        for part in (logits(model, evaluation), evaluation.targets)
    )
    y = y.ravel()
    best = calibration.calibrate(
        np.concatenate(list(logits(model, other))).reshape(-1, 12), other.targets.numpy().ravel()
    )
    assert scores.ece == pytest.approx(calibration.ece(z, y), abs=1e-6)
    assert scores.temperature == pytest.approx(best.t, rel=1e-4) == pytest.approx(sure, rel=0.15)
    assert scores.loss_scaled == pytest.approx(calibration.nll(best.apply(z), y), abs=1e-6)
    assert scores.errors["all"] == pytest.approx(1 - calibration.accuracy(z, y))
    assert scores.errors["first"] == pytest.approx(1 - calibration.accuracy(z[:100], y[:100]))


def test_temperatures_end_where_those_of_calibration_do():
    right, wrong = torch.tensor([[0.0, -9.0]] * 9), torch.tensor([[0.0, 9.0]] * 9)
    assert best_temperature(right) == pytest.approx(1e-3, rel=1e-3)
    assert best_temperature(wrong) == pytest.approx(1e3, rel=1e-3)
    assert best_temperature(torch.tensor([[0.0, math.nan]])) is None


def test_far_temperatures_are_found():
    g = torch.Generator().manual_seed(0)
    z = torch.randn(3000, 30, generator=g)
    y = z.softmax(-1).multinomial(1, generator=g)
    near = best_temperature(z - z.gather(1, y))
    for scale in (0.01, 0.1, 30.0, 300.0):
        assert best_temperature(scale * (z - z.gather(1, y))) == pytest.approx(scale * near, rel=2e-4)


def test_losses_are_those_without_an_exam_to_the_bit():
    corpus = read_corpus(None)
    model = Transformer(Shape(width=16, depth=1, heads=2, ffn=40), seed=0)
    evaluation = spread_windows(corpus.evaluation, 4096, 64)
    exam = Exam.of(evaluation, corpus.calibration)
    assert exam.calibration.inputs.shape == (256, 64)
    plain, scored = Reference(model, evaluation), Reference(model, evaluation, exam)
    assert torch.equal(scored.losses, token_losses(logits(model, evaluation), evaluation))
    one, other = (next(try_settings(before, [Setting.of("rtn", "int3")])) for before in (plain, scored))
    assert (one.loss, one.gap, one.kl) == (other.loss, other.gap, other.kl)
    assert other.scores.temperature != scored.scores.temperature
    short = Text(corpus.calibration.tokens[:64], corpus.calibration.starts[:1])
    assert Exam.of(evaluation, short).calibration is None
    assert one.scores.temperature is None and one.scores.loss_scaled is None and one.scores.errors == {}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of its own code
def test_compiled_scores_are_the_same_but_for_their_last_bits():
    corpus = read_corpus(None)
    model = apply_scheme(
        Transformer(Shape(width=16, depth=1, heads=2, ffn=40), seed=0), Scheme.parse("w4a6kv6")
    )
    evaluation = spread_windows(corpus.evaluation, 4096 + 64, 64)  # the last batch is a short one
    exam = Exam.of(evaluation, corpus.calibration)
    settings = [Setting.of("rtn", "int3"), Setting.of("rtn", "int2", activations="int4")]
    eager, fast = (Reference(model, evaluation, exam, compile=c) for c in (False, True))
    for one, other in zip(try_settings(eager, settings), try_settings(fast, settings), strict=True):
        for name in ("loss", "gap", "kl"):
            assert getattr(one, name).value == pytest.approx(
                getattr(other, name).value, abs=1e-3
            )  # ties flip
        assert one.scores.errors == pytest.approx(other.scores.errors, abs=2e-3)
        for name in ("ece", "temperature", "loss_scaled"):
            assert getattr(one.scores, name) == pytest.approx(getattr(other.scores, name), abs=2e-3)


@pytest.mark.slow
def test_rows_of_trained_models_and_of_their_copies_say_it(tmp_path):
    shape = {"sizes": (4000,), "budgets": (8_000,), "batch_size": 4, "seq_len": 64, "eval_tokens": 16_384}
    config = SweepConfig(**shape, schemes=("16", "w3"), post_formats=("int2",))
    path, corpus = tmp_path / "runs.sqlite", read_corpus(None)
    run_sweep(trunks(config, corpus), Store(path), tmp_path / "c", after=After.of(config, tmp_path))
    rows = read_runs(path).frame.to_dicts()
    assert [bool(row["parent"]) for row in rows].count(True) == 1 and len(rows) == 3
    for row in rows:
        each = [row[f"error_{task}"] for task in TASKS]
        present = [error for error in each if error is not None]
        assert row["error_next"] in present and row["error_word"] in present
        assert row["error"] == pytest.approx(fmean(present)) and 0.3 < row["error"] < 1
        assert 0 < row["ece"] < 0.5 and 0.1 < row["temperature"] < 10
        assert row["loss_scaled"] < row["loss"] + 1e-3
    for column in ("ece", "temperature", "loss_scaled", "error_next"):
        assert len({row[column] for row in rows}) == 3


def test_a_copy_that_diverged_says_nothing_of_its_parent():
    text = torch.randint(0, 256, (20, 33), generator=torch.Generator().manual_seed(0))
    windows = Windows(text[:, :-1], text[:, 1:], torch.zeros(20, 32, dtype=torch.long), "")
    before = Reference(Transformer(Shape(width=16, depth=1, heads=2, ffn=40), seed=0), windows)
    outcome = next(try_settings(before, [Setting.of("rtn", "int4")]))
    parent = {name: 0.5 for name in MEASURED} | {"id": "a", "status": "ok"}
    outcome = replace(outcome, loss=replace(outcome.loss, value=math.nan))
    row = post_row(parent, outcome, None, After())
    assert row["status"] == "diverged" and all(row[name] is None for name in MEASURED)


def test_every_task_has_a_column_and_a_folder_forgets_all_of_it():
    assert {f"error_{task}" for task in TASKS} == {name for name in COLUMN if name.startswith("error_")}
    assert {"loss", "ece", "error", "error_copy", "loss_scaled"} <= set(MEASURED) <= OF_THE_ROW_BEFORE


@pytest.mark.slow
def test_ends_of_low_precision_are_quantised_to_fewer_bits_than_they_have(tmp_path):
    shape = {"sizes": (4000,), "budgets": (8_000,), "batch_size": 4, "seq_len": 64, "eval_tokens": 16_384}
    low = {"low_post_formats": ("int2", "int3", "int4"), "low_post_methods": ("rtn", "gptq")}
    config = SweepConfig(**shape, **low, schemes=("16", "w3", "a4"), post_formats=("int4",))
    path, corpus = tmp_path / "runs.sqlite", read_corpus(None)
    configs, after = trunks(config, corpus), After.of(config, tmp_path)
    store = Store(path)
    run_sweep(configs, store, tmp_path / "c", after=after)
    rows = read_runs(path).frame.to_dicts()
    made = [(r["w_format"], r["a_format"], r["post_format"], r["method"]) for r in rows if r["parent"]]
    expected = [("int3", "bf16", 2), *(("bf16", "int4", b) for b in (2, 3, 4))]
    assert sorted(made) == sorted(
        [("bf16", "bf16", "int4", "rtn")]
        + [(w, a, f"int{b}", m) for w, a, b in expected for m in ("rtn", "gptq")]
    )
    losses = {r["id"]: r["loss"] for r in rows}
    assert all(
        r["gap"] == pytest.approx(r["loss"] - losses[r["parent"]], abs=1e-12) for r in rows if r["parent"]
    )
    assert not any(undone(c, after, store.statuses()) for c in configs)
