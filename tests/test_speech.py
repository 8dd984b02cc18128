"""Speech: frames against an independent implementation, hostile recordings, the split, resume, rows and fits."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import wavfile
from typer.testing import CliRunner

import bitlaw as bl
from bitlaw import ConfigError, DataError, FitError
from bitlaw.cli.main import app
from bitlaw.lab.corpus import batch, spread_windows
from bitlaw.lab.precision import LowPrecisionLinear
from bitlaw.lab.sweep import speech
from bitlaw.lab.tasks.audio import PACKAGES, log_mel, mel_filters, read_speech, read_wav, speech_corpus
from bitlaw.lab.tasks.speech import FramePredictor, SpeechState, evaluate, frame_losses
from bitlaw.lab.train import World
from bitlaw.lab.train.loop import Interrupted
from bitlaw.runs import Runs, Store

torch.set_num_threads(1)


def wav(samples, rate=8000) -> bytes:
    import io

    file = io.BytesIO()
    wavfile.write(file, rate, samples)
    return file.getvalue()


def tones(number: int, seed: int = 0) -> list[np.ndarray]:
    """Recordings of two tones each that come and go, with noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(8000) / 8000
    found = []
    for _ in range(number):
        a, b, swing = rng.uniform([200, 1000, 1], [900, 3500, 5])
        tone = np.sin(2 * np.pi * a * t) + np.sin(2 * np.pi * b * t) * np.sin(2 * np.pi * swing * t)
        found.append(log_mel((0.2 * tone + 0.01 * rng.standard_normal(8000)).astype(np.float32)))
    return found


@pytest.fixture(scope="module")
def corpus():
    return speech_corpus("tones", tones(700))


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(speech, "EVAL_FRAMES", 1024)
    monkeypatch.setattr(speech, "WARMUP", 3)


# ---- frames


def test_frames_are_those_of_transformers():
    audio = pytest.importorskip("transformers.audio_utils")
    rng = np.random.default_rng(0)
    samples = (rng.standard_normal(8000) * np.linspace(0.001, 1, 8000)).astype(np.float32)
    filters = audio.mel_filter_bank(129, 40, 0, 4000, 8000, norm=None, mel_scale="htk")
    np.testing.assert_allclose(mel_filters(), filters, atol=1e-6)
    hann = audio.window_function(200, "hann")
    theirs = audio.spectrogram(
        samples, hann, 200, 80, 256, power=2.0, center=False, mel_filters=filters, mel_floor=1e-8
    )
    ours = log_mel(samples)
    np.testing.assert_allclose(ours, np.log(theirs.T), rtol=1e-4, atol=1e-4)


def test_a_recording_reads_as_scipy_reads_it_and_its_rate_is_brought_down():
    samples = np.random.default_rng(1).integers(-(2**15), 2**15, 900).astype(np.int16)
    np.testing.assert_array_equal(read_wav(wav(samples)) * 2**15, samples)
    t = np.arange(16_000)
    high = (8000 * np.sin(2 * np.pi * 440 * t / 16_000)).astype(np.int16)
    low = (8000 * np.sin(2 * np.pi * 440 * t[:8000] / 8000)).astype(np.int16)
    apart = read_wav(wav(high, 16_000))[100:-100] - read_wav(wav(low))[100:-100]
    assert np.abs(apart).max() < 2e-3


GOOD = wav(np.arange(400, dtype=np.int16))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no WAV file"),
        (b"RIFF", "no WAV file"),
        (b"\x7fELF" + bytes(60), "no WAV file"),
        (GOOD[:30], "no WAV file"),
        (GOOD[:-100], "more than its|cut off"),
        (GOOD[:40] + struct.pack("<I", 0xFFFFFFFE) + GOOD[44:], "more than its|cut off"),
        (wav(np.zeros(400, np.int16), 11_025), "11025 samples a second"),
        (wav(np.zeros((400, 2), np.int16)), "2 channels"),
        (wav(np.zeros(400, np.uint8)), "8 bits"),
        (wav(np.zeros(400, np.float32)), "no WAV file|32 bits"),
    ],
)
def test_hostile_recordings_are_refused_in_a_sentence(data, said):
    with pytest.raises(DataError, match=said) as error:
        read_wav(data, "a\x1b[31m.wav")
    assert str(error.value).isprintable()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 60), st.binary(min_size=1, max_size=12))
def test_no_header_does_anything_but_read_or_refuse(place, noise):
    data = GOOD[:place] + noise + GOOD[place + len(noise) :]
    try:
        assert len(read_wav(data)) <= len(data)
    except DataError as error:
        assert str(error)


# ---- the split


def test_sides_share_no_recording_and_do_not_depend_on_order():
    recordings = tones(300)
    one = speech_corpus("tones", recordings + recordings[:5])
    other = speech_corpus("tones", recordings[::-1])
    assert one.copies == 5
    assert {k: len(t.tokens) for k, t in one.sides.items()} == {
        k: len(t.tokens) for k, t in other.sides.items()
    }
    assert sum(len(text.starts) for text in one.sides.values()) == 300
    np.testing.assert_allclose(one.train.tokens.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(one.train.tokens.std(0), 1, atol=1e-4)
    with pytest.raises(DataError, match="too few"):
        speech_corpus("tones", recordings[:2])


# ---- prediction


def test_the_target_is_the_frame_that_many_steps_ahead(corpus):
    x, y = batch(corpus, 0, 0, 4, 32)
    assert x.dtype == torch.float32
    for ahead in (1, 3):
        shifted = torch.cat([x, y[:, -1:]], 1)[:, ahead : ahead + 33 - ahead]
        perfect = torch.cat([shifted, torch.zeros(4, ahead - 1, 40)], 1)
        assert frame_losses(perfect, y, ahead).abs().max() == 0
        assert frame_losses(perfect + 2, y, ahead).mean() == pytest.approx(2)


def test_prediction_looks_back_only_and_parameters_are_as_counted(corpus):
    config = speech.cells(corpus, [5000], [50_000], 1)[0]
    model = FramePredictor(config)
    assert sum(p.numel() for p in model.parameters()) == config.shape.counts().total
    x, _ = batch(corpus, 0, 0, 2, 32)
    changed = x.clone()
    changed[:, 20:] += 1
    with torch.no_grad():
        before, after = model(x), model(changed)
    torch.testing.assert_close(before[:, :20], after[:, :20])
    assert (before[:, 20:] - after[:, 20:]).abs().max() > 0.01


def test_precision_is_put_on_from_outside(corpus):
    config = speech.cells(corpus, [5000], [50_000], 1, "w=int4 channel,a=int8 token")[0]
    state = SpeechState(config, config.parts(), World())
    low = [m for m in state.model.modules() if isinstance(m, LowPrecisionLinear)]
    assert len(low) == 4 * config.shape.depth
    state.update(*batch(corpus, 0, 0, 8, 128), 1e-3)
    with pytest.raises(ConfigError, match="no embedding"):
        speech.cells(corpus, [5000], [50_000], 1, "emb=int8")


def test_the_seed_of_a_cell_does_not_depend_on_its_neighbours(corpus):
    alone = speech.cells(corpus, [5000], [50_000], 1)
    among = speech.cells(corpus, [4000, 5000], [50_000, 60_000], 2)
    assert alone[0] in among and len({config.seed for config in among}) == 8


def test_a_run_that_is_stopped_goes_on_to_the_same_row(corpus, small, tmp_path):
    configs = speech.cells(corpus, [5000], [12_000], 1)

    def rows(name, **how):
        return list(
            speech.run_cells(configs, corpus, Store(tmp_path / f"{name}.sqlite"), tmp_path / name, **how)
        )

    (whole,) = rows("whole")
    asked = iter([False] * 5 + [True])
    with pytest.raises(Interrupted):
        rows("stopped", should_stop=lambda: next(asked))
    (resumed,) = rows("stopped")
    assert rows("stopped") == []  # the store has it
    assert [path.name for path in (tmp_path / "stopped").iterdir()] == [".lock"]
    timed = ("started", "seconds")
    assert {k: v for k, v in whole.items() if k not in timed} == {
        k: v for k, v in resumed.items() if k not in timed
    }
    assert (whole["unit"], whole["objective"], whole["tokens"]) == ("frames", "l1", 12 * 1024)
    still = spread_windows(corpus.evaluation, 1024, 128)
    assert whole["loss"] < still.targets.abs().mean()  # what the mean frame would score


# ---- fits


def test_a_fit_does_not_mix_units():
    rows = [
        {"params": n, "tokens": d, "loss": 1 + 50 / n**0.5 + 90 / d**0.5, "unit": "frames", "objective": "l1"}
        for n in (1e4, 2e4, 4e4)
        for d in (1e5, 2e5, 4e5)
    ]
    assert bl.fit(bl.laws.chinchilla, Runs.from_rows(rows)).values["E"] == pytest.approx(1, rel=0.05)
    for column in ("unit", "objective"):
        mixed = [{**row, column: None} if k % 2 else row for k, row in enumerate(rows)]
        with pytest.raises(FitError, match=f"column {column}"):
            bl.fit(bl.laws.chinchilla, Runs.from_rows(mixed))


def test_the_rows_of_the_study_are_of_frames_and_grow_better():
    runs = bl.read_runs(Path(__file__).parents[1] / "studies/speech/rows.csv")
    frame = runs.frame
    assert frame["unit"].unique().to_list() == ["frames"]
    assert frame["eval_sha256"].n_unique() == 1 and frame["seed"].n_unique() == len(frame)
    means = (
        frame.group_by("params", "tokens")
        .agg(pl.col("loss").mean())
        .pivot("tokens", index="params", values="loss")
    )
    table = means.sort("params").select(sorted(means.columns[1:], key=float)).to_numpy()
    assert table.shape[0] >= 4 and table.shape[1] >= 4
    assert (np.diff(table, axis=1) < 0).all()  # more speech is better at every size


# ---- the verb


def test_the_verb_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("BITLAW_CACHE", str(tmp_path))
    for words, said in ((["--sizes", "x"], "x"), ([], "bitlaw task speech --fetch")):
        result = CliRunner().invoke(app, ["task", "speech", *words, "--out", str(tmp_path / "out")])
        assert result.exit_code and said in str(result.exception or result.output)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_real_speech_is_predicted_better_than_by_its_last_frame(tmp_path):
    try:
        corpus = speech_corpus("speech", [f for name in PACKAGES for f in read_speech(name)])
    except DataError as error:
        pytest.skip(str(error))
    store = Store(tmp_path / "runs.sqlite")
    configs = speech.cells(corpus, [5000, 20_000], [200_000], 1)
    small, large = speech.run_cells(configs, corpus, store, tmp_path)
    windows = spread_windows(corpus.evaluation, speech.EVAL_FRAMES, speech.SEQ_LEN)
    still, _ = evaluate(torch.nn.Identity(), windows, 3)
    assert large["loss"] < small["loss"] < still.mean() - 0.01
