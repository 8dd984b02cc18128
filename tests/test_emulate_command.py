"""The verb `emulate`: three folders in, one text out."""

from __future__ import annotations

import json
import math

import pytest
import torch
from typer.testing import CliRunner

from bitlaw import ConfigError, DataError, LabError, Scheme
from bitlaw.cli.main import app
from bitlaw.lab.corpus import read_corpus, spread_windows
from bitlaw.lab.decode import Decoder, Sampling, emulate, generate, log_likelihoods
from bitlaw.lab.model import Loaded, Transformer, load_model, save_model
from bitlaw.lab.quantize import quantize_parts
from bitlaw.shapes import Shape

torch.set_num_threads(1)
SEQ = 48
SMALL = Shape(width=16, depth=1, heads=2, ffn=24)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Untrained models, whose logits are made to differ: the verb is told what to do, not how well it does."""
    place = tmp_path_factory.mktemp("models")
    shapes = {"large": Shape(width=24, depth=2, heads=2, ffn=32), "base": SMALL, "tuned": SMALL}
    for seed, (name, shape) in enumerate(shapes.items()):
        model = Transformer(shape, seed=seed)
        with torch.no_grad():
            model.head.weight.mul_(20)
        save_model(Loaded(name, "", model, None, 256, SEQ, Scheme(), {}), place / name)
    other = Transformer(Shape(width=16, depth=1, heads=2, ffn=24, vocab=300))
    save_model(Loaded("other", "", other, None, 300, SEQ, Scheme(), {}), place / "other")
    with torch.no_grad():
        model.embedding.weight[ord("!")] = math.nan
    save_model(Loaded("broken", "", model, None, 256, SEQ, Scheme(), {}), place / "broken")
    return place


def run(folders, *arguments, large="large", base="base", tuned="tuned"):
    models = zip(("--large", "--small-base", "--small-tuned"), (large, base, tuned), strict=True)
    flags = [word for flag, name in models for word in (flag, folders / name)]
    return CliRunner().invoke(app, ["emulate", *map(str, (*flags, *arguments))])


def source(folders, name, scheme=None):
    model = load_model(folders / name).model
    return Decoder(quantize_parts(model, Scheme.parse(scheme)) if scheme else model, 256)


def test_it_says_what_the_emulation_says(folders):
    plain = run(folders, "--prompt", "import ", "--tokens", 12, "--seed", 3, "--beta", 0.5, "--json")
    assert plain.exit_code == 0, plain.output
    target = emulate(*(source(folders, name) for name in ("large", "base", "tuned")), beta=0.5)
    (text,) = generate(target, [b"import "], 12, seed=3)
    found = json.loads(plain.stdout)
    assert found["texts"][0]["tokens"] == text.tokens and found["speculation"] is None
    shown = run(folders, "--prompt", "import ", "--tokens", 12)
    assert shown.stdout.startswith("import ") and "12 tokens in" in shown.stderr


def test_each_model_has_its_own_format(folders):
    formats = ("--large-scheme", "w3", "--small-tuned-scheme", "w=int8")
    greedy = ("--prompt", "x", "--tokens", 16, "--temperature", 0, "--json")
    found = json.loads(run(folders, *formats, *greedy).stdout)
    assert found["schemes"] == {"large": "w3", "small_base": "16", "small_tuned": "w8"}
    low = emulate(source(folders, "large", "w3"), source(folders, "base"), source(folders, "tuned", "w8"))
    (text,) = generate(low, [b"x"], 16, Sampling(temperature=0))
    assert found["texts"][0]["tokens"] == text.tokens
    assert json.loads(run(folders, *greedy).stdout)["texts"][0]["tokens"] != text.tokens


@pytest.mark.parametrize("ahead", [0, 3])
def test_a_draft_leaves_the_likeliest_text_as_it_is(ahead, folders):
    greedy = ("--prompt", "x", "--prompt", "def ", "--tokens", 24, "--temperature", 0)
    plain = json.loads(run(folders, *greedy, "--json").stdout)
    drafted = json.loads(run(folders, *greedy, "--speculate", ahead, "--json").stdout)
    assert drafted["texts"] == plain["texts"]
    if not ahead:
        few = run(folders, "--prompt", "x", "--tokens", 1, "--speculate", 0, "--json")
        assert json.loads(few.stdout)["tokens"] == 1
    if ahead:
        counts = drafted["speculation"]
        assert counts["ahead"] == 3 and 0 <= counts["accepted"] <= counts["judged"]
        assert counts["accepted"] + counts["rounds"] == 48
        assert "passes" in run(folders, *greedy, "--speculate", ahead).stderr


def test_a_continuation_is_scored(folders):
    found = run(folders, "--prompt", "Q: ", "--continuation", "yes", "--json")
    target = emulate(*(source(folders, name) for name in ("large", "base", "tuned")))
    (log_p,) = log_likelihoods(target, [b"Q: "], [b"yes"])
    assert json.loads(found.stdout)["log_likelihoods"] == [pytest.approx(float(log_p.sum()))]
    assert "nats for 3 tokens after 'Q: '" in run(folders, "--prompt", "Q: ", "--continuation", "yes").stdout
    never = run(folders, "--prompt", "Q: ", "--continuation", "yes", "--top-k", 1, "--json")
    assert json.loads(never.stdout)["log_likelihoods"] == [None]


@pytest.mark.parametrize(("models", "arguments", "kind", "words"), [
    ({"large": "nowhere"}, [], DataError, "there is no folder .*nowhere"),
    ({"tuned": "other"}, [], ConfigError, "tokens of their own"),
    ({}, ["--large-scheme", "w99"], ConfigError, "2 to 16 bits, not 99"),
    ({}, ["--small-base-scheme", "w0"], ConfigError, "2 to 16 bits, not 0"),
    ({}, ["--beta", "nan"], ConfigError, "a change of weight nan means nothing"),
    ({}, ["--beta", "inf"], ConfigError, "a change of weight inf means nothing"),
    ({}, ["--nucleus", "1.5"], ConfigError, "a nucleus of 1.5"),
    ({}, ["--nucleus", "0.9", "--beta", "2"], ConfigError, "leave beta at 1"),
    ({}, ["--tokens", "99"], ConfigError, "beyond the 48 .* --beyond"),
    ({}, ["--continuation", "a", "--speculate", "2"], ConfigError, "not both"),
    ({}, ["--continuation", ""], ConfigError, "empty"),
    ({"large": "broken"}, ["--prompt", "ab!"], LabError, "after token 3 of text 2 are not finite"),
])  # fmt: skip
def test_what_cannot_be_done_is_said_in_a_sentence(models, arguments, kind, words, folders):
    result = run(folders, "--prompt", "xyz", *arguments, **models)
    assert isinstance(result.exception, kind), result.exception
    with pytest.raises(kind, match=words):
        raise result.exception


def test_which_model_should_lose_bits_first(folders, tmp_path):
    """The verb's numbers are those of `allocations` on the text's held-out side."""
    flags = [
        word
        for flag, name in (("--large", "large"), ("--small-base", "base"), ("--small-tuned", "tuned"))
        for word in (flag, str(folders / name))
    ]
    done = CliRunner().invoke(app, ["allocate", *flags, "--bits", "16,3", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [way["bits"] for way in found["ways"]][:2] == [[16, 16, 16], [16, 16, 3]] and len(
        found["ways"]
    ) == 8
    windows = spread_windows(read_corpus().evaluation, 48 * SEQ, SEQ).inputs.tolist()
    prompts, said = [w[: SEQ // 8] for w in windows], [w[SEQ // 8 :] for w in windows]
    target = emulate(source(folders, "large", "w3"), source(folders, "base"), source(folders, "tuned"))
    loss = -float(torch.cat(log_likelihoods(target, prompts, said)).mean())
    (way,) = (way for way in found["ways"] if way["bits"] == [3, 16, 16])
    assert way["loss"] == pytest.approx(loss, abs=1e-9)
    prices = [step["nats_per_megabyte"] for step in found["first_to_lose"]]
    assert prices == sorted(prices) and len(prices) == 3
    shown = CliRunner().invoke(app, ["allocate", *flags, "--bits", "16,3"])
    assert shown.exit_code == 0 and "First to lose bits: the" in shown.stdout
    for wrong in ("16", "16,1", "many"):
        refused = CliRunner().invoke(app, ["allocate", *flags, "--bits", wrong])
        assert isinstance(refused.exception, ConfigError) and "bits are two or more of 16" in str(
            refused.exception
        )


def test_bits_on_one_text_alone_have_no_standard_error(folders, tmp_path, monkeypatch):
    """JSON has no NaN: what one text cannot tell is null."""
    monkeypatch.setattr("bitlaw.cli.allocate.TEXTS", 1)
    flags = [
        word
        for flag, name in (("--large", "large"), ("--small-base", "base"), ("--small-tuned", "tuned"))
        for word in (flag, str(folders / name))
    ]
    done = CliRunner().invoke(app, ["allocate", *flags, "--bits", "16,3", "--json"])
    assert done.exit_code == 0, done.output
    assert {way["loss_se"] for way in json.loads(done.stdout)["ways"]} == {None}
