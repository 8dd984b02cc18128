"""An emulated model is what its equation says, and a draft changes how fast a text comes, not what it is."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from scipy import stats

from bitlaw import ConfigError, LabError, Scheme
from bitlaw.lab.corpus import batch, read_corpus, spread_windows
from bitlaw.lab.decode import (
    Costs,
    Decoder,
    Delta,
    Emulated,
    Sampling,
    acceptance,
    after_each,
    allocations,
    emulate,
    expected_tokens,
    first_to_lose,
    generate,
    log_likelihoods,
    lookahead,
    rehearse,
    residual,
    speculate,
)
from bitlaw.lab.model import Transformer
from bitlaw.lab.quantize import Reference, Setting, quantize_parts, try_settings
from bitlaw.shapes import Shape

torch.set_num_threads(1)
PROMPTS = [b"import ", b"    def __init__(self", b"x", b"# The", b"return"]


@pytest.fixture(scope="module")
def corpus():
    return read_corpus()


def taught(corpus, shape, steps, seed=0, like=None, change=lambda x: x):
    """A model that has read some text, in float64; `change` is what a style makes of it."""
    model = Transformer(shape, seed=seed)
    if like is not None:
        model.load_state_dict(like.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for step in range(steps):
        x, y = (change(part) for part in batch(corpus, seed, step, 4, 48))
        torch.nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.double().eval()


def shouted(x):
    """The style that small models are tuned to: capital letters."""
    return torch.where((x >= 97) & (x <= 122), x - 32, x)


@pytest.fixture(scope="module")
def models(corpus):
    small = taught(corpus, Shape(width=24, depth=1, heads=2, ffn=32), 80)
    large = taught(corpus, Shape(width=32, depth=3, heads=2, ffn=48), 80, seed=1)
    tuned = taught(corpus, small.shape, 40, seed=2, like=small, change=shouted)
    return large, small, tuned


@pytest.fixture(scope="module")
def sources(models):
    return [Decoder(model, 256) for model in models]


@pytest.fixture(scope="module")
def windows(corpus):
    return [window.tolist() for window in spread_windows(corpus.evaluation, 6 * 40, 40).inputs]


def log_p(source, texts):
    return torch.cat(list(after_each(source, texts))).double().log_softmax(-1)


class Markov:
    """A source of a table: what comes next hangs on the last token alone, so that 100,000 draws cost seconds."""

    def __init__(self, logits_VV, name="table"):
        self.logits_VV, self.limit, self.vocab = logits_VV, None, len(logits_VV)
        self.tokenizer_sha256 = hashlib.sha256(name.encode()).hexdigest()

    def open(self, rows):
        return MarkovSession(self, rows)


class MarkovSession:
    def __init__(self, source, rows):
        self.source, self.lengths = source, [0] * rows

    def append(self, new):
        self.lengths = [held + len(tokens) for held, tokens in zip(self.lengths, new, strict=True)]
        return [self.source.logits_VV[torch.tensor(list(tokens), dtype=torch.long)] for tokens in new]

    def truncate(self, lengths):
        self.lengths = list(lengths)

    def keep(self, rows):
        self.lengths = [self.lengths[row] for row in rows]


def tables(seed, vocab=5, count=3):
    generator = torch.Generator().manual_seed(seed)
    return [Markov(torch.randn(vocab, vocab, generator=generator, dtype=torch.float64)) for _ in range(count)]


# ---- emulation


def test_of_the_tuned_models_own_size_it_is_the_tuned_model(sources, models, windows):
    _, small, tuned = sources
    same = emulate(small, small, tuned)
    assert same.sources == [tuned]
    assert (log_p(same, windows) - log_p(tuned, windows)).abs().max() < 1e-12
    again = Decoder(models[1], 256)  # another object, so that all three are read
    three = emulate(again, small, tuned)
    assert len(three.sources) == 3
    assert (log_p(three, windows) - log_p(tuned, windows)).abs().max() < 1e-12
    greedy = Sampling(temperature=0)
    assert generate(three, PROMPTS, 20, greedy) == generate(tuned, PROMPTS, 20, greedy)


def test_it_is_what_the_equation_says(sources, windows):
    large, small, tuned = sources
    for beta, amplify in ((1, 1), (0.5, 1), (1, 1.5), (-1, 1), (2, 0.5)):
        found = log_p(emulate(large, small, tuned, beta, amplify), windows)
        log_l, log_b, log_t = (log_p(source, windows).numpy() for source in sources)
        p = np.exp(log_b + beta * (log_t - log_b) + amplify * (log_l - log_b))
        assert np.allclose(found.exp().numpy(), p / p.sum(-1, keepdims=True), atol=1e-12)
        assert np.allclose(found.exp().sum(-1), 1, atol=1e-12)


def test_at_one_both_forms_are_the_same(sources, windows):
    large, small, tuned = sources
    behaviour = Emulated(large, [Delta(tuned, small)])
    amplified = Emulated(tuned, [Delta(large, small)])
    for other in (amplified, emulate(large, small, tuned), emulate(large, small, tuned, nucleus=1)):
        assert (log_p(behaviour, windows) - log_p(other, windows)).abs().max() < 1e-12


def test_a_weight_of_nothing_reads_nothing(sources, windows):
    large, small, tuned = sources
    assert emulate(large, small, tuned, beta=0).sources == [large]
    assert emulate(large, small, tuned, amplify=0).sources == [tuned]
    assert (log_p(Emulated(large), windows) - log_p(large, windows)).abs().max() < 1e-12


def test_exponential_tilts_compose():
    """A tuned model that is its base times exp(r) makes of any base that base times exp(r); two add up."""
    large, small, _ = tables(3)
    r, s = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    tilted, other = Markov(small.logits_VV + r + 7), Markov(small.logits_VV + s)  # a constant says nothing
    prompt = [[0, 1, 2, 3, 4]]
    for weight in (1.0, 0.3, -2.0):
        found = log_p(Emulated(large, [Delta(tilted, small, weight)]), prompt)
        assert torch.allclose(found, (large.logits_VV + weight * r).log_softmax(-1), atol=1e-12)
    both = Emulated(large, [Delta(tilted, small, 0.5), Delta(other, small, 2.0)])
    assert torch.allclose(
        log_p(both, prompt), (large.logits_VV + 0.5 * r + 2 * s).log_softmax(-1), atol=1e-12
    )
    nested = Emulated(Emulated(large, [Delta(tilted, small, 0.5)]), [Delta(other, small, 2.0)])
    assert torch.allclose(log_p(nested, prompt), log_p(both, prompt), atol=1e-12)


def test_the_filter_of_the_paper_leaves_unlikely_tokens_what_they_were(sources, windows):
    large, small, tuned = sources
    log_t, found = log_p(tuned, windows), log_p(emulate(large, small, tuned, nucleus=0.9), windows)
    inside = Sampling(top_p=0.9).probabilities(log_t) > 0
    assert 0 < inside.double().mean() < 0.5
    full = log_t + log_p(large, windows) - log_p(small, windows)
    z = torch.where(inside, full, log_t)
    assert torch.allclose(found, z.log_softmax(-1), atol=1e-12)
    ratio = (found - log_t).masked_fill(inside, math.nan)  # all others have one factor in common
    assert ((ratio.nan_to_num(-99).amax(-1) - ratio.nan_to_num(99).amin(-1)).abs() < 1e-9).all()
    assert (found.exp() > 0).all()  # and plain top-p would leave them out
    assert (Sampling(top_p=0.9).probabilities(found) == 0).any()


def test_up_scaling_speaks_in_the_style_of_the_tuned(sources, corpus):
    """The tuning is of style alone, so that what it does is there whatever the base."""
    large, small, tuned = sources
    text = bytes(corpus.evaluation.tokens[:400].tolist())
    loud = text.upper()

    def loss(source, said):
        [found] = log_likelihoods(source, [said[:20]], [said[20:220]])
        return -float(found.mean())

    up = emulate(large, small, tuned)
    assert loss(large, loud) > loss(up, loud) + 0.2
    assert loss(up, text) > loss(up, loud)


def test_an_emulation_is_cut_back_and_batched_as_any_source(sources, windows):
    source = emulate(*sources)
    session, fresh = source.open(2), source.open(1)
    session.append([windows[0][:9], windows[1][:5]])
    session.truncate([4, 5])
    session.keep([1, 0])
    assert session.lengths == [5, 4]
    found = session.append([[], [7, 8]])
    assert found[0].shape == (0, 256)
    assert (found[1] - fresh.append([[*windows[0][:4], 7, 8]])[0][-2:]).abs().max() < 1e-9


def test_texts_after_a_failed_one_are_as_they_were(models, sources):
    broken = Transformer(models[1].shape).double().eval()
    broken.load_state_dict(models[1].state_dict())
    with torch.no_grad():
        broken.embedding.weight[ord("!")] = math.nan
    session = Emulated(sources[0], [Delta(Decoder(broken, 256), sources[1])]).open(1)
    session.append([b"abc"])
    with pytest.raises(LabError, match="after token 5 of text 1 are not finite"):
        session.append([b"d!"])
    assert [part.lengths for part in session.sessions] == [[3]] * 3
    assert torch.isfinite(session.append([b"de"])[0]).all()
    with pytest.raises(LabError, match="put together with weights .* are not finite"):
        Emulated(sources[0], [Delta(sources[2], sources[1], 1e308)]).open(1).append([b"abc"])


def test_what_cannot_be_emulated_says_why(sources):
    large, small, tuned = sources
    for wrong in (math.nan, math.inf):
        with pytest.raises(ConfigError, match=f"a change of weight {wrong} means nothing; use 1"):
            emulate(large, small, tuned, beta=wrong)
    for wrong in (0, 1.5, math.nan):
        with pytest.raises(ConfigError, match=f"a nucleus of {wrong} is no share"):
            emulate(large, small, tuned, nucleus=wrong)
    with pytest.raises(ConfigError, match="leave beta at 1"):
        emulate(large, small, tuned, beta=0.5, nucleus=0.9)
    with pytest.raises(ConfigError, match="tokens of their own"):
        emulate(large, small, tables(0)[0])
    with pytest.raises(ConfigError, match="tokens of their own"):
        speculate(large, tables(0)[0], b"a", 3)
    with pytest.raises(ConfigError, match="a draft of 0 tokens is none"):
        speculate(large, small, b"a", 3, ahead=0)
    with pytest.raises(ConfigError, match="give each prompt one"):
        log_likelihoods(large, [b"a"], [])
    with pytest.raises(ConfigError, match="prompt 1 is empty"):
        log_likelihoods(large, [b""], [b"a"])


# ---- scoring


def test_log_likelihoods_are_those_of_the_whole_text(sources, models, windows):
    found = log_likelihoods(sources[0], [w[:7] for w in windows], [w[7:] for w in windows], batch=4)
    for window, log_p_T in zip(windows, found, strict=True):
        whole = models[0](torch.tensor([window]))[0].log_softmax(-1)
        assert (log_p_T - whole[torch.arange(6, 39), window[7:]]).abs().max() < 1e-9
    (short,) = log_likelihoods(sources[0], [b"imp"], [b"ort"], Sampling(top_k=1))
    assert set(short.tolist()) <= {0.0, -math.inf}


# ---- speculation


@pytest.mark.parametrize("ahead", [1, 3, 7])
def test_the_likeliest_text_is_that_of_plain_decoding(ahead, sources, models):
    large, small, tuned = sources
    up, greedy = emulate(large, small, tuned), Sampling(temperature=0)
    low = Decoder(quantize_parts(models[0], Scheme.parse("w=int3, kv=int4 token")), 256)
    plain = {target: generate(target, PROMPTS[:2], 20, greedy) for target in (large, up)}
    for target, draft in ((large, small), (large, low), (up, tuned), (large, large)):
        for text in plain[target]:
            found = speculate(target, draft, text.prompt, 20, greedy, ahead=ahead)
            assert found.tokens == text.tokens
            assert sum(len(each.tokens) for each in found.rounds) == 20
        if draft is target:
            assert found.acceptance == 1 and len(found.rounds) == math.ceil(20 / (ahead + 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 0.7, "top_k": 8}, {"temperature": 1.3, "top_p": 0.8}]
)
def test_what_is_drawn_is_the_targets_own(settings, sources):
    """Each token's place in the target's distribution, spread over its own share of it, is uniform."""
    large, small, tuned = sources
    target, sampling = emulate(large, small, tuned), Sampling(**settings)

    def pvalue(texts):
        chance, places = np.random.default_rng(0), []
        for prompt, tokens in texts:
            (logits,) = after_each(target, [[*prompt, *tokens[:-1]]])
            p = sampling.probabilities(logits[-100:]).numpy()
            share = p[np.arange(100), tokens]
            below = p.cumsum(-1)[np.arange(100), tokens] - share
            places += list(below + chance.random(100) * share)
        counts = np.histogram(places, bins=20, range=(0, 1))[0]
        return stats.chisquare(counts).pvalue

    prompts = [PROMPTS[seed % 5] for seed in range(10)]
    spoken = [(p, speculate(target, tuned, p, 100, sampling, seed=k).tokens) for k, p in enumerate(prompts)]
    assert pvalue(spoken) > 1e-3
    untuned = [(text.prompt, text.tokens) for text in generate(large, prompts, 100, sampling)]
    assert (
        pvalue(untuned) < 1e-3
    )  # texts of another model are seen; those of the draft are too much like the target's


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"temperature": 1.5, "top_k": 4, "top_p": 0.9}])
def test_a_hundred_thousand_draws_are_those_of_direct_sampling(settings):
    """Chi-square of each token's successors against the table of the target, and against as many direct draws."""
    large, small, tuned = tables(8)
    target, sampling, draws = emulate(large, small, tuned, 1.0, 1.2), Sampling(**settings), 100_000
    p = sampling.probabilities(log_p(target, [[0, 1, 2, 3, 4]])).numpy()
    found = speculate(target, tuned, [0], draws, sampling, seed=1)
    assert len(found.tokens) == draws and 0.2 < found.acceptance < 0.95
    direct = generate(target, [[0]] * 500, draws // 500, sampling, seed=2, batch=500)

    def successors(texts):
        counts = np.zeros((5, 5))
        for text in texts:
            np.add.at(counts, (text[:-1], text[1:]), 1)
        return counts

    seen, by_hand = successors([[0, *found.tokens]]), successors([[0, *text.tokens] for text in direct])
    assert seen.sum() == by_hand.sum() == draws
    for row in range(5):
        possible = p[row] > 0
        assert not seen[row, ~possible].any()
        if possible.sum() > 1 and seen[row].sum() and by_hand[row].sum():
            due = seen[row].sum() * p[row, possible]
            assert stats.chisquare(seen[row, possible], due).pvalue > 1e-4
            both = np.stack([seen[row, possible], by_hand[row, possible]])
            assert stats.chi2_contingency(both).pvalue > 1e-4


@pytest.mark.slow
def test_acceptance_is_the_overlap_of_both_at_the_prefixes_that_were_visited(sources):
    large, small, tuned = sources
    for target, draft, sampling in (
        (large, small, Sampling()),
        (emulate(large, small, tuned), tuned, Sampling(temperature=0.8, top_p=0.9)),
    ):
        accepted, due = 0, []
        for seed in range(5):
            found = speculate(target, draft, PROMPTS[seed % 5], 60, sampling, ahead=3, seed=seed)
            text = [*found.prompt, *found.tokens]
            p, q = (
                sampling.probabilities(next(after_each(source, [text]))).numpy() for source in (target, draft)
            )
            place = len(found.prompt)
            for each in found.rounds:
                for step, overlap in enumerate(each.overlap):
                    here = place + step - 1  # the token before the one that was judged
                    total_variation = 0.5 * np.abs(p[here] - q[here]).sum()
                    assert abs(overlap - (1 - total_variation)) < 1e-9
                    due.append(1 - total_variation)
                accepted += each.accepted
                place += len(each.tokens)
        spread = math.sqrt(sum(share * (1 - share) for share in due))
        assert len(due) > 250 and abs(accepted - sum(due)) < 3 * spread


def test_the_residual_and_the_accepted_make_up_the_target():
    p, q = torch.tensor([[0.5, 0.3, 0.2, 0.0]]), torch.tensor([[0.2, 0.3, 0.1, 0.4]])
    accepted = torch.minimum(p, q)
    assert torch.allclose(accepted + (1 - accepted.sum()) * residual(p, q), p)
    assert torch.equal(residual(p, p), p)


def test_a_draft_of_what_the_target_never_says_is_never_accepted():
    sure = Markov(torch.tensor([[0.0, -900, -900], [-900, 0, -900], [-900, -900, 0]]).double())
    other = Markov(sure.logits_VV[[1, 2, 0]])
    found = speculate(sure, other, [0], 40)
    assert set(found.tokens) == {0} and found.acceptance == 0 and len(found.rounds) == 40


def test_a_text_ends_at_its_stop(sources):
    large, small, _ = sources
    plain = speculate(large, small, b"import ", 40, seed=4)
    for place in (3, 7, 12):
        stop = plain.tokens[place]
        found = speculate(large, small, b"import ", 40, seed=4, stop={stop})
        assert found.tokens == plain.tokens[: plain.tokens.index(stop) + 1] and found.stopped
        assert all(each.accepted <= each.judged <= each.drafted for each in found.rounds)
    assert not plain.stopped and speculate(large, small, b"import ", 40, seed=4) == plain
    assert speculate(large, small, b"import ", 40, seed=5).tokens != plain.tokens


def test_the_lower_limit_counts(models, sources):
    short = Decoder(models[1], 256, limit=20)
    with pytest.raises(ConfigError, match="beyond the 20"):
        speculate(sources[0], short, b"import ", 30)
    assert emulate(sources[0], short, sources[2]).limit == 20
    assert len(speculate(sources[0], short, b"import ", 13, ahead=9).tokens) == 13


# ---- how far ahead


def test_tokens_a_round_are_what_counting_gives():
    chance = np.random.default_rng(0)
    for a, k in ((0.8, 4), (0.3, 2), (0.95, 7)):
        hits = chance.random((100_000, k)) < a
        tokens = 1 + np.where(hits.all(1), k, hits.argmin(1))
        assert abs(tokens.mean() - expected_tokens(a, k)) < 4 * tokens.std() / math.sqrt(1e5)
    assert expected_tokens(1, 5) == 6
    for a, k in ((1.1, 2), (-0.1, 2), (math.nan, 2), (0.5, -1)):
        with pytest.raises(ConfigError, match="means nothing"):
            expected_tokens(a, k)


def test_the_best_draft_is_longer_the_more_is_accepted_and_the_cheaper_it_is():
    costs = Costs(1.0, 0.05, [1.0] * 12)
    found = [costs.best(a)[0] for a in (0.3, 0.6, 0.8, 0.9)]
    assert found == sorted(found) and found[0] < found[-1]
    assert Costs(1.0, 0.3, [1.0] * 12).best(0.8)[0] < costs.best(0.8)[0]
    assert max(costs.speedup(0.8, k) for k in range(1, 13)) == costs.best(0.8)[1]
    assert Costs(1.0, 1.0, [1.0] * 4).best(0.9) == (0, 1.0)
    for wrong in ((0.0, 0.1, [1.0]), (1.0, math.nan, [1.0]), (1.0, 0.1, []), (1.0, -1.0, [1.0])):
        with pytest.raises(ConfigError, match="costs of"):
            Costs(*wrong)
    with pytest.raises(ConfigError, match="1 to 12 tokens ahead, not for 13"):
        costs.speedup(0.5, 13)


def test_a_rehearsal_measures_what_speculation_then_has(sources):
    large, small, _ = sources
    found = rehearse(large, small, PROMPTS[:3], 50, most=4)
    texts = [speculate(large, small, prompt, 50, seed=9) for prompt in PROMPTS[:3]]
    real = acceptance([each for text in texts for each in text.rounds])
    assert abs(found.acceptance - real) < 0.15 and found.judged > 80
    assert all(cost > 0 for cost in (found.costs.plain, found.costs.draft, *found.costs.verify))
    assert found.ahead == found.costs.best(found.acceptance)[0]
    with pytest.raises(ConfigError, match="are too few to try 1 to 8"):
        rehearse(large, small, [b"a"], 2)
    with pytest.raises(ConfigError, match="measure nothing"):
        rehearse(large, small, [], 2)


# ---- bits


def test_bits_of_three_models_are_what_each_way_by_itself_says(models, sources, windows):
    large, small, tuned = (
        {16: source, 3: Decoder(quantize_parts(model, Scheme.parse("w3")), 256)}
        for model, source in zip(models, sources, strict=True)
    )
    prompts = [window[:8] for window in windows]
    loud = [[token - 32 if 97 <= token <= 122 else token for token in window[8:]] for window in windows]
    sizes = [{bits: n * bits / 8 for bits in (16, 3)} for n in (4e6, 1e6, 1e6)]
    table = allocations(large, small, tuned, sizes, prompts, loud)
    assert [way.bits for way in table[:2]] == [(16, 16, 16), (16, 16, 3)] and len(table) == 8
    full, last = table[0], table[-1]
    assert full.extra == 0 and full.bytes == 12e6 and last.bytes == 6e6 * 3 / 8
    for way in table:
        b, r, t = way.bits
        target = emulate(large[b], small[r], tuned[t])
        alone = torch.cat(log_likelihoods(target, prompts, loud))
        assert way.loss == pytest.approx(-float(alone.mean()), abs=1e-9)
        assert way.extra == pytest.approx(way.loss - full.loss, abs=1e-9) and way.extra_se >= 0
        texts = [[*prompt, *more[:-1]] for prompt, more in zip(prompts, loud, strict=True)]
        p, q = (
            torch.cat([each[7:] for each in after_each(source, texts)]).softmax(-1)
            for source in (target, tuned[t])
        )
        assert way.acceptance == pytest.approx(1 - float((p - q).abs().sum(-1).mean()) / 2, abs=1e-9)
        plain = full.bytes / way.bytes
        costs = Costs(way.bytes, 1e6 * t / 8, [way.bytes] * 8)
        assert way.speed == pytest.approx(plain * costs.best(way.acceptance)[1])
    steps = first_to_lose(table)
    assert {(part, bits) for part, bits, _ in steps} == {("base", 3), ("reference", 3), ("tuned", 3)}
    assert steps[0][2] == min(
        way.extra / (full.bytes - way.bytes) * 1e6 for way in table if sorted(way.bits) == [3, 16, 16]
    )
    for wrong in ({0: sources[0]}, {65: sources[0]}, {}):
        with pytest.raises(ConfigError, match="of 1 to 64 bits"):
            allocations(wrong, small, tuned, [dict.fromkeys(wrong, 1.0), *sizes[1:]], prompts, loud)
    with pytest.raises(ConfigError, match="its bytes at each of them"):
        allocations(large, small, tuned, [{16: 1.0}, *sizes[1:]], prompts, loud)
    with pytest.raises(ConfigError, match="no model has fewer bits"):
        first_to_lose(table[:1])


def test_rejection_of_a_low_bit_copy_is_what_speculation_meets(models, corpus):
    """What a row says of a copy, from logits on text, is one minus the acceptance at these very tokens."""
    evaluation = spread_windows(corpus.evaluation, 8 * 32, 32)
    before = Reference(models[0], evaluation)
    found = {}
    for bits in (2, 3, 4, 8):
        (outcome,) = try_settings(before, [Setting.of("rtn", f"int{bits}")])
        texts = evaluation.inputs.tolist()
        p, q = (
            torch.cat(list(after_each(Decoder(model, 256), texts))).softmax(-1)
            for model in (models[0], outcome.model)
        )
        overlap = float(torch.minimum(p, q).sum(-1).mean())
        assert outcome.rejection.value == pytest.approx(1 - overlap, abs=1e-4)
        found[bits] = outcome.rejection.value
    assert found[2] > found[3] > found[4] > found[8] > 0


def test_times_of_verifying_are_on_their_line_and_never_below_what_was_seen():
    assert lookahead._line([[1.0], [3.0]]) == pytest.approx([1.0, 3.0])
    noisy = lookahead._line([[1.0]] * 7 + [[20.0]])
    assert min(noisy) == 1.0 and sorted(noisy) == noisy
    assert lookahead._line([[2.0]]) == [2.0]
