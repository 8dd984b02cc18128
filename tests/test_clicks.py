"""Click-through: AUC against scikit-learn, tables against PyTorch and NumPy, files of strangers, the verb."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from bitlaw import ConfigError, DataError
from bitlaw.cli.main import app
from bitlaw.lab.tasks import (
    Method,
    Training,
    auc,
    clicks,
    clickthrough,
    compare,
    paired,
    read_avazu,
    read_criteo,
    read_table,
    summarise,
    synthetic,
    train,
)
from bitlaw.lab.tasks.tables import RowAdam, StoredTable

torch.set_num_threads(1)


# ---- AUC


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=4, max_size=60))
def test_the_auc_is_scikit_learns_ties_included(rows):
    labels, scores = [y for y, _ in rows], [s / 7 for _, s in rows]
    if min(sum(labels), len(labels) - sum(labels)) < 2:
        with pytest.raises(DataError, match="two rows"):
            auc(labels, scores)
    else:
        assert auc(labels, scores)[0] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_the_error_of_an_auc_is_how_much_it_varies():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(600):
        labels = rng.random(300) < 0.3
        found.append(auc(labels, rng.normal(size=300) + labels))
    values, errors = np.array(found).T
    assert values.mean() == pytest.approx(0.7602, abs=0.005)  # Phi(1 / sqrt 2)
    assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.1)


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(DataError, match="finite"):
        auc([0, 0, 1, 1], [0, 1, 2, np.nan])


# ---- tables


def test_adam_on_rows_is_torchs_sparse_adam():
    torch.manual_seed(0)
    values = torch.randn(20, 4)
    adam, ours = RowAdam(values, 0.01), values.clone()
    theirs = torch.nn.Parameter(values.clone())
    optimizer = torch.optim.SparseAdam([theirs], lr=0.01)
    for _ in range(30):
        rows = torch.randperm(20)[:6]
        gradient = torch.randn(6, 4)
        ours[rows] = adam.moved(rows, ours[rows], gradient)
        with torch.sparse.check_sparse_tensor_invariants(False):
            theirs.grad = torch.sparse_coo_tensor(rows[None], gradient, (20, 4))
            optimizer.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_step_of_alpt_is_the_papers():
    """One step against NumPy: Adam's first step is the rate times the sign of a gradient, here known."""
    rng = np.random.default_rng(0)
    values, outward = rng.normal(0, 0.1, (6, 8)), rng.normal(size=(3, 8))
    method = Method("alpt", 4, "nearest", clip=0.4, step_rate=1e-3)
    table = StoredTable(torch.from_numpy(values).float(), 0.02, method, torch.Generator().manual_seed(0))
    rows = torch.tensor([5, 0, 2])
    w = table.read(rows).double().numpy()
    dense = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    table.learn(rows, lambda v: (v * torch.from_numpy(outward).float()).sum(), dense, batch=3)

    new = w - 0.02 * np.sign(outward)
    x = new / 0.05
    nearest = np.floor(x + 0.5)
    by_step = np.where(x <= -8, -8, np.where(x >= 7, 7, nearest - x))
    step = 0.05 - 1e-3 * np.sign((by_step * outward).sum(1, keepdims=True))
    assert np.allclose(table.stored.step[rows], step, atol=1e-6)
    assert np.allclose(table.read(rows), np.clip(np.floor(new / step + 0.5), -8, 7) * step, atol=1e-6)
    assert np.allclose(table.stored.step[[1, 3, 4]], 0.05)


@pytest.fixture(scope="module")
def small():
    return synthetic(1, rows=25_000, fields=6, values=100)


def test_methods_hold_what_they_say(small):
    how = Training(epochs=1)
    d, rows = how.width, small.vocabulary
    found = {m.name: train(small, m, 0, how) for m in (
        Method("float32"), Method("lsq", 4), Method("lpt", 8, "stochastic"), Method("alpt", 4), Method("alpt", 2)
    )}  # fmt: skip
    size = {name: score.table_bytes for name, score in found.items()}
    assert size["float32"] == 4 * d * rows
    assert size["lsq int4"] == (4 * d + 4) * rows
    assert size["lpt int8 stochastic"] == (d + 4) * rows
    assert size["alpt int4 nearest"] == (d // 2 + 4) * rows
    assert size["alpt int2 nearest"] == (d // 4 + 4) * rows
    assert found["lpt int8 stochastic"].moment_bytes == 8 * d * rows
    assert found["alpt int4 nearest"].moment_bytes == (8 * d + 8) * rows
    assert all(
        (score.lost is None) == (name[0] in "fl" and "lpt" not in name) for name, score in found.items()
    )
    again = train(small, Method("lpt", 8, "stochastic"), 0, how)
    assert again.auc == found["lpt int8 stochastic"].auc


def test_by_chance_few_bits_learn_and_to_nearest_they_do_not(small):
    """Orderings of section 8, with room for the noise of one seed on 5,000 test rows."""
    how = Training(rate=3e-3, epochs=4)
    scores = {
        m.name: train(small, m, 0, how)
        for m in (
            Method("float32"),
            Method("lpt", 8, "stochastic", clip=0.25),
            Method("lpt", 4, "stochastic", clip=0.25),
            Method("lpt", 4, "nearest", clip=0.25),
        )
    }
    value = {name: score.auc for name, score in scores.items()}
    ceiling = scores["float32"].ceiling
    assert 0.6 < value["float32"] < ceiling < 0.8
    assert abs(value["lpt int8 stochastic"] - value["float32"]) < 0.01
    assert value["lpt int4 stochastic"] - value["lpt int4 nearest"] > 0.03
    assert scores["lpt int4 nearest"].lost > 0.999


def test_a_comparison_chooses_by_validation_and_pairs_by_seed(small, monkeypatch):
    monkeypatch.setattr(
        clickthrough, "CLIPS", (64.0, 0.25)
    )  # a range in which nothing can be learnt, and another
    methods = [Method("float32"), Method("lpt", 8, "stochastic")]
    counted = 0

    def on_rows(rows):
        nonlocal counted
        counted += rows

    scores = list(compare(lambda seed: small, methods, range(3), Training(epochs=1), on_rows=on_rows))
    assert counted == clickthrough.runs_needed(methods, 3) * 15_000
    full, low = summarise(scores)
    assert low.method.clip == 0.25
    assert (full.difference, low.seeds) == (None, 3)
    apart = [b.auc - a.auc for a, b in zip(scores[::2], scores[1::2], strict=True)]
    assert low.difference == pytest.approx(np.mean(apart))
    half = 2.919986 * np.std(apart, ddof=1) / 3**0.5  # Student's t, two degrees of freedom, from a table
    assert low.difference_half == pytest.approx(half, rel=1e-6)
    assert paired(scores, "lpt int8 stochastic", "lsq int8") is None


def test_test_rows_are_those_of_every_seed_and_of_no_other_part(small):
    numbered = clicks.Clicks(np.arange(1000)[:, None], small.labels[:1000], ("n",), 1000)
    parts = [[set(part.ids[:, 0]) for part in numbered.split(seed, 500)] for seed in (0, 1)]
    assert [len(part) for part in parts[0]] == [300, 100, 100]
    assert parts[0][2] == parts[1][2]
    assert parts[0][0] != parts[1][0]
    for trained, validation, test in parts:
        assert not trained & validation and not trained & test and not validation & test


@pytest.mark.parametrize(
    "make",
    [
        lambda: Method("pact", 4),
        lambda: Method("lpt"),
        lambda: Method("float32", 8),
        lambda: Method("lpt", 9),
        lambda: Method("lsq", 4, "stochastic"),
    ],
)
def test_impossible_methods_are_refused(make):
    with pytest.raises(ConfigError):
        make()


# ---- teacher and files


def test_the_teacher_is_known_and_ids_are_zipfs():
    drawn = synthetic(3, rows=40_000)
    share = 1 / (1 + np.exp(-drawn.teacher))
    assert drawn.labels.mean() == pytest.approx(share.mean(), abs=0.01)
    for low, high in ((0.1, 0.2), (0.4, 0.6)):
        chosen = (share > low) & (share < high)
        assert drawn.labels[chosen].mean() == pytest.approx(share[chosen].mean(), abs=0.02)
    counts = np.bincount(drawn.ids[:, 2] - 1000, minlength=500)
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.15)
    assert np.array_equal(synthetic(3, rows=1000).ids, synthetic(3, rows=1000).ids)


def criteo_line(label, first, category):
    return "\t".join([str(label), first, *["5"] * 12, category, *["68fd1e64"] * 25]) + "\n"


def test_criteo_is_read(tmp_path):
    path = tmp_path / "train.txt"
    lines = [(0, "1", "aa"), (1, "", "aa"), (0, "-2", ""), (1, "100", "bb"), (0, "105", ""), (1, "1", "cc")]
    path.write_text("".join(criteo_line(*line) for line in lines))
    found = read_criteo(path)
    assert found.labels.tolist() == [False, True, False, True, False, True]
    assert found.ids.shape == (6, 39) and found.fields[0] == "I1" and found.fields[-1] == "C26"
    # I1: "1" twice, floor(ln(x)^2) = 21 twice, the rest once each and so rare; C1: "aa" and empty twice
    first = found.ids[:, 0]
    assert first.tolist() == [1, 0, 0, 2, 2, 1]
    assert (found.ids[:, 13] - found.ids[:, 13].min()).tolist() == [1, 1, 2, 0, 2, 0]
    assert found.vocabulary == 3 + 12 * 2 + 3 + 25 * 2
    assert found.ids.max() == found.vocabulary - 1
    (tmp_path / "train.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert np.array_equal(read_criteo(tmp_path / "train.gz").ids, found.ids)
    assert len(read_criteo(path, limit=4).labels) == 4
    assert read_criteo(path, least=1).vocabulary > found.vocabulary


AVAZU = "id,click,hour,C1,banner_pos,site_id,device_type\n"


def test_avazu_is_read(tmp_path):
    path = tmp_path / "train.gz"
    rows = "1000009418151094273,0,14102100,1005,0,1fbe01fe,1\n10000169349117863715,1,14102200,1005,0,fe8cc448,1\n"
    path.write_bytes(gzip.compress((AVAZU + rows + "3,0,14102123,1002,1,1fbe01fe,1\n").encode()))
    found = read_avazu(path)
    assert found.fields == ("hour", "C1", "banner_pos", "site_id", "device_type")
    assert found.labels.tolist() == [False, True, False]
    assert found.ids[:, 0].tolist() == [1, 1, 0]  # hour 00 of two days, and one 23
    assert found.ids[:, 3].tolist() == [7, 6, 7]


def test_any_table_is_read_by_its_header(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('late,carrier,"dest, city"\r\n1,UA,"Houston, TX"\r\n0,UA,"Houston, TX"\r\n0,AA,Miami\r\n')
    found = read_table(path, "late")
    assert found.fields == ("carrier", "dest, city")
    assert found.ids.tolist() == [[1, 3], [1, 3], [0, 2]]
    assert read_table(path, "late", ["carrier"]).vocabulary == 2


GOOD = criteo_line(1, "3", "aa")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD + "1\t2\n", "line 2: 2 columns, and should have 40"),
        (GOOD + GOOD.replace("\n", "\tx\n"), "line 2: 41 columns"),
        (GOOD + criteo_line("yes", "3", "aa"), "line 2: the label is 'yes'"),
        (GOOD + criteo_line(0, "3.5", "aa"), "line 2: '3.5' is not an integer"),
        (GOOD + criteo_line(0, "9" * 5000, "aa"), "line 2: '9999"),
        (GOOD + GOOD, "both labels"),
        ("", "both labels"),
        (GOOD + "\n", "line 2: 1 columns"),
        (GOOD + "x" * 70_000, "line 2: longer than"),
        (b"\xff\xfe" + GOOD.encode(), "line 1: 'utf-8'"),
        (b"\x1f\x8b" + b"junk" * 9, "cannot read"),
        (gzip.compress((GOOD * 50).encode(), mtime=0)[:-20], "cannot read"),
        (gzip.compress(b"\0" * 10_000_000, mtime=0), "line 1: longer than"),
        (b"\x80\x04\x95pickle", "line 1"),
        ("".join(criteo_line(k % 2, "3", "a" * 60_000) for k in range(9)), "on the mean"),
    ],
)
def test_hostile_criteo_files_are_refused(tmp_path, text, words):
    path = tmp_path / "bad"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=words):
        read_criteo(path, limit=100)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (AVAZU.replace("click", "clack"), "no column 'click'; did you mean 'clack'"),
        (AVAZU + "1,0,2014-10-21,1,2,3,4\n", "line 2: the hour"),
        (AVAZU + "1,0,14102100,1,2,3\n", "line 2: 6 columns, and should have 7"),
        (AVAZU + '1,0,14102100,"1,2,3,4\n', "line 2: unexpected end"),
        (AVAZU.replace("C1", "id"), "line 1: a column's name"),
        ("", "no column"),
    ],
)
def test_hostile_avazu_files_are_refused(tmp_path, text, words):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        read_avazu(tmp_path / "bad.csv")


def test_files_that_are_not_there_are_refused(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(DataError, match="cannot read"):
            read_table(path, "click")
    (tmp_path / "a.csv").write_text("click\n1\n0\n")
    with pytest.raises(DataError, match="beside the target"):
        read_table(tmp_path / "a.csv", "click")


# ---- the verb

SHORT = [
    "task",
    "clicks",
    "--rows",
    "2000",
    "--epochs",
    "1",
    "--seeds",
    "2",
    "--methods",
    "float32,alpt",
    "--bits",
    "4",
]


def test_the_verb_prints_a_table(monkeypatch):
    monkeypatch.setattr(clickthrough, "CLIPS", (0.25,))
    monkeypatch.setattr(clickthrough, "STEP_RATES", (2e-4,))
    result = CliRunner().invoke(app, SHORT)
    assert result.exit_code == 0, result.output
    assert (
        "alpt int4 nearest" in result.stdout and "teacher" in result.stdout and "training:" in result.stderr
    )
    data = json.loads(CliRunner().invoke(app, [*SHORT, "--json"]).stdout)
    assert [line["method"]["way"] for line in data["methods"]] == ["float32", "alpt", "alpt"]
    assert len(data["runs"]) == 6
    alone = json.loads(CliRunner().invoke(app, [*SHORT, "--json", "--seeds", "1"]).stdout)
    assert alone["methods"][0]["auc_half"] is None


def test_the_verb_reads_a_file(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, 2000)
    rows = [f"{k},{int(rng.random() < 0.1 + 0.15 * k)}" for k in x]
    (tmp_path / "t.csv").write_text("\n".join(["x,late", *rows]))
    words = ["--data", str(tmp_path / "t.csv"), "--target", "late", "--methods", "float32", "--json"]
    data = json.loads(CliRunner().invoke(app, [*SHORT, *words]).stdout)
    assert data["methods"][0]["auc"] > 0.6
    assert data["runs"][0]["ceiling"] is None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--methods", "lsqq"], "did you mean 'lsq'"),
        (["--bits", "16"], "2 to 8"),
        (["--rounding", ""], "name one or more"),
        (["--methods", "lpt,lpt"], "each once"),
        (["--interval", "1.5"], "interval"),
        (["--data", "criteo:/absent"], "absent"),
        (["--data", "absent.csv"], "absent"),
    ],
)
def test_wrong_flags_are_told(flags, words):
    result = CliRunner().invoke(app, [*SHORT, *flags])
    assert words in str(result.exception)
    assert result.exception.exit_code in (2, 3)


@pytest.mark.parametrize("whole", [0, 2])
def test_ctrl_c_shows_what_was_scored(whole, monkeypatch):
    plain, calls = clickthrough.train, []

    def stop(clicks, method, seed, *rest):
        if seed != clickthrough.CHOOSING_SEED:
            calls.append(seed)
            if len(calls) > whole:
                raise KeyboardInterrupt
        return plain(clicks, method, seed, *rest)

    monkeypatch.setattr(clickthrough, "train", stop)
    result = CliRunner().invoke(app, SHORT)
    assert result.exit_code == 130
    assert f"Stopped after {whole} of " in result.stderr
    assert ("to float32" in result.stdout) == bool(whole)


def test_help_teaches():
    for words in (["task", "--help"], ["task", "clicks", "--help"]):
        assert CliRunner().invoke(app, words).exit_code == 0
    assert "learned step for each row" in CliRunner().invoke(app, ["task", "clicks", "--help"]).stdout
