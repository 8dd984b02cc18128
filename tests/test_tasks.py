"""Tasks of choices on our models and theirs: likelihoods by hand, cloze, lm-evaluation-harness, and strangers."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_folders import REAL, make_ours, make_theirs
from typer.testing import CliRunner

from bitlaw import ConfigError, DataError, LabError, downstream, import_runs, read_runs
from bitlaw.cli.main import app
from bitlaw.formats import Scheme
from bitlaw.lab.corpus import Text, read_corpus
from bitlaw.lab.decode import Decoder, Sampling, generate
from bitlaw.lab.model import Transformer, load_model
from bitlaw.lab.precision import apply_scheme
from bitlaw.lab.tasks import Cloze, Harness, language_model, likelihood, taskfiles
from bitlaw.lab.tasks.cloze import WORD

torch.set_num_threads(1)
HERE = Path(__file__).parent
QUESTION = """\
task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: colours.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{text}}"
doc_to_choice: "{{words}}"
doc_to_target: right
target_delimiter: ""
"""
COLOURS = [
    {"text": f"def f{k}(", "words": ["self", "lamb"] + ["wool"] * (k % 2), "right": k % 2} for k in range(12)
]


@pytest.fixture
def ours(tmp_path):
    make_ours(tmp_path / "ours")
    return load_model(tmp_path / "ours")


@pytest.fixture
def theirs(tmp_path):
    (tmp_path / "theirs").mkdir()
    make_theirs(tmp_path / "theirs")
    return load_model(tmp_path / "theirs")


@pytest.fixture
def colours(tmp_path):
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "colours.yaml").write_text(QUESTION)
    (folder / "colours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in COLOURS))
    return folder


def by_hand(loaded, before, after):
    """One text at a time, a token at a time."""
    total, sure = 0.0, True
    for k, token in enumerate(after):
        with torch.inference_mode():
            p = loaded.model(torch.tensor([[*before, *after[:k]]]))[0, -1].log_softmax(-1)
        total += float(p[token])
        sure &= int(p.argmax()) == token
    return total, sure


# ---- likelihoods


@pytest.mark.parametrize("which", ["ours", "theirs"])
def test_likelihoods_are_those_of_one_text_at_a_time(which, request):
    loaded = request.getfixturevalue(which)
    texts = [("def f(", "self)"), ("import ", "os"), ("x", " = 1\n"), ("", "class"), ("é", "ü€"), ("  ", "a")]
    pairs = [likelihood.split(loaded, *text) for text in texts]
    found = likelihood.continuations(loaded, pairs)
    for pair, (total, sure) in zip(pairs, found, strict=True):
        assert (total, sure) == (
            pytest.approx(by_hand(loaded, *pair)[0], abs=1e-4),
            by_hand(loaded, *pair)[1],
        )


@pytest.mark.parametrize("which", ["ours", "theirs"])
def test_greedy_texts_are_those_of_the_decoder(which, request):
    """Another implementation, with a cache; and each token of them is the likeliest."""
    loaded = request.getfixturevalue(which)
    prompt = likelihood.encode(loaded, "def f(")
    [text] = generate(Decoder.of(loaded), [prompt], tokens=5, sampling=Sampling(temperature=0))
    assert likelihood.greedy(loaded, "def f(", [], 5) == likelihood.decode(loaded, text.tokens)
    assert likelihood.continuations(loaded, [(prompt, text.tokens)])[0][1]
    if which == "theirs":  # the third token becomes the one by which the model says that it is done
        loaded.model.model.generation_config.eos_token_id = text.tokens[2]
        before = text.tokens[: text.tokens.index(text.tokens[2])]
        assert likelihood.greedy(loaded, "def f(", [], 5) == likelihood.decode(loaded, before)


def test_texts_are_split_where_tokens_are(theirs):
    """A word's token holds the space before it; context and word alone would be other tokens."""
    for word in ("self", "import", "return"):
        before, after = likelihood.split(theirs, f"the {word} ", "None")
        assert after != likelihood.encode(theirs, "None") and theirs.tokenizer.id_to_token(after[0])[0] == "Ġ"
        assert [*before, *after] == likelihood.encode(theirs, f"the {word} None")
    assert likelihood.split(theirs, "", "x")[0] == [theirs.model.model.config.bos_token_id]


def test_what_is_too_long_loses_its_beginning(ours):
    text = list(REAL.encode()[:200])
    (cut,) = likelihood.continuations(ours, [(text[:190], text[190:])])
    (short,) = likelihood.continuations(ours, [(text[200 - 33 : 190], text[190:])])
    assert cut == short and likelihood.reach(ours) == 32
    (whole,) = likelihood.continuations(
        ours, [(text[:1], text[1:])]
    )  # more to say than fits: the last 32 alone
    assert whole[0] == pytest.approx(likelihood.continuations(ours, [(text[-33:-32], text[-32:])])[0][0])


def test_scales_are_not_shared_with_other_questions(ours):
    """Per-tensor scales depend on all that is read at once."""
    scheme = Scheme.parse("a=int3 tensor")
    low = replace(ours, model=apply_scheme(ours.model, scheme), scheme=scheme)
    pairs = [likelihood.split(low, "import os", text) for text in (".path", "\n\n\n\n\n\n", ";;;;")]
    alone = [likelihood.continuations(low, [pair])[0] for pair in pairs]
    assert likelihood.continuations(low, pairs) == alone


def test_answers_end_where_they_are_told_to(ours):
    said = likelihood.greedy(ours, "import ", [], 12)
    middle = said[len(said) // 2]
    assert likelihood.greedy(ours, "import ", ["never said", middle], 12) == said[: said.index(middle)]
    assert len(likelihood.greedy(ours, "", [], 3).encode()) >= 3


# ---- cloze


def test_words_of_a_list_have_one_length_and_the_right_one_was_there():
    corpus = read_corpus(None)
    cloze = Cloze.of(corpus.evaluation, corpus.calibration, count=150, choices=5, seed=3)
    text, again = (
        corpus.evaluation.tokens.tobytes(),
        Cloze.of(corpus.evaluation, corpus.calibration, 150, 5, 3),
    )
    assert cloze == again and cloze.digest == again.digest and len(cloze.gaps) == 150
    assert cloze.digest != Cloze.of(corpus.evaluation, corpus.calibration, 150, 5, 4).digest
    for gap in cloze.gaps:
        assert (
            len(gap.choices) == len(set(gap.choices)) == 5
            and len({len(c.encode()) for c in gap.choices}) == 1
        )
        assert (gap.before + gap.choices[gap.gold]).encode() in text
    places = np.bincount([gap.gold for gap in cloze.gaps], minlength=5)
    assert places.min() > 15  # the right one stands anywhere


def test_the_most_frequent_word_is_right_no_more_often_than_by_chance():
    """Of a thousand gaps; with lists of any words of one length it was right in two of three."""
    corpus = read_corpus(None)
    cloze = Cloze.of(corpus.evaluation, corpus.calibration, count=1000)
    counts = Counter(WORD.findall(corpus.calibration.tokens.tobytes()))
    hits = []
    for gap in cloze.gaps:
        words = [WORD.match(choice.encode())[0] for choice in gap.choices]
        hits.append(max(range(4), key=lambda k: counts[words[k]]) == gap.gold)
    assert abs(np.mean(hits) - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 1000)


def test_the_likeliest_word_is_chosen(ours):
    corpus = read_corpus(None)
    cloze = Cloze.of(corpus.evaluation, corpus.calibration, count=100)
    few = Cloze(cloze.gaps[:12])
    wrong = 0
    for gap in few.gaps:
        pairs = [likelihood.split(ours, gap.before[-40:], choice[:20]) for choice in gap.choices]
        scores = [by_hand(ours, a[-(33 - len(b)) :], b)[0] for a, b in pairs]
        wrong += int(np.argmax(scores)) != gap.gold
    short = Cloze(
        tuple(replace(g, before=g.before[-40:], choices=tuple(c[:20] for c in g.choices)) for g in few.gaps)
    )
    judged = short.judge(ours)
    assert judged.error == pytest.approx(wrong / 12) and judged.chance == 0.25


def test_a_model_that_knows_nothing_guesses(ours):
    """Every byte as likely as any: what is chosen hangs on lengths alone, and is right as often as by chance."""
    corpus = read_corpus(None)
    cloze = Cloze.of(corpus.evaluation, corpus.calibration, count=200)
    blank = Transformer(ours.model.shape)
    torch.nn.init.zeros_(blank.head.weight)
    judged = cloze.judge(replace(ours, model=blank))
    assert judged.chance == 0.25 and abs(1 - judged.error - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 200)


def test_clozes_that_cannot_be_made():
    text = Text(np.frombuffer(REAL.encode()[:900], np.uint8), np.zeros(1, np.int64))
    with pytest.raises(DataError, match="fewer than 100; use more text"):
        Cloze.of(text, text)
    with pytest.raises(ConfigError, match="two choices or more"):
        Cloze.of(text, text, choices=1)
    with pytest.raises(DataError, match="read the corpus with the tokenizer 'bytes'"):
        Cloze.of(replace(text, tokens=text.tokens.astype(np.uint16)), text)


# ---- lm-evaluation-harness


@pytest.fixture
def harness():
    return pytest.importorskip("lm_eval", reason="needs lm-evaluation-harness: pip install bitlaw[harness]")


def test_without_it_the_sentence_says_what_to_install(colours, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(LabError, match=r'pip install "bitlaw\[harness\]'):
        Harness(colours).check()


@pytest.mark.parametrize("which", ["ours", "theirs"])
def test_the_harness_chooses_as_we_do(harness, which, request, tmp_path):
    loaded = request.getfixturevalue(which)
    corpus = read_corpus(None)
    cloze = Cloze(Cloze.of(corpus.evaluation, corpus.calibration, count=100).gaps[:40])
    cloze.write(tmp_path / "tasks", "gaps")
    ours, judged = cloze.judge(loaded), Harness(tmp_path / "tasks").judge(loaded)
    assert (judged.error, judged.chance) == (pytest.approx(ours.error), ours.chance)
    assert judged.results["gaps"]["acc,none"] == pytest.approx(1 - ours.error)


def test_what_guessing_gets_is_of_the_questions_that_are_asked(harness, ours, colours):
    assert Harness(colours).judge(ours).chance == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert Harness(colours, limit=1).judge(ours).chance == 0.5
    assert len({Harness(colours).digest, Harness(colours, limit=1).digest}) == 2


def test_perplexities_and_answers_that_are_written(harness, ours, tmp_path):
    docs = [{"text": REAL[k : k + 90], "answer": "x"} for k in range(0, 500, 100)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in docs))
    data = "dataset_path: json\ndataset_kwargs: {data_files: {test: d.jsonl}}\ntest_split: test\n"
    rolling = "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{text}}'\n"
    (tmp_path / "ppl.yaml").write_text(f"task: ppl\n{data}{rolling}")
    written = "output_type: generate_until\ndoc_to_text: '{{text}}'\ndoc_to_target: '{{answer}}'\n"
    written += 'generation_kwargs: {until: ["\\n"], max_gen_toks: 4, do_sample: false}\n'
    (tmp_path / "said.yaml").write_text(f"task: said\n{data}{written}")
    found = Harness(tmp_path).judge(ours)
    nats = [by_window(ours, doc["text"].encode()) for doc in docs]
    assert found.results["ppl"]["bits_per_byte,none"] == pytest.approx(
        sum(nats) / sum(len(doc["text"].encode()) for doc in docs) / np.log(2), rel=1e-4
    )
    assert found.results["said"]["exact_match,none"] == 0 and found.error == 1 and found.chance == 0


def by_window(loaded, text):
    """Nats of a text, 32 bytes at once: the first after a line end, the last with as much before it as fits."""
    total, done = 0.0, 0
    tokens = [10, *text]
    while done < len(text):
        end = min(done + 32, len(text))
        seen = torch.tensor([tokens[max(0, end - 32) : end]])
        with torch.inference_mode():
            z = loaded.model(seen)[0].log_softmax(-1)
        count = end - done
        total -= float(z[-count:].gather(1, torch.tensor(tokens[end + 1 - count : end + 1])[:, None]).sum())
        done = end
    return total


@pytest.mark.parametrize("template", ["{{ 'a' * 1000000000 }}", "{{ 9 ** 999999999 }}"])
def test_a_template_of_a_stranger_computes_no_products(harness, ours, tmp_path, template):
    (tmp_path / "d.jsonl").write_text('{"text": "a", "answer": "x"}\n')
    data = "dataset_path: json\ndataset_kwargs: {data_files: {test: d.jsonl}}\ntest_split: test\n"
    rest = f"output_type: loglikelihood\ndoc_to_text: \"{template}\"\ndoc_to_target: '{{{{answer}}}}'\n"
    (tmp_path / "t.yaml").write_text(f"task: t\n{data}{rest}")
    with pytest.raises(DataError, match="a template computes with"):
        Harness(tmp_path).judge(ours)


def test_little_memory_changes_no_likelihood(ours, monkeypatch):
    pairs = [(list(REAL[k : k + 9].encode()), list(REAL[k + 9 : k + 20].encode())) for k in range(0, 300, 20)]
    whole = likelihood.continuations(ours, pairs)
    monkeypatch.setattr(likelihood, "AT_ONCE", 1)
    assert [a for a, _ in likelihood.continuations(ours, pairs)] == pytest.approx(
        [a for a, _ in whole], abs=1e-5
    )


def test_the_object_is_one_of_the_harness(harness, ours):
    model = language_model(ours)
    assert isinstance(model, sys.modules["lm_eval.api.model"].LM)


@pytest.mark.slow
def test_a_folder_of_tasks_from_the_command_line_to_a_law(harness, tmp_path, colours):
    """Quantise, judge, keep, import: nothing by hand."""
    make_ours(tmp_path / "ours")
    ask = [
        "quantize",
        str(tmp_path / "ours"),
        "--formats",
        "int8,int4",
        "--method",
        "rtn",
        "--eval-tokens",
        "8192",
    ]
    ask += [
        "--store",
        str(tmp_path / "q.sqlite"),
        "--tasks",
        str(colours),
        "--results",
        str(tmp_path / "res"),
    ]
    run = CliRunner().invoke(app, ask)
    assert run.exit_code == 0, run.stderr
    assert "error on tasks:" in run.stdout and "by guessing 58.3%" in run.stdout
    runs = read_runs(str(tmp_path / "q.sqlite"))
    assert (
        runs.frame["chance"].to_list() == [pytest.approx(5 / 12)] * 3
        and runs.frame["error"].null_count() == 0
    )
    table = import_runs(
        str(tmp_path / "res"), constants=["tokens=1M", "loss=2", "params=10k"], accept_guesses=True
    ).runs
    assert sorted(table.frame["error"].to_list()) == pytest.approx(sorted(runs.frame["error"].to_list()))
    again = CliRunner().invoke(app, [*ask[:-4], "--json"])  # without tasks: another row
    assert again.exit_code == 0 and len(read_runs(str(tmp_path / "q.sqlite"))) == 6


@pytest.mark.slow
def test_cloze_needs_nothing_that_is_not_here(tmp_path):
    make_ours(tmp_path / "ours")
    ask = [
        "quantize",
        str(tmp_path / "ours"),
        "--formats",
        "int4",
        "--method",
        "rtn",
        "--eval-tokens",
        "8192",
    ]
    ask += ["--store", str(tmp_path / "q.sqlite"), "--tasks", "cloze", "--limit", "100", "--json"]
    run = CliRunner().invoke(app, ask)
    rows = json.loads(run.stdout)
    assert [row["chance"] for row in rows] == [0.25, 0.25] and all(0 < row["error"] < 1 for row in rows)
    assert CliRunner().invoke(app, [*ask, "--trust-tasks"]).exit_code != 0
    made = CliRunner().invoke(
        app, ["task", "cloze", "--out", str(tmp_path / "c"), "--questions", "120", "--json"]
    )
    assert json.loads(made.stdout)["questions"] == 120
    (task,) = taskfiles.read_tasks(tmp_path / "c")
    assert len(task["data"]["test"]) == 120 and task["task"] == "cloze"
    with pytest.raises(Exception, match="rows cannot determine"):
        downstream(str(tmp_path / "q.sqlite"))


# ---- folders from strangers

HOSTILE = {
    "a function": ("process_docs: !function evil.run\n", "wants to run code of its own"),
    "a python object": (
        "description: !!python/object/apply:os.system ['touch CANARY']\n",
        "run code of its own",
    ),
    "a class": ("class: evil.Task\n", "`class` may do more than read"),
    "unsafe code": ("unsafe_code: true\n", "`unsafe_code` may do more than read"),
    "a prompt from elsewhere": ("use_prompt: promptsource:x\n", "`use_prompt` may do more"),
    "a filter": ("filter_list: [{name: a, filter: [{function: custom}]}]\n", "`filter_list` may do more"),
    "a metric to fetch": ("metric_list: [{metric: evil.py}]\n", "would be fetched and run"),
    "a metric of evaluate": (
        "metric_list: [{metric: acc, hf_evaluate: true}]\n",
        "a metric has 'hf_evaluate'",
    ),
    "an aggregation": (
        "metric_list: [{metric: acc, aggregation: os.system}]\n",
        "the aggregation 'os.system'",
    ),
    "data by name": ("dataset_path: someone/something\n", "would be fetched"),
    "data of a script": ("dataset_path: evil.py\n", "would be fetched"),
    "remote code": (
        "dataset_kwargs: {trust_remote_code: true, data_files: {test: colours.jsonl}}\n",
        "fetched",
    ),
    "data from elsewhere": (
        "dataset_kwargs: {data_files: {test: ../secret.jsonl}}\n",
        "leads out of the folder",
    ),
    "data at the root": ("dataset_kwargs: {data_files: {test: /etc/passwd}}\n", "leads out of the folder"),
    "data of the network": ("dataset_kwargs: {data_files: {test: 'https://x.y/z.jsonl'}}\n", "cannot read"),
    "a setting nobody knows": ("later_version: 1\n", "`later_version` may do more than read"),
    "an include from elsewhere": ("include: ../evil.yaml\n", "leads out of the folder"),
    "an alias": ("doc_to_choice: [&a [1, 2], *a]\n", "has a YAML alias"),
    "endless answers": ("generation_kwargs: {max_gen_toks: 1000000}\n", "from 1 to 4096"),
    "an include of itself": ("include: colours.yaml\n", "includes itself"),
    "a group": ("group: all\n", "`group` may do more than read"),
    "a template that is none": ("doc_to_text: 1.5\n", "is a template or a list"),
    "many examples": ("num_fewshot: 1000000\n", "whole number up to 1000"),
    "text that is none": ("description: [a]\n", "`description` is text"),
    "broken YAML": ("a: [\n", "is no plain YAML"),
    "unhashable keys": ("? [a]\n: b\n", "is no plain YAML"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_folders_that_would_do_more_than_ask_are_refused(kind, colours):
    more, why = HOSTILE[kind]
    (colours.parent / "secret.jsonl").write_text('{"text": "a"}\n')
    (colours / "evil.py").write_text("open('CANARY', 'w')\ndef run(docs): return docs\n")
    key = more.partition(":")[0]
    kept = [line for line in QUESTION.splitlines(keepends=True) if not line.startswith(f"{key}:")]
    (colours / "colours.yaml").write_text("".join(kept) + more)
    with pytest.raises(DataError, match=why):
        taskfiles.read_tasks(colours)
    assert not Path("CANARY").exists()


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"", "no documents"), (b"[1]", "no documents"), (b"{", "not JSON lines"), (b"\xff", "not JSON lines")],
)
def test_data_that_are_none_are_refused(data, why, colours):
    (colours / "colours.jsonl").write_bytes(data)
    with pytest.raises(DataError, match=why):
        taskfiles.read_tasks(colours)


def test_links_and_twins_are_refused(colours):
    (colours / "again.yaml").write_text(QUESTION)
    with pytest.raises(DataError, match="have the task 'colours'"):
        taskfiles.read_tasks(colours)
    (colours / "again.yaml").unlink()
    (colours.parent / "secret.jsonl").write_text('{"text": "a"}\n')
    (colours / "colours.jsonl").unlink()
    (colours / "colours.jsonl").symlink_to(colours.parent / "secret.jsonl")
    with pytest.raises(DataError, match="leads out of the folder"):
        taskfiles.read_tasks(colours)
    with pytest.raises(DataError, match="there are no tasks in"):
        taskfiles.read_tasks(HERE)
    with pytest.raises(DataError, match="there is no folder of tasks"):
        taskfiles.read_tasks(HERE / "nothing")


def test_files_that_are_included_often_are_read_once(colours):
    for place in range(40):
        (colours / f"part{place}.yaml").write_text(f"include: [part{place + 1}.yaml, part{place + 1}.yaml]\n")
    (colours / "part40.yaml").write_text("repeats: 1\n")
    (colours / "deep.yaml").write_text((colours / "colours.yaml").read_text() + "include: part0.yaml\n")
    (colours / "colours.yaml").unlink()
    (task,) = taskfiles.read_tasks(colours)
    assert task["repeats"] == 1


def test_templates_are_filled_in_nowhere_but_in_the_sandbox(harness, ours, colours, monkeypatch):
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from lm_eval import evaluator, utils

    class Unguarded:
        def from_string(self, text):
            raise AssertionError("a template was filled in outside of the sandbox")

    seen, evaluate = [], evaluator.evaluate

    def watched(**named):
        seen.append(type(utils.env))
        return evaluate(**named)

    outside = Unguarded()
    monkeypatch.setattr(utils, "env", outside)
    monkeypatch.setattr(evaluator, "evaluate", watched)
    assert Harness(colours).judge(ours).error is not None
    assert len(seen) == 1 and issubclass(seen[0], ImmutableSandboxedEnvironment) and utils.env is outside


def test_a_file_without_a_task_is_for_others_to_include(colours):
    (colours / "_rest.yaml").write_text(QUESTION.replace("task: colours\n", ""))
    (colours / "colours.yaml").write_text("include: _rest.yaml\ntask: mine\n")
    (task,) = taskfiles.read_tasks(colours)
    assert task["task"] == "mine" and len(task["data"]["test"]) == 12


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('touch CANARY').read() }}",
    "{% set _ = lipsum.__globals__['os'].system('touch CANARY') %}x",
    "{{ text.format.__globals__ }}",
]


@pytest.mark.parametrize("template", ESCAPES)
def test_templates_reach_nothing_but_the_document(harness, template, colours, ours):
    """Without the sandbox these run commands; the harness has none."""
    text = QUESTION.replace('"{{text}}"', json.dumps(template))
    (colours / "colours.yaml").write_text(text)
    before = sys.modules["lm_eval.utils"].env if "lm_eval.utils" in sys.modules else None
    with pytest.raises(DataError, match="cannot be asked|cannot be used"):
        Harness(colours, limit=2).judge(ours)
    assert not Path("CANARY").exists()
    assert before is None or sys.modules["lm_eval.utils"].env is before


def test_a_folder_that_is_trusted_may_run_its_code(harness, colours, ours, tmp_path, monkeypatch):
    monkeypatch.chdir(colours)  # data files of the harness's own reading are looked for where one stands
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (colours / "half.py").write_text("def half(docs): return docs.select(range(6))\n")
    (colours / "colours.yaml").write_text(QUESTION + "process_docs: !function half.half\n")
    with pytest.raises(DataError, match="--trust-tasks"):
        Harness(colours).judge(ours)
    assert Harness(colours, trust=True).judge(ours).results["colours"]["sample_len"] == 6
