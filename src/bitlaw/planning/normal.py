"""Is a measured gap of low precision what laws expect at this size, on these tokens, in these formats?

The gap is the loss of the low-precision model less that of the same model in 16 bits, after training or after
quantising it. A fit gives an interval that holds the noise of such a measurement too; published constants come without.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ..errors import BitlawError, ConfigError, LawError
from ..laws import PUBLISHED
from ..units import percent
from .answer import Answer, Other, Plan
from .choice import Choice, Formats, chosen
from .limits import Array
from .question import Question
from .source import Source, answer, why_not_plannable

REPEATS = 20  # measurements for each draw of the law
ENOUGH = 1e-9  # nats per token; a gap below it is none


def judge(source: Source, asked: Question) -> Plan:
    """Set a measured gap beside the prediction of a law, and of every published one that speaks of these formats.

    Args:
        source: the law asked first.
        asked: the question, with the model's size, tokens and formats, and the gap.

    Raises:
        ConfigError: something of that is missing, or formats that the law has no constants for.
        LawError: formats outside the law's domain, or a law that says they cost nothing.
    """
    params, tokens = asked.model("a measured gap is")
    bits, post, interval, measured = asked.bits, asked.quantize_to, asked.interval, asked.measured_gap
    if (bits is None and post is None) or measured is None:
        raise ConfigError("say in which formats the gap was measured: bits, quantize_to, or both")
    choice, *more = chosen(source.law, bits, post)
    if more:
        raise ConfigError(
            "a gap was measured in some formats; name one choice in bits, and one in quantize_to"
        )
    predicted = _predicted(source, choice, params, tokens)
    if not np.isfinite(predicted[0]):
        raise LawError(source.why_not(_columns(choice, params, tokens)))
    if abs(predicted[0]) < ENOUGH:
        raise LawError(
            f"{source.name} says that {choice.name} costs nothing; ask about formats of low precision"
        )
    inside = np.isfinite(predicted)
    lost, predicted = int((~inside).sum()), predicted[inside]
    with_noise = _measured_again(source, choice, predicted, params, tokens) if source.drawn else predicted
    gap, ratio = (
        answer(name, values, source.drawn, interval, None, False)
        for name, values in (("predicted_gap", with_noise), ("ratio", measured / with_noise))
    )
    if not (gap.low > 0 or gap.high < 0):  # what is divided by may be nothing
        ratio = replace(ratio, low=math.nan, high=math.nan)
    found = (
        Answer("measured_gap", measured, given=True),
        replace(gap, value=float(predicted[0])),
        replace(ratio, value=measured / float(predicted[0])),
    )
    notes = [_verdict(measured, gap.low, gap.high, interval, source.drawn), *source.notes, *choice.silent]
    if source.drawn and choice.post is not None and "gap" not in source.noise:
        notes.append("the fit tells nothing of the noise of a gap, so the interval is that of the law alone")
    if lost:
        notes.append(
            f"{lost} of {lost + len(predicted) - 1} draws say nothing of these formats and are left out"
        )
    notes.append("what each law was fitted on, parts and formats above all: bitlaw laws show NAME")
    bits_read = {k: v for k, v in choice.columns.items() if k.endswith("_bits")}
    notes += source.extrapolation(params, tokens, bits_read)
    return Plan(
        question=asked.words,
        law=source.name,
        answers=found,
        options=(),
        level=interval if source.drawn else math.nan,
        tolerance=asked.tolerance,
        notes=tuple(dict.fromkeys(notes)),
        method=source.method,
        kind="prediction",
        formats=choice.name,
        others=_others(source, bits, post, params, tokens, measured),
    )


def _verdict(measured: float, low: float, high: float, interval: float, drawn: bool) -> str:
    if not drawn:
        return "without an interval the deviation cannot be judged; fit a law to rows for one"
    where = "above" if measured > high else "below" if measured < low else "inside"
    said = {
        "inside": "the gap is normal by this law",
        "above": "the gap is larger than this law expects: look for a fault, or for formats other than stated",
        "below": "the gap is smaller than this law expects: a better recipe than its rows had, or too easy a test",
    }
    return f"the measured gap lies {where} the {percent(interval)} prediction interval: {said[where]}"


def _predicted(source: Source, choice: Choice, params: float, tokens: float) -> Array:
    """Loss of a choice less that in 16 bits, at the estimate and in every draw."""
    (plain,) = chosen(source.law, None, None)
    return _loss(source, choice, params, tokens) - _loss(source, plain, params, tokens)


def _loss(source: Source, choice: Choice, params: float, tokens: float) -> Array:
    return source.loss(source.theta, _columns(choice, params, tokens))[:, 0]


def _columns(choice: Choice, params: float, tokens: float) -> dict[str, Array]:
    columns = {**choice.columns, "params": params, "tokens": tokens, "unique_tokens": tokens}
    return {name: np.full((1, 1), value) for name, value in columns.items()}


def _measured_again(source: Source, choice: Choice, predicted: Array, params: float, tokens: float) -> Array:
    """Predictions with the noise of a measurement: of two runs with seeds of their own, or of one quantised copy."""
    rng = np.random.default_rng(0)
    draws = predicted[1:]

    def noise(kind: str) -> Array:
        stretch = np.sqrt(source.df / rng.chisquare(max(source.df, 1), (REPEATS, len(draws))))
        return np.asarray(source.noise.get(kind, 0.0) * stretch * rng.standard_normal(stretch.shape))

    single = np.broadcast_to(draws, (REPEATS, len(draws)))
    if choice.scheme.quantized:
        level = 1.0 if source.raw else float(_loss(source, choice, params, tokens)[0])
        single = single + math.sqrt(2) * level * noise("loss")
    if choice.post is not None:
        single = single + (noise("gap") if source.raw else draws * np.expm1(noise("gap")))
    return np.concatenate([predicted[:1], single.ravel()])


def _others(
    source: Source, bits: Formats | None, post: Formats | None, params: float, tokens: float, measured: float
) -> tuple[Other, ...]:
    """What every published law says that has constants for these formats."""
    others = []
    for published in PUBLISHED.values():
        if why_not_plannable(published.law) or source.name.startswith(f"{published.name} ("):
            continue
        other = Source.of(published, 0.9)
        try:
            (choice,) = chosen(other.law, bits, post)
            if choice.untold or not (choice.post is None or other.law.gap != 0):
                continue
            gap = float(_predicted(other, choice, params, tokens)[0])
        except BitlawError:
            continue
        if np.isfinite(gap) and abs(gap) > ENOUGH:
            values = {"predicted_gap": gap, "ratio": measured / gap}
            others.append(Other(published.name, values, choice.name))
    return tuple(others)
