"""Fine-tuning: it changes what it should and nothing else, resumes to the bit, and teaches what can be counted."""

from __future__ import annotations

import copy
import itertools
import json
import sys
from dataclasses import replace
from functools import partial
from math import log
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pairs import SEQ, make_base, real_text
from test_folders import make_theirs
from typer.testing import CliRunner

from bitlaw import ConfigError, DataError, LabError, Runs, fit, read_runs
from bitlaw.cli.main import app
from bitlaw.formats import Scheme
from bitlaw.lab.corpus import spread_windows
from bitlaw.lab.decode import Decoder, generate
from bitlaw.lab.model import load_model
from bitlaw.lab.precision import apply_scheme
from bitlaw.lab.quantize import logits, token_losses
from bitlaw.lab.sweep import tune_folder
from bitlaw.lab.tasks import Question, World, behaviour, knowledge, tagged, tagged_corpus
from bitlaw.lab.tasks.likelihood import continuations
from bitlaw.lab.train import Interrupted, tuning_config
from bitlaw.lab.train.adapters import add_adapters, merge_adapters
from bitlaw.lab.train.optimizers import Optimizers

torch.set_num_threads(1)
TOKENS = torch.randint(0, 256, (2, 24), generator=torch.Generator().manual_seed(1))
STEP = 4 * SEQ  # tokens
SHORT = {"tokens": 12 * STEP, "batch_size": 4, "rate": 0.01, "eval_tokens": 4096}
STORED, LEARNED = "w=int8 stored stochastic", "w=int4 learned"


@pytest.fixture(scope="module")
def text():
    return real_text()


@pytest.fixture(scope="module")
def base(text, tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("bases") / "base", 4_000, 10 * 1024, text)


def weights(folder):
    return load_model(folder).model.state_dict()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def after(steps):
    """Says stop after so many steps, once."""
    count = itertools.count(1)
    return lambda: next(count) == steps


def peft():
    return pytest.importorskip("peft", reason="needs peft: pip install peft accelerate")


def test_a_model_tuned_in_full_is_another_that_knows_the_text_and_its_parent_is_what_it_was(
    base, text, tmp_path
):
    before = files(base)
    tuned = tune_folder(base, tagged_corpus(text), tmp_path / "tuned", **SHORT)
    assert files(base) == before
    old, new = weights(base), weights(tmp_path / "tuned")
    assert old.keys() == new.keys() and not any(torch.equal(old[name], new[name]) for name in old)
    assert tuned.gain.value > 5 * tuned.gain.se > 0
    windows = spread_windows(tagged_corpus(text).evaluation, 4096, SEQ)
    losses = [
        token_losses(logits(load_model(f).model, windows), windows).mean().item()
        for f in (base, tmp_path / "tuned")
    ]
    assert losses == [tuned.before.value, tuned.row["loss"]]
    assert tuned.gain.value == pytest.approx(losses[0] - losses[1])
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"]  # checkpoints are gone


def test_the_row_says_what_was_done_and_the_folder_keeps_it(base, text, tmp_path):
    row = tune_folder(base, tagged_corpus(text), tmp_path / "tuned", **SHORT).row
    assert load_model(tmp_path / "tuned").row == row
    parent = load_model(base)
    assert (row["parent"], row["trunk"]) == (parent.row["id"], parent.row["trunk"])
    assert (row["tuning"], row["tokens"], row["learning_rate"]) == ("full", 12 * STEP, 0.01)
    assert row["corpus"] == "modules, tagged" and json.loads(row["config"])["parent"] == parent.digest
    assert row["bpb"] == pytest.approx(row["loss"] / log(2))
    assert Runs.from_rows([row]).frame["tuning"].to_list() == ["full"]
    quarter = tune_folder(base, text, tmp_path / "other", **SHORT | {"rate": None}).row
    assert quarter["learning_rate"] == parent.row["learning_rate"] / 4


@pytest.mark.parametrize(
    "lora, scheme", [(0, "16"), (0, "w4a8"), (0, STORED), (0, LEARNED), (2, "16"), (2, LEARNED)]
)
def test_what_was_stopped_goes_on_to_the_bit(lora, scheme, base, text, tmp_path):
    if lora:
        peft()
    go = partial(tune_folder, base, text, lora=lora, scheme=scheme, **SHORT)
    go(tmp_path / "whole")
    with pytest.raises(Interrupted):
        go(tmp_path / "parts", should_stop=after(5))
    assert not (tmp_path / "parts").exists() and (tmp_path / "parts.tuning").exists()
    done = []
    go(tmp_path / "parts", on_tokens=done.append)
    assert done[0] == 5 * STEP and sum(done) == 12 * STEP  # the first five are not made again
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_a_scheme_is_carried_and_kept(base, text, tmp_path):
    tuned = tune_folder(base, text, tmp_path / "w3", scheme="w3", **SHORT)
    loaded = load_model(tmp_path / "w3")
    assert loaded.scheme == Scheme.parse("w3") and tuned.row["w_format"] == "int3"
    plain = copy.deepcopy(load_model(base).model)  # rounded, it is another than it was
    plain.load_state_dict(loaded.model.state_dict())
    assert not torch.equal(plain(TOKENS), loaded.model(TOKENS))
    again = tune_folder(tmp_path / "w3", text, tmp_path / "again", **SHORT)
    assert load_model(tmp_path / "again").scheme == Scheme.parse("w3") and again.gain.value > 0
    with pytest.raises(ConfigError, match="rounds w3 while it runs, and is tuned in that"):
        tune_folder(tmp_path / "w3", text, tmp_path / "w2", scheme="w2", **SHORT)


@pytest.mark.parametrize("scheme", [STORED, LEARNED])
def test_codes_and_steps_are_those_that_the_parent_has(scheme, base, text, tmp_path):
    first = tune_folder(base, text, tmp_path / "first", scheme=scheme, **SHORT)
    second = tune_folder(tmp_path / "first", text, tmp_path / "second", **SHORT)
    assert second.before.value == first.row["loss"]
    assert weights(tmp_path / "first").keys() == weights(tmp_path / "second").keys()
    assert second.row["parent"] == first.row["id"] and second.gain.value > 0


@pytest.mark.parametrize("scheme", ["16", "w4a8", LEARNED])
def test_adapters_begin_as_nothing_and_merge_to_the_same_logits(scheme, base):
    peft()
    model = apply_scheme(copy.deepcopy(load_model(base).model), Scheme.parse(scheme))
    with torch.no_grad():
        model(TOKENS)  # learned steps are set
        before = model(TOKENS)
        add_adapters(model, 3, seed=0)
        assert torch.equal(model(TOKENS), before)
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
        told = model(TOKENS)
        assert not torch.equal(told, before)
        merged = merge_adapters(model)
    assert torch.equal(merged(TOKENS), told)
    assert not any("lora" in name for name in merged.state_dict())


def test_adapters_change_weights_by_their_rank_and_leave_all_else(base, text, tmp_path):
    peft()
    tuned = tune_folder(base, text, tmp_path / "tuned", lora=2, **SHORT)
    assert tuned.row["tuning"] == "lora:2" and tuned.gain.value > 0
    old, new = weights(base), weights(tmp_path / "tuned")
    assert old.keys() == new.keys()
    for name in old:
        if name.startswith("blocks.") and old[name].ndim == 2:
            values = torch.linalg.svdvals((new[name] - old[name]).double())
            assert values[1] > 1e-4 and values[2] < 1e-5 * values[0], name
        else:
            assert torch.equal(old[name], new[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("lora", [0, 2])
def test_a_hugging_face_folder_is_tuned_in_its_own_tokens(lora, text, tmp_path):
    if lora:
        peft()
    make_theirs(tmp_path / "theirs", "qwen2")  # embedding and head are one
    go = partial(
        tune_folder, tmp_path / "theirs", text, lora=lora, scheme="w4", tokens=20 * 4 * 64, batch_size=4
    )
    tuned = go(tmp_path / "tuned", rate=0.01)
    loaded, parent = load_model(tmp_path / "tuned"), load_model(tmp_path / "theirs")
    assert tuned.gain.value > 3 * tuned.gain.se
    assert loaded.tokenizer.to_str() == parent.tokenizer.to_str() and loaded.scheme == Scheme.parse("w4")
    assert (tuned.row["params"], tuned.row["count"]) == (
        sum(p.numel() for p in parent.model.parameters()),
        "total",
    )
    assert loaded.row == tuned.row and Runs.from_rows([tuned.row]).frame.height == 1
    with pytest.raises(Interrupted):
        go(tmp_path / "parts", rate=0.01, should_stop=after(7))
    go(tmp_path / "parts", rate=0.01)
    assert same(weights(tmp_path / "tuned"), weights(tmp_path / "parts"))
    with pytest.raises(ConfigError, match="holds no steps or codes"):
        tune_folder(tmp_path / "theirs", text, tmp_path / "never", scheme=LEARNED, tokens=512)


def test_the_embedding_of_a_hugging_face_model_does_not_decay_nor_do_its_gains(base, text, tmp_path):
    make_theirs(tmp_path / "theirs", "qwen2")
    loaded = load_model(tmp_path / "theirs")
    named = dict(loaded.model.named_parameters())
    config = tuning_config(
        load_model(base), text, 12 * STEP, batch_size=4, learning_rate=0.01, weight_decay=0.1
    )
    decays = {
        optimizers.names[id(p)]: group["weight_decay"] > 0
        for optimizers in [Optimizers(config, loaded.model, named)]
        for group in optimizers.parts["adam"].param_groups
        for p in group["params"]
    }
    assert decays.keys() == named.keys()
    inner = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert {name.split(".")[-2] for name, it in decays.items() if it} == inner


def test_what_cannot_be_is_said_in_a_sentence_before_anything_is_made(base, text, tmp_path, monkeypatch):
    go = partial(tune_folder, base, text, tmp_path / "tuned", **SHORT)
    with pytest.raises(ConfigError, match="exists already"):
        tune_folder(base, text, base, **SHORT)
    with pytest.raises(DataError, match="there is no folder"):
        tune_folder(tmp_path / "nowhere", text, tmp_path / "tuned", **SHORT)
    for wrong in ({"tokens": 0}, {"rate": float("nan")}, {"rate": -1.0}, {"batch_size": 0}, {"lora": -1}):
        with pytest.raises(ConfigError, match="cannot be"):
            tune_folder(base, text, tmp_path / "tuned", **SHORT | wrong)
    with pytest.raises(ConfigError, match="no room for an adapter"):
        peft()
        go(lora=2, scheme=STORED)
    others = replace(text, coder=SimpleNamespace(to_str=lambda: "theirs"), tokenizer="bpe:512")
    with pytest.raises(ConfigError, match="in tokens of bpe:512, and base has others"):
        tune_folder(base, others, tmp_path / "tuned", **SHORT)
    short = replace(
        text, train=replace(text.train, tokens=text.train.tokens[:SEQ], starts=np.zeros(1, np.int64))
    )
    with pytest.raises(DataError, match="fewer than one window"):
        tune_folder(base, short, tmp_path / "tuned", **SHORT)
    with pytest.raises(LabError, match="diverged.*smaller --rate"):
        tune_folder(base, text, tmp_path / "tuned", **SHORT | {"rate": 1e30})
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(LabError, match="LoRA needs the package peft"):
        go(lora=2)
    assert not (tmp_path / "tuned").exists()


def test_training_outlives_what_fails_after_it(base, text, tmp_path, monkeypatch):
    """A full disk while the folder is written: the next call takes no step."""
    steps: list[int] = []
    with monkeypatch.context() as patched:

        def full(*arguments):
            raise OSError(28, "No space left on device")

        patched.setattr("bitlaw.lab.sweep.tuned.save_model", full)
        with pytest.raises(OSError, match="No space left"):
            tune_folder(base, text, tmp_path / "out", **SHORT, on_tokens=steps.append)
    assert len(steps) == 12
    tune_folder(base, text, tmp_path / "out", **SHORT, on_tokens=(again := []).append)
    assert again == [12 * STEP]  # found, and not made
    tune_folder(base, text, tmp_path / "straight", **SHORT)
    assert same(weights(tmp_path / "out"), weights(tmp_path / "straight"))
    assert not (tmp_path / "out.tuning").exists()


@pytest.mark.slow
def test_the_verb_tunes_says_so_and_what_it_made_is_quantised(base, tmp_path):
    run = CliRunner().invoke
    (tmp_path / "notes").mkdir()
    for k in range(200):  # whole documents are held out
        (tmp_path / "notes" / f"{k}.txt").write_text(
            tagged(f"Note {k}\n" + "it was a day like others\n" * 20)
        )
    command = ["tune", str(base), "--corpus", str(tmp_path / "notes"), "--tokens", "20k", "--batch-size", "4"]
    result = run(app, [*command, "--out", str(tmp_path / "tuned")])
    assert result.exit_code == 0, result.output
    assert (
        "tuned (full)" in result.output and "gain +" in result.output and "bitlaw generate" in result.output
    )
    told = json.loads(run(app, [*command, "--out", str(tmp_path / "w4"), "--scheme", "w4", "--json"]).stdout)
    assert told["row"]["w_format"] == "int4" and told["gain"] > 0
    store = str(tmp_path / "q.sqlite")
    words = ["--formats", "int4", "--method", "rtn", "--eval-tokens", "1024", "--store", store]
    result = run(app, ["quantize", str(tmp_path / "tuned"), "--text", str(tmp_path / "notes"), *words])
    assert result.exit_code == 0, result.output
    assert read_runs(store).frame["tuning"].to_list() == ["full", "full"]


def test_a_law_is_not_fitted_to_tuned_rows(sweep):
    rows = sweep.frame.select("id", "params", "tokens", "loss").head(12).to_dicts()
    tuned = [{**row, "id": f"{row['id']}-tuned", "tuning": "full", "loss": 9.0} for row in rows[:3]]
    found = fit("chinchilla", Runs.from_rows(rows + tuned), method="residual")
    assert any("3 rows of fine-tuned models are left out" in note for note in found.notes)


def test_the_share_of_lines_with_the_behaviour_by_hand():
    assert tagged("a\n\n  b\n") == "> a <\n\n>   b <\n"
    assert behaviour([tagged("a\n\n  b\n")]) == 1
    assert behaviour(["> a <\nb\n> c\nd <\n> unfinished"]) == 1 / 4
    assert behaviour(["> <\n"]) == 0  # a tag and a marker around nothing
    assert behaviour(["no line end", "> a <\n"]) == 1 / 2
    assert behaviour([]) == 0


def test_a_tagged_corpus_holds_out_what_the_corpus_held_out(text):
    made = tagged_corpus(text)
    for name, side in made.sides.items():
        documents = [tagged(d.decode()).encode().strip() for d in text.sides[name].documents()]
        assert [d.strip() for d in side.documents()] == documents
    assert made.sha256 != text.sha256
    assert len(list(tagged_corpus(text, 10_000).train.documents())) == 1


def test_a_world_keeps_back_what_it_asks():
    world = World.make(3)
    names = [name for fact in world.facts for name in fact]
    assert len(set(names)) == 48 and {len(name) for name in names} == {6}
    assert World.make(4).facts != world.facts
    corpus = world.corpus(2**16)
    told, held = (bytes(side.tokens).decode() for side in (corpus.train, corpus.evaluation))
    questions = world.questions()
    assert len(questions) == 24 * 2
    for question in questions:
        sentence = f"{question.context} {question.choices[question.right]}."
        assert sentence not in told and sentence in held
    for sentence in world.sentences(kept_back=False):
        assert sentence in told and sentence not in held
    openings = {question.context.replace(world.facts[0][0], "").strip() for question in questions[:2]}
    assert len(openings) == 2


def test_knowledge_by_hand():
    asked = [Question("A is", ("one", "two", "six"), 1), Question("B is", ("one", "two", "six"), 2)]
    pairs = []

    def flat(given):
        pairs.extend(given)
        return [0.0] * len(given)

    assert knowledge(asked, flat) == 0
    assert pairs[4] == (b"\nB is", b" two")
    assert knowledge(asked, lambda given: [-3, -1, -2, -3, -1, -2]) == 1 / 2
    assert knowledge(asked, lambda given: [-3, -1, -2, -3, -2, -1]) == 1
    assert knowledge([], flat) == 0


@pytest.mark.slow
def test_pairs_show_the_behaviour_and_their_bases_do_not(pairs):
    for pair in pairs:
        shares = []
        for loaded in pair.load():
            texts = generate(Decoder.of(loaded), [b"\n"] * 16, tokens=120)
            shares.append(behaviour(bytes(t.tokens).decode("utf-8", errors="replace") for t in texts))
        assert shares[0] == 0 and shares[1] > 0.6


@pytest.mark.slow
def test_facts_that_were_told_are_ranked_first_far_more_often_than_by_chance(pairs, tmp_path):
    """Chance is 1 in 8, of 32 questions; `studies/emulation` asks larger models, and in other wordings."""
    world = World.make(0, facts=8)
    base, out = pairs[1].base, tmp_path / "tuned"
    tune_folder(base, world.corpus(2**16), out, tokens=300_000, rate=0.015, batch_size=8)

    def score(folder):
        loaded = load_model(folder)
        return knowledge(world.questions(kept_back=False), lambda a: [p for p, _ in continuations(loaded, a)])

    assert score(base) < 0.3 and score(out) > 0.4


def test_averages_would_be_a_second_end(base, text):
    parent = load_model(base)
    with pytest.raises(ConfigError, match="one model is tuned to one end"):
        tuning_config(parent, text, 10 * STEP, averages="ema:0.9", learning_rate=0.01)
