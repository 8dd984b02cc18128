"""Questions to the planner: every one gets a decision in finite numbers, or one sentence."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitlaw import BitlawError, ConfigError, LawError, plan
from bitlaw.laws import PUBLISHED

#: Every argument of `plan`, with what makes sense and what does not.
SENSE = {
    "budget": [1e18, "1e21 flops", 1e24],
    "hours": [1.0, 500.0],
    "money": [50.0, 1e6],
    "loss": [2.5, 3.2, 4.0],
    "params": ["30M", 1e9, "70B"],
    "tokens": ["2B", 2e11, "15T"],
    "bits": [8, "int4", "bf16", "w4a8", "int4 group128", ["int8", "bf16"], "any", "each", "mxfp4", "e4m3 group128"],
    "quantize_to": [4, "int3", "int4 group128", ["int3", "int8"], "any", "lowest"],
    "max_params": ["100M", 1e10],
    "max_tokens": ["5B", 1e13],
    "unique_tokens": ["1B", 1e12],
    "batch_tokens": ["500k", 4e6],
    "memory": ["16 MB", "16 GB", 1e12],
    "token_flops": [1e8, 1e11],
    "speed": [20.0, 5000.0],
    "served": ["1B", 1e13],
    "context": [2048, 1e5],
    "sequences": [1, 64.0],
    "cache": [(32, 8, 128), (4, 1, 64)],
    "kv": ["int8", 4],
    "hardware": ["h100", "a100-80g", "tpu-v6e", "cpu-core"],
    "devices": [1, 64.0],
    "achieved": [0.4, 1.0],
    "throughput": [1e4, 1e6],
    "speedups": [{"fp8": 1.4}, {"fp8": 1.5, "fp4": 2}],
    "max_gap": [1e-3, 0.1],
    "measured_gap": [0.02, -0.1],
    "max_bits": [8.0, 32],
    "interval": [0.5, 0.99],
    "tolerance": [1e-6, 0.5],
}  # fmt: skip
SILLY = [
    *(0, -1, 1e-9, 1e59, 1e70, math.nan, math.inf, 3.5, True, b"8"),
    *("", "x", "3 apples\n", "w4a4kv4 each", [], [None], (1, 2), {}, {"a": 1}),
]
#: Questions that have answers, of which others are made by adding, changing and taking away.
BASES = (
    {"budget": 1e21},
    {"budget": 1e22, "served": "1T"},
    {"params": "1B", "quantize_to": "int4"},
    {"params": "1B", "tokens": "20B", "quantize_to": "lowest"},
    {"params": "1B", "tokens": "20B", "quantize_to": "int4", "measured_gap": 0.02},
    {"params": "1B", "loss": 3.0},
    {"loss": 3.2, "served": "100B"},
    {"memory": "16 GB", "tokens": "1T", "context": 8192},
    {"memory": "16 GB", "quantize_to": "any"},
    {"hours": 100.0, "hardware": "h100", "devices": 8},
    {"budget": 1e21, "hardware": "a100-80g", "speed": 100.0},
    {},
)


@st.composite
def questions(draw):
    """A published law and arguments, most of which make sense."""
    asked = dict(draw(st.sampled_from(BASES)))
    for name in draw(st.lists(st.sampled_from(sorted(SENSE)), max_size=3, unique=True)):
        asked[name] = draw(st.sampled_from(SENSE[name]))
    if draw(st.booleans()):  # what these need
        if {"hours", "money", "achieved", "speedups", "speed", "devices", "throughput"} & set(asked):
            asked.setdefault("hardware", draw(st.sampled_from(SENSE["hardware"])))
        if {"sequences", "cache", "kv"} & set(asked):
            asked.setdefault("context", draw(st.sampled_from(SENSE["context"])))
    if asked and draw(st.integers(0, 7)) == 7:
        asked[draw(st.sampled_from(sorted(asked)))] = draw(st.sampled_from(SILLY))
    with_gap = {"quantize_to", "measured_gap"} & set(asked)
    likely = st.sampled_from(["kumar-2024", "qid-2024"] if with_gap else ["kumar-2024", "muennighoff-2023"])
    return draw(st.sampled_from(sorted(PUBLISHED)) if draw(st.integers(0, 2)) == 2 else likely), asked


def ask(law, asked):
    """The plan, checked; or the sentence why there is none."""
    try:
        answer = plan(law, **asked)
    except BitlawError as error:
        sentence = str(error)
        assert "\n" not in sentence and 10 < len(sentence) < 1500
        return sentence
    for a in answer.answers:
        assert math.isfinite(a.value) or (a.name == "money" and math.isnan(a.value)), (a.name, a.value)
        if not math.isnan(a.near_low):
            assert a.near_low * (1 - 1e-9) <= a.value <= a.near_high * (1 + 1e-9), a
    for option in answer.options:
        assert math.isfinite(option.params) and math.isfinite(option.loss)
    json.dumps(answer.as_json(), allow_nan=False)
    assert str(answer).startswith(answer.question.split()[0])
    return answer


@pytest.mark.slow
@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(questions())
def test_every_question_is_answered_in_numbers_or_in_one_sentence(question):
    ask(*question)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, derandomize=True, database=None)
@given(questions())
def test_many_questions_are_answered_in_numbers_or_in_one_sentence(question):
    ask(*question)


@pytest.mark.parametrize(
    ("law", "asked", "error", "words"),
    [
        # of the wrong kind
        ("kumar-2024", {"budget": 1e21, "context": math.nan}, ConfigError, "^context: "),
        ("kumar-2024", {"budget": 1e21, "context": 1e3, "cache": (1, 2)}, ConfigError, "three whole numbers"),
        ("kumar-2024", {"budget": 1e21, "context": 1e3, "cache": 5}, ConfigError, "three whole numbers"),
        ("kumar-2024", {"budget": 1e21, "tolerance": "x"}, ConfigError, "tolerance"),
        ("kumar-2024", {"budget": 1e21, "interval": "x"}, ConfigError, "level"),
        ("kumar-2024", {"budget": 1e21, "bits": 3.5}, ConfigError, "3.5 is no format"),
        ("kumar-2024", {"budget": 1e21, "quantize_to": [True]}, ConfigError, "True is no format"),
        ("kumar-2024", {"budget": 1e21, "max_bits": 1}, ConfigError, "between 2 and 64"),
        ("kumar-2024", {"budget": 1e21, "hardware": 3}, ConfigError, "named by text"),
        ("kumar-2024", {"budget": 1e21, "hardware": "h100", "devices": "8"}, ConfigError, "devices"),
        ("kumar-2024", {"budget": 1e21, "hardware": "h100", "speedups": 3}, ConfigError, "speedups"),
        (3, {"budget": 1e21}, ConfigError, "fit, or with published"),
        ("kumar-2024", {"budget": 1e21, "others": 3}, ConfigError, "fit, or with published"),
        # contradictory
        ("kumar-2024", {"budget": 1e21, "tokens": "1B", "max_tokens": "100M"}, ConfigError, "drop one"),
        ("kumar-2024", {"budget": 1e21, "params": "1B", "max_params": "100M"}, ConfigError, "drop one"),
        ("kumar-2024", {"budget": 1e21, "tokens": "2B", "unique_tokens": "1B"}, ConfigError, "repeated tokens"),
        (
            "kumar-2024",
            {"hardware": "h100", "params": 1e9, "bits": 8, "tokens": 1e9, "achieved": 0.3, "throughput": 1e5},
            ConfigError,
            "one of them",
        ),
        ("kumar-2024", {"budget": 1e21, "params": 1e9, "bits": 8, "throughput": 1e9, "hardware": "h100"}, ConfigError,
         "^throughput is "),
        # what plays no part
        ("kumar-2024", {"budget": 1e21, "batch_tokens": 1e6}, ConfigError, "batch_tokens plays no part"),
        ("kumar-2024", {"budget": 1e21, "max_gap": 0.1}, ConfigError, "max_gap plays no part"),
        ("kumar-2024", {"budget": 1e21, "kv": "int4"}, ConfigError, "kv plays no part in a question without context"),
        ("kumar-2024", {"budget": 1e21, "devices": 8}, ConfigError, "devices are of some hardware"),
        ("kumar-2024", {"params": 1e9, "tokens": 1e10, "quantize_to": "lowest", "budget": 1}, ConfigError, "budget"),
        ("kaplan-2020-trajectory", {"params": 1e9, "loss": 2.5, "hours": 5, "hardware": "h100"}, ConfigError, "hours"),
        # nothing is left, or too much
        ("kumar-2024", {"budget": 1e-5}, LawError, "leave no room"),
        ("kumar-2024", {"budget": 1e21, "params": 1e21}, LawError, "leave no room"),
        ("kumar-2024", {"budget": 1e21, "served": 1e15, "params": 1e9}, LawError, "leave no room"),
        ("kumar-2024", {"memory": "16 GB", "tokens": 1e12, "context": 8192, "sequences": 1e9, "cache": (32, 8, 128)},
         LawError, "leave no room"),
        ("kumar-2024", {"speed": 1e30, "tokens": 1e12, "hardware": "h100"}, LawError, "leave no room"),
        ("kumar-2024", {"loss": 3, "max_tokens": 1e9}, LawError, "which end at 3.379"),
        ("kumar-2024", {"loss": 3, "bits": "int3"}, LawError, "use more bits"),
        ("kumar-2024", {"loss": 1e9}, LawError, "goes below a loss"),
        ("kumar-2024", {"loss": 2.5, "served": "100B", "token_flops": 1e8}, LawError, "no budget reaches"),
        ("gadre-2024-c4-error", {"budget": 1e21}, ConfigError, "predicts error"),
        ("kaplan-2020-trajectory", {"params": 1e9, "loss": 1e9}, LawError, "less than a step"),
        ("kaplan-2020-trajectory", {"params": 1e9, "loss": 2.3}, LawError, "ends at a loss of 2.347"),
        (
            "kumar-2024",
            {"params": 1e9, "tokens": 2e9, "bits": 8, "quantize_to": 4, "measured_gap": 0.1},
            LawError,
            "kumar-unified",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_said_in_one_sentence(law, asked, error, words):
    with pytest.raises(error, match=words) as caught:
        plan(law, **asked)
    assert "\n" not in str(caught.value)


def test_any_format_after_training_is_one_that_the_law_has_constants_for():
    answer = plan("qid-2024-per-format", params="1B", quantize_to="any")
    assert {o.formats for o in answer.options} == {f"bf16, then int{b}" for b in (2, 3, 4)}


def test_one_other_law_needs_no_list():
    answer = plan("kumar-2024", budget=1e21, others="chinchilla-2024")
    assert [o.law for o in answer.others] == ["chinchilla-2024"]
