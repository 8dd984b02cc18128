"""Reading on with a cache is reading the whole text, in any format; and what is drawn is what was said."""

from __future__ import annotations

import copy
import json
import math
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from typer.testing import CliRunner

from bitlaw import ConfigError, DataError, LabError, Scheme
from bitlaw.cli.main import app
from bitlaw.formats import Recipe
from bitlaw.lab.corpus import read_corpus, spread_windows
from bitlaw.lab.decode import (
    Decoder,
    Sampling,
    Spelling,
    draw,
    emulate,
    encode,
    ends_of,
    generate,
    limit_of,
    number_of,
    same_tokens,
    stream,
)
from bitlaw.lab.model import KVCache, Loaded, Transformer, load_model, save_model
from bitlaw.lab.precision import apply_scheme, fake_quantize, static_scales
from bitlaw.lab.precision.static import StaticQuantize, uncacheable
from bitlaw.lab.quantize import quantize_parts
from bitlaw.lab.train import TrunkConfig, train_trunk
from bitlaw.shapes import Shape

torch.set_num_threads(1)
SEQ = 48
STEADY = (
    *("16", "w=int8", "w=int4", "w=e2m1", "w=mxfp4", "w=nvfp4", "w=int4 group16", "w=ternary"),
    *("a=int8 token", "a=e4m3 token", "a=mxfp4", "a=uint8 token mse", "a=int8 token rotate"),
    *("kv=int4 token", "kv=int4 channel", "kv=uint4 group8", "kv=mxfp4", "q=int8 token", "emb=int4, head=int4"),
    "w=mxfp4, a=int8 token, kv=int4 token",
)  # fmt: skip
UNSTEADY = (
    *("a=int8", "w4a8kv4", "kv=int4 tensor", "kv=uint4 tensor mse", "a=nvfp4, kv=nvfp4"),
    *("a=int8 token stochastic", "a=int8 tensor rotate stochastic", "q=e4m3"),
)  # fmt: skip


@pytest.fixture(scope="module")
def corpus():
    return read_corpus()


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """A small model that has read some text: its logits are no noise, and its outliers are real ones."""
    config = TrunkConfig(
        shape=Shape(width=32, depth=2, heads=2, ffn=48), scheme="16", seed=5, corpus_sha256=corpus.sha256,
        budgets=(150 * 4 * SEQ,), batch_size=4, seq_len=SEQ, learning_rate=0.02, warmup_steps=4, eval_tokens=4096,
    )  # fmt: skip
    (end,) = train_trunk(config, corpus, tmp_path_factory.mktemp("trunk"))
    return end.model.eval()


@pytest.fixture(scope="module")
def precise(trained):
    """In float64, where a rounding error of the last bit does not carry a number over the middle of two values."""
    model = Transformer(trained.shape).double().eval()
    model.load_state_dict(trained.state_dict())
    return model


@pytest.fixture(scope="module")
def text(corpus):
    return spread_windows(corpus.evaluation, 4 * SEQ, SEQ).inputs


@pytest.fixture(scope="module")
def shown(corpus):
    return spread_windows(corpus.calibration, 32 * SEQ, SEQ).inputs


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    place = tmp_path_factory.mktemp("models") / "ours"
    row = {"id": "cell", "params": 2e4, "count": "non_embedding", "tokens": 3e4}
    save_model(Loaded("ours", "", trained, None, 256, SEQ, Scheme(), row), place)
    return place


def whole(decoder, text):
    with torch.inference_mode():
        return decoder.model(text)


def in_pieces(decoder, text):
    """Logits of a text that is read in pieces of other lengths in each row, down to one token and none."""
    session, rows = decoder.open(len(text)), [row.tolist() for row in text]
    sizes = [(5, 0, 1, 2), (9, 1, 0, 1), (1, 1, 1, 1), (2, 7, 1, 0), (3, 3, 8, 1)]
    found: list[list[torch.Tensor]] = [[] for _ in rows]
    turn = 0
    while any(rows):
        new = [row[: sizes[(turn + k) % 5][k % 4]] for k, row in enumerate(rows)]
        for k, logits in enumerate(session.append(new)):
            assert len(logits) == len(new[k])
            found[k].append(logits)
        rows = [row[len(piece) :] for row, piece in zip(rows, new, strict=True)]
        turn += 1
    assert session.lengths == [text.shape[1]] * len(text)
    return torch.stack([torch.cat(pieces) for pieces in found])


# ---- cached is uncached


@pytest.mark.parametrize("scheme", STEADY)
def test_reading_on_is_reading_the_whole_text(scheme, precise, text):
    decoder = Decoder(quantize_parts(precise, Scheme.parse(scheme)), 256, limit=SEQ)
    found = whole(decoder, text)
    assert (in_pieces(decoder, text) - found).abs().max() < 1e-9
    if scheme != "16":
        assert (found - precise(text)).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("scheme", STEADY)
def test_in_float32_all_but_ties_are_the_same(scheme, trained, text):
    decoder = Decoder(quantize_parts(trained, Scheme.parse(scheme)), 256)
    found = whole(decoder, text)
    apart = ((in_pieces(decoder, text) - found).abs().amax(-1) / found.abs().amax(-1)) > 1e-5
    rounds_as_it_runs = any(part in scheme for part in ("a=", "kv=", "q="))
    assert apart.double().mean() <= (0.1 if rounds_as_it_runs else 0)


@pytest.mark.parametrize("scheme", UNSTEADY)
def test_scales_of_many_tokens_are_refused_until_they_are_found(scheme, precise, text, shown):
    low = quantize_parts(precise, Scheme.parse(scheme))
    with pytest.raises(ConfigError, match=r"so that no cache holds .* try .* token'"):
        Decoder(low, 256)
    fixed = static_scales(low, shown)
    assert list(uncacheable(low)) and not list(uncacheable(fixed))  # a copy, and the model as it was
    decoder = Decoder(fixed, 256)
    assert (in_pieces(decoder, text) - whole(decoder, text)).abs().max() < 1e-9


@pytest.mark.parametrize(
    "scheme", ["a=int8", "a=int4, kv=int4", "a=nvfp4, kv=nvfp4", "a=uint4 tensor mse", "kv=int4 rotate"]
)
def test_scales_that_were_found_on_a_batch_are_those_of_the_batch(scheme, precise, text):
    low = quantize_parts(precise, Scheme.parse(scheme))
    with torch.inference_mode():
        assert (static_scales(low, text)(text) - low(text)).abs().max() < 1e-9


def test_a_dynamic_scale_of_a_tensor_does_hang_on_what_comes_after(precise, text):
    """Why such schemes are refused: the same prefix has other logits when more is read behind it."""
    low = quantize_parts(precise, Scheme.parse("a=int4"))
    assert (low(text[:, :24]) - low(text)[:, :24]).abs().max() > 1e-3


def test_scales_are_as_wide_as_any_batch_of_the_text_needs():
    static = StaticQuantize(Scheme.parse("a=int4").a)
    with pytest.raises(LabError, match="no scale was found yet"):
        static(torch.ones(2))
    for widest in (1.0, 3.5, 2.0):
        static.look(torch.tensor([[0.1, -widest]]))
    assert static(torch.tensor([[-9.0, 0.7, 3.5]])).tolist() == [[-4.0, 0.5, 3.5]]
    with pytest.raises(LabError, match="not finite"):
        static.look(torch.tensor([[math.nan]]))


def test_square_blocks_of_activations_cannot_be_decoded(trained, shown):
    low = quantize_parts(trained, Scheme.parse("a=int8 block16"))
    with pytest.raises(ConfigError, match="square blocks span tokens"):
        static_scales(low, shown)


def test_what_the_cache_holds_was_put_on_its_grid_once(trained, text):
    low = quantize_parts(trained, Scheme.parse("kv=int4 token"))
    recipe, seen = Scheme.parse("kv=int4 token").kv, []
    layer = low.blocks[0].attention
    layer.cached_k.register_forward_hook(lambda _, given, made: seen.append((given[0], made)))
    session = Decoder(low, 256).open(4)
    session.append(text[:, :7].tolist())
    for place in range(7, 12):
        session.append(text[:, place : place + 1].tolist())
    given, made = (torch.cat(parts, dim=2) for parts in zip(*seen, strict=True))
    held = session.cache._held[0][0][:, :12].transpose(1, 2)
    assert torch.equal(held, made) and torch.equal(made, fake_quantize(given, recipe))
    steps = held / held.abs().amax(-1, keepdim=True) * 7
    assert (steps - steps.round()).abs().max() < 1e-5


def test_weights_are_settled_in_a_copy(trained, text):
    for scheme in ("w4", "w=int3 stochastic", "w=int4, emb=int4, head=int8"):
        low = apply_scheme(Transformer(trained.shape, seed=1), Scheme.parse(scheme))
        before = {name: tensor.clone() for name, tensor in low.state_dict().items()}
        one, two = (Decoder(low, 256) for _ in range(2))
        assert torch.equal(whole(one, text), whole(two, text))
        if "stochastic" not in scheme:
            assert torch.equal(whole(one, text), low(text))
        assert all(torch.equal(before[name], tensor) for name, tensor in low.state_dict().items())


# ---- the interface that speculation needs


def test_texts_are_cut_back_each_by_itself(precise, text):
    """Four drafted tokens are read in one pass, and another number is rejected in each row."""
    decoder = Decoder(quantize_parts(precise, Scheme.parse("w=int4, kv=int4 token")), 256)
    session = decoder.open(4)
    session.append(text[:, :10].tolist())
    session.append([[1, 2, 3, 4]] * 4)
    session.truncate([10, 11, 12, 14])
    assert session.lengths == [10, 11, 12, 14]
    found = session.append([[7, 8]] * 4)
    for row, kept in enumerate(([], [1], [1, 2], [1, 2, 3, 4])):
        fresh = decoder.open(1).append([[*text[row, :10].tolist(), *kept, 7, 8]])[0]
        assert (found[row] - fresh[-2:]).abs().max() < 1e-9
    session.keep([3, 1, 1])
    assert session.lengths == [16, 13, 13]
    again = session.append([[9]] * 3)
    assert torch.equal(again[1], again[2])
    fresh = decoder.open(1).append([[*text[1, :10].tolist(), 1, 7, 8, 9]])[0]
    assert (again[1] - fresh[-1:]).abs().max() < 1e-9
    for wrong in ([18, 1, 1], [1, 1], [-1, 1, 1]):
        with pytest.raises(ConfigError, match="cannot be cut back"):
            session.truncate(wrong)


def test_a_cache_grows_without_losing_anything(precise, text):
    session = Decoder(precise, 256).open(4)
    found = torch.stack([torch.cat(session.append(text[:, k : k + 1].tolist())) for k in range(SEQ)], dim=1)
    assert (found - precise(text)).abs().max() < 1e-9
    assert len(session.cache._held) == 2 and KVCache(3).lengths == [0, 0, 0]


def test_sources_say_whether_their_tokens_are_the_same(trained, tmp_path):
    pytest.importorskip("tokenizers")
    theirs = load_theirs(tmp_path)
    ours = Decoder(trained, 256)
    same_tokens(ours, Decoder(Transformer(trained.shape), 256))
    with pytest.raises(ConfigError, match="tokens of their own"):
        same_tokens(ours, Decoder.of(theirs))


def test_vocabularies_padded_to_other_sizes_are_of_the_same_tokens(tmp_path):
    """As families have them: the larger the model, the more rows of its tables stand for nothing."""
    pytest.importorskip("tokenizers")
    theirs = load_theirs(tmp_path)
    tokens = theirs.tokenizer.get_vocab_size()
    wider = copy.deepcopy(theirs)
    wider.model.model.resize_token_embeddings(theirs.vocab + 24, mean_resizing=False)
    wider = replace(wider, vocab=theirs.vocab + 24)
    sources = [Decoder.of(theirs), Decoder.of(wider)]
    same_tokens(*sources)
    first, second = (source.open(1).append([[1, 2, 3]])[0] for source in sources)
    assert first.shape == second.shape == (3, tokens)
    assert torch.allclose(first, second, atol=1e-5)
    texts = generate(emulate(sources[1], sources[0], sources[0]), [[1, 2, 3]], 4, Sampling(temperature=0))
    assert len(texts[0].tokens) == 4 and max(texts[0].tokens) < tokens
    with pytest.raises(DataError, match="and no number"):
        sources[1].open(1).append([[theirs.vocab + 3]])


# ---- sampling

P = torch.tensor([[0.4, 0.1, 0.3, 0.15, 0.05]], dtype=torch.float64)


@pytest.mark.parametrize(("settings", "left"), [
    ({}, [0.4, 0.1, 0.3, 0.15, 0.05]),
    ({"temperature": 0}, [1, 0, 0, 0, 0]),
    ({"temperature": 0.5}, [0.16, 0.01, 0.09, 0.0225, 0.0025]),
    ({"top_k": 1}, [1, 0, 0, 0, 0]),
    ({"top_k": 3}, [0.4, 0, 0.3, 0.15, 0]),
    ({"top_k": 99}, [0.4, 0.1, 0.3, 0.15, 0.05]),
    ({"top_p": 0.4}, [0.4, 0, 0, 0, 0]),
    ({"top_p": 0.41}, [0.4, 0, 0.3, 0, 0]),
    ({"top_p": 0.7}, [0.4, 0, 0.3, 0, 0]),
    ({"top_p": 0.95}, [0.4, 0.1, 0.3, 0.15, 0]),
    ({"top_p": 1e-9}, [1, 0, 0, 0, 0]),
    ({"top_p": 1}, [0.4, 0.1, 0.3, 0.15, 0.05]),
    ({"top_k": 3, "top_p": 0.8}, [0.4, 0, 0.3, 0, 0]),  # 0.7 of 0.85 is enough
    ({"temperature": 1e-300}, [1, 0, 0, 0, 0]),
])  # fmt: skip
def test_what_temperature_and_top_k_and_top_p_leave(settings, left):
    found = Sampling(**settings).probabilities(P.log() + 3)[0]
    assert np.allclose(found, np.array(left) / sum(left), atol=1e-12)


def test_among_equals_the_lower_number_is_likelier():
    even = torch.zeros(1, 4)
    assert Sampling(top_k=2).probabilities(even).tolist() == [[0.5, 0.5, 0, 0]]
    assert Sampling(top_p=0.5).probabilities(even).tolist() == [[0.5, 0.5, 0, 0]]
    assert Sampling(temperature=0).probabilities(even).tolist() == [[1, 0, 0, 0]]


def test_no_number_draws_an_impossible_token():
    p = torch.tensor([[0.0, 0.1, 0.2, 0.0]]).expand(3, 4)
    assert draw(p, torch.tensor([0.0, 1 / 3 + 1e-6, 1 - 2**-53], dtype=torch.float64)).tolist() == [1, 2, 2]
    assert draw(p, torch.ones(3)).tolist() == [2, 2, 2]  # a product that was rounded up


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 0.7}, {"top_k": 5}, {"top_p": 0.8, "temperature": 1.3}]
)
def test_tokens_come_as_often_as_the_model_says(settings, trained):
    """A chi-square test of whole generation against a distribution that NumPy makes of the uncached logits."""
    prompt, draws = b"    def ", 4000
    z = trained(torch.tensor([list(prompt)]))[0, -1].detach().double().numpy() / settings.get(
        "temperature", 1
    )
    p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    order = np.argsort(-p, kind="stable")
    left = settings.get("top_k") or int(np.searchsorted(p[order].cumsum(), settings.get("top_p", 2))) + 1
    p[order[left:]] = 0
    p /= p.sum()
    texts = generate(Decoder(trained, 256), [prompt] * draws, 1, Sampling(**settings), seed=11, batch=500)
    counts = Counter(text.tokens[0] for text in texts)
    assert set(counts) <= set(np.flatnonzero(p))
    usual = [k for k in range(256) if p[k] * draws >= 5]
    seen = [*(counts[k] for k in usual), draws - sum(counts[k] for k in usual)]
    due = [*(draws * p[usual]), draws * (1 - p[usual].sum())]
    seen, due = (
        (seen, due) if due[-1] > 1 else (seen[:-1], [d * sum(seen[:-1]) / sum(due[:-1]) for d in due[:-1]])
    )
    assert len(due) >= 4
    assert stats.chisquare(seen, due).pvalue > 1e-3


@pytest.mark.parametrize("settings", [
    {"temperature": -0.1}, {"temperature": math.nan}, {"temperature": math.inf}, {"top_k": 0}, {"top_p": 0.0},
    {"top_p": 1.1}, {"top_p": math.nan},
])  # fmt: skip
def test_settings_that_leave_nothing_are_refused(settings):
    with pytest.raises(ConfigError, match="use"):
        Sampling(**settings)


# ---- generation

PROMPTS = [b"import ", b"    def __init__(self", b"x", b"# The", b"return"]


def test_neither_the_batch_nor_the_others_change_a_text(precise):
    source = Decoder(quantize_parts(precise, Scheme.parse("w=int4, a=int8 token, kv=int4 token")), 256)
    for sampling in (Sampling(temperature=0), Sampling(top_p=0.95)):
        texts = [generate(source, PROMPTS, 20, sampling, seed=3, batch=batch) for batch in (1, 2, 5)]
        assert texts[0] == texts[1] == texts[2]
    alone = generate(source, PROMPTS[:1], 20, Sampling(top_p=0.95), seed=3)
    assert alone == texts[0][:1]


def test_the_likeliest_text_is_what_the_whole_model_says_again_and_again(precise):
    (text,) = generate(Decoder(precise, 256), [b"import "], 25, Sampling(temperature=0))
    tokens = list(b"import ")
    for _ in range(25):
        tokens.append(int(precise(torch.tensor([tokens]))[0, -1].argmax()))
    assert text.tokens == tokens[7:] and not text.stopped


def test_a_seed_gives_its_text_and_another_another(trained):
    source = Decoder(trained, 256)
    one, again, other = (generate(source, PROMPTS, 20, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert all(a.tokens != b.tokens for a, b in zip(one, other, strict=True))
    same = generate(source, [b"import "] * 2, 20, seed=1)
    assert same[0].tokens != same[1].tokens  # a prompt that is given twice is drawn twice


def test_a_text_ends_at_its_stop_and_the_others_go_on(precise):
    source = Decoder(precise, 256)
    plain = generate(source, PROMPTS, 30, seed=4)
    stop = plain[0].tokens[6]
    stopped = generate(source, PROMPTS, 30, seed=4, stop={stop})
    for text, full in zip(stopped, plain, strict=True):
        end = full.tokens.index(stop) + 1 if stop in full.tokens else 30
        assert text.tokens == full.tokens[:end]
        assert text.stopped == (stop in full.tokens)
    assert stopped[0].stopped and len({len(text.tokens) for text in stopped}) > 1


def test_long_prompts_are_read_in_parts(precise):
    prompt = (Path(os.__file__).read_bytes())[:300]
    (text,) = generate(Decoder(precise, 256), [prompt], 2, Sampling(temperature=0))
    assert text.tokens[0] == int(precise(torch.tensor([list(prompt)]))[0, -1].argmax())


@pytest.mark.parametrize(("prompts", "tokens", "options", "words"), [
    ([b""], 5, {}, "prompt 1 is empty"),
    ([b"a", b"b" * 45], 5, {}, "prompt 2 of 45 tokens and 5 more are beyond the 48.*ask for 3 tokens"),
    ([b"b" * 50], 5, {}, "use a shorter prompt"),
    ([b"a"], 0, {}, "cannot be drawn"),
    ([b"a"], 5, {"batch": 0}, "cannot be drawn"),
    ([b"a"], 5, {"seed": -1}, "cannot be drawn"),
])  # fmt: skip
def test_what_cannot_be_generated_says_why(prompts, tokens, options, words, trained):
    with pytest.raises(ConfigError, match=words):
        next(stream(Decoder(trained, 256, limit=SEQ), prompts, tokens, **options))


def test_the_limit_is_a_choice(trained):
    (text,) = generate(Decoder(trained, 256), [b"b" * 45], 10)
    assert len(text.tokens) == 10
    session = Decoder(trained, 256, limit=SEQ).open(1)
    with pytest.raises(ConfigError, match="longer than the 48"):
        session.append([[1] * 49])
    with pytest.raises(ConfigError, match="1 texts, and tokens for 2"):
        session.append([[1], [1]])
    for wrong in (256, -1):
        with pytest.raises(DataError, match=f"no number {wrong}"):
            session.append([[1, wrong]])
    assert session.lengths == [0]


def test_logits_that_are_not_finite_say_where(trained):
    broken = Transformer(trained.shape).eval()
    broken.load_state_dict(trained.state_dict())
    with torch.no_grad():
        broken.embedding.weight[ord("!")] = math.nan
    with pytest.raises(LabError, match=r"after token 4 of text 2 are not finite; try"):
        generate(Decoder(broken, 256), [b"abcdef", b"abc!de"], 3)
    session = Decoder(broken, 256).open(2)
    session.append([b"abc", b"abcdefg"])
    with pytest.raises(LabError, match=r"after token 5 of text 1"):
        session.append([b"d!f", b""])


# ---- models of transformers


def load_theirs(folder, family="llama"):
    from test_folders import make_theirs

    make_theirs(folder / family, family)
    return load_model(folder / family)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "olmo", "olmo2", "gpt_neox"])
def test_models_of_transformers_read_on_too(family, tmp_path):
    pytest.importorskip("transformers")
    loaded = load_theirs(tmp_path, family)
    text = torch.randint(0, 320, (4, 40), generator=torch.Generator().manual_seed(0))
    for scheme in ("16", "w=int4, a=int8 token, kv=int4 token"):
        decoder = Decoder(quantize_parts(loaded.model.double(), Scheme.parse(scheme)), 320)
        assert (in_pieces(decoder, text) - whole(decoder, text)).abs().max() < 1e-5
    low = quantize_parts(loaded.model, Scheme.parse("kv=int4 tensor, a=int8"))
    with pytest.raises(ConfigError, match="no cache"):
        Decoder(low, 320)
    decoder = Decoder(static_scales(low, text), 320)
    assert (in_pieces(decoder, text) - whole(decoder, text)).abs().max() < 1e-5
    assert len({block.cached_k.width for block in decoder.model.blocks}) == 2  # each layer has its own


def test_the_likeliest_text_is_that_of_transformers(tmp_path):
    pytest.importorskip("transformers")
    loaded = load_theirs(tmp_path)
    theirs = loaded.model.model
    prompts = [encode(loaded, words) for words in ("import os", "def f(x, y):\n    return", "x")]
    found = generate(Decoder.of(loaded), prompts, 12, Sampling(temperature=0), stop=ends_of(loaded))
    for prompt, text in zip(prompts, found, strict=True):
        with torch.no_grad():
            made = theirs.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, pad_token_id=0)
        assert made[0, len(prompt) :].tolist() == text.tokens
    assert ends_of(loaded) == {0} and limit_of(loaded) == 64
    theirs.config.sliding_window = 32
    assert limit_of(loaded) == 32


def test_parts_that_theirs_do_not_have_are_refused(tmp_path, trained):
    pytest.importorskip("transformers")
    loaded = load_theirs(tmp_path)
    for scheme, words in (
        ("emb=int4", "emb of a Hugging Face model stays"),
        ("grad_a=int8", "grad_a is of training"),
        ("w=int4 stored", "is of training"),
        ("head=int4 learned", "is of training"),
    ):
        with pytest.raises(ConfigError, match=words):
            quantize_parts(loaded.model, Scheme.parse(scheme))


# ---- letters


def test_letters_come_when_they_are_whole(tmp_path, trained):
    tokenizers = pytest.importorskip("tokenizers")
    words, theirs = "naïve – 😀\tdone\n", load_theirs(tmp_path)
    theirs.tokenizer.decoder = tokenizers.decoders.ByteLevel()
    for loaded in (theirs, Loaded("o", "", trained, None, 256, SEQ, Scheme(), {})):
        spelling = Spelling(loaded)
        pieces = [spelling.add(token) for token in encode(loaded, words)]
        assert "".join(pieces) + spelling.rest() == words
        assert "\ufffd" not in "".join(pieces) and "" in pieces
    spelling = Spelling(loaded)
    assert [spelling.add(0xF0), spelling.rest()] == ["", "\ufffd"]


def test_the_first_space_behind_a_prompt_is_spelled(trained):
    tokenizers = pytest.importorskip("tokenizers")
    coder = tokenizers.Tokenizer(tokenizers.models.BPE({"▁Once": 0, "▁upon": 1, "▁a": 2, "ly": 3}, []))
    coder.decoder = tokenizers.decoders.Metaspace()
    loaded = Loaded("theirs", "", trained, coder, 256, SEQ, Scheme(), {})
    spelling = Spelling(loaded, [0])
    assert [spelling.add(token) for token in (1, 2, 3)] == [" upon", " a", "ly"] and spelling.rest() == ""


def test_a_text_that_fails_spoils_none_that_is_read_with_it(trained):
    broken = copy.deepcopy(trained)
    with torch.no_grad():
        broken.embedding.weight[ord("!")] = math.nan
    session = Decoder(broken, 256).open(2)
    session.append([b"abc", b"abcdefg"])
    with pytest.raises(LabError, match="after token 5 of text 1"):
        session.append([b"d!", b"h"])
    assert session.lengths == [3, 7]
    fresh = Decoder(broken, 256).open(2)
    expected = fresh.append([b"abcd", b"abcdefgh"])
    found = session.append([b"d", b"h"])
    assert all((a[-1:] - b).abs().max() < 1e-4 for a, b in zip(expected, found, strict=True))


def test_a_range_with_a_zero_point_is_of_all_that_was_shown():
    static = StaticQuantize(Recipe.parse("uint4 tensor"))
    for shown in ([0.0, 10.0], [-9.0, 0.0]):
        static.look(torch.tensor([shown]))
    assert (static(torch.tensor([[-9.0, 10.0]])) - torch.tensor([[-9.0, 10.0]])).abs().max() < 19 / 15


def test_zeros_say_nothing_of_the_scale_of_blocks():
    text = torch.randn(4, 16, generator=torch.Generator().manual_seed(0)) / 100
    shown, first, last = (StaticQuantize(Recipe.parse("nvfp4")) for _ in range(3))
    shown.look(text)
    first.look(torch.zeros(4, 16))
    first.look(text)
    last.look(text)
    last.look(torch.zeros(4, 16))
    assert shown.found == first.found == last.found


def test_static_scales_of_stochastic_recipes_are_the_same_every_time(trained, text):
    low = apply_scheme(copy.deepcopy(trained), Scheme.parse("a=int4 tensor stochastic"))
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        steady = static_scales(low, text)
        found.append([m.found[0] for m in steady.modules() if isinstance(m, StaticQuantize)])
    assert len(found[0]) == 8 and found[0] == found[1]


def test_letters_without_a_token_are_named(trained):
    tokenizers = pytest.importorskip("tokenizers")
    for unknown in ({}, {"unk_token": "?"}):
        coder = tokenizers.Tokenizer(
            tokenizers.models.BPE({"?": 0, "a": 1, "b": 2, "ab": 3}, [("a", "b")], **unknown)
        )
        loaded = Loaded("small", "", trained, coder, 256, SEQ, Scheme(), {})
        assert encode(loaded, "abba") == [3, 2, 1]
        with pytest.raises(DataError, match="small has no token for 'é', letter 3 of the prompt 'abé'"):
            encode(loaded, "abé")
        assert number_of(loaded, "ab") == 3
        with pytest.raises(ConfigError, match="'ba' is 2 tokens"):
            number_of(loaded, "ba")
        few = Loaded("few", "", trained, coder, 3, SEQ, Scheme(), {})
        with pytest.raises(DataError, match="few knows 3 tokens, and the prompt 'ab' has number 3"):
            encode(few, "ab")
    with pytest.raises(DataError, match="is not UTF-8"):
        encode(loaded, "a\udcc3")
    with pytest.raises(ConfigError, match="prompt is empty"):
        encode(loaded, "")
    ours = Loaded("o", "", trained, None, 256, SEQ, Scheme(), {})
    assert encode(ours, "a\udcc3") == [97, 0xC3]
    with pytest.raises(DataError, match="not UTF-8"):
        encode(ours, "a\ud800")


# ---- the command


def run(*arguments):
    return CliRunner().invoke(app, ["generate", *map(str, arguments)])


def test_the_command_goes_on_with_a_text(folder, trained):
    plain = run(folder, "--prompt", "import ", "--tokens", 20, "--seed", 3)
    assert plain.exit_code == 0, plain.output
    assert plain.stdout.startswith("import ") and "20 tokens in" in plain.stderr
    as_json = json.loads(run(folder, "--prompt", "import ", "--tokens", 20, "--seed", 3, "--json").stdout)
    (text,) = generate(Decoder(trained, 256), [b"import "], 20, seed=3)
    assert as_json["texts"][0]["tokens"] == text.tokens and as_json["tokens"] == 20
    assert as_json["scheme"] == "16" and as_json["texts"][0]["stopped"] is False
    default = json.loads(run(folder, "--prompt", "import ", "--json").stdout)
    assert default["tokens"] == SEQ - len("import ")


def test_the_command_rounds_what_it_is_told_to(folder, tmp_path):
    (tmp_path / "lines.txt").write_text("import \n\ndef f(\n")
    files = [
        folder,
        "--prompts",
        tmp_path / "lines.txt",
        "--tokens",
        8,
        "--temperature",
        0,
        "--calibration-tokens",
        480,
    ]
    steady = run(*files, "--scheme", "w=int2, a=int8 token, kv=int4 token", "--method", "gptq", "--json")
    found = json.loads(steady.stdout)
    assert found["notes"] == [] and found["scheme"] == "w=int2, a=int8 token, kv=int4 token"
    assert [text["prompt"] for text in found["texts"]] == ["import ", "def f("]
    static = run(*files, "--scheme", "w4a8kv4")
    assert static.exit_code == 0, static.output
    assert "The scales of int4 tensor and int8 tensor were found on 480 tokens" in static.stderr
    assert "so this is not their speed" in static.stderr
    assert "[1]\nimport " in static.stdout and "[2]\ndef f(" in static.stdout
    plain = json.loads(run(*files, "--json").stdout)
    assert plain["texts"] != found["texts"]


def test_a_folder_of_its_own_scheme_is_read_as_it_says(trained, tmp_path):
    low = apply_scheme(Transformer(trained.shape), Scheme.parse("w4a8"))
    low.load_state_dict(trained.state_dict())
    save_model(Loaded("low", "", low, None, 256, SEQ, Scheme.parse("w4a8"), {}), tmp_path / "low")
    own = run(tmp_path / "low", "--prompt", "im", "--tokens", 4, "--calibration-tokens", 480)
    assert own.exit_code == 0 and "The scales of int8 tensor were found on 480 tokens" in own.stderr
    twice = run(tmp_path / "low", "--prompt", "im", "--scheme", "kv4")
    assert "rounds a8 while it runs already" in str(twice.exception)
    weights = run(tmp_path / "low", "--prompt", "im", "--scheme", "w3", "--calibration-tokens", 480, "--json")
    assert json.loads(weights.stdout)["scheme"] == "w3a8"


def test_nothing_that_is_printed_steers_a_terminal(folder):
    result = run(folder, "--prompt", "\x1b[2J\tx\u202e", "--tokens", 2)
    assert result.exit_code == 0
    assert "\\x1b[2J\tx\\u202e" in result.stdout and "\x1b" not in result.stdout


@pytest.mark.parametrize(("arguments", "kind", "words"), [
    (["nowhere", "--prompt", "x"], DataError, "there is no folder nowhere"),
    (["FOLDER"], ConfigError, "there is nothing to go on from"),
    (["FOLDER", "--prompt", ""], ConfigError, "the prompt is empty"),
    (["FOLDER", "--prompts", "nowhere.txt"], DataError, "there is no file nowhere.txt"),
    (["FOLDER", "--prompt", "x", "--temperature", "-1"], ConfigError, "temperature of -1.0"),
    (["FOLDER", "--prompt", "x", "--top-p", "2"], ConfigError, "top-p of 2.0"),
    (["FOLDER", "--prompt", "x", "--top-k", "0"], ConfigError, "top-k of 1 or more"),
    (["FOLDER", "--prompt", "x", "--tokens", "99"], ConfigError, "beyond the 48 .* --beyond"),
    (["FOLDER", "--prompt", "x" * 60], ConfigError, "use a shorter prompt"),
    (["FOLDER", "--prompt", "x", "--scheme", "w5b"], ConfigError, "cannot read the scheme"),
    (["FOLDER", "--prompt", "x", "--method", "gtpq"], ConfigError, "did you mean 'gptq'"),
    (["FOLDER", "--prompt", "x", "--stop", "ab"], ConfigError, "'ab' is 2 tokens"),
])  # fmt: skip
def test_what_the_command_cannot_do_is_said_in_a_sentence(arguments, kind, words, folder):
    result = run(*(folder if word == "FOLDER" else word for word in arguments))
    assert isinstance(result.exception, kind), result.exception
    with pytest.raises(kind, match=words):
        raise result.exception


def test_beyond_what_it_was_trained_on_when_that_is_asked(folder):
    result = run(folder, "--prompt", "x" * 60, "--tokens", 5, "--beyond", "--stop", "\n", "--json")
    assert result.exit_code == 0, result.output
    assert 1 <= json.loads(result.stdout)["tokens"] <= 5
