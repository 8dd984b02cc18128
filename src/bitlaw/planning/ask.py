"""The front door of the planner: read a question, and hand it to the room that answers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import ConfigError
from ..fitting import Fit
from ..laws import Published
from .answer import Plan
from .back import READS, how_long_back
from .choice import Formats
from .decide import decide
from .gap import lowest
from .hardware import Hardware
from .normal import judge
from .pose import pose
from .question import Quantity, Question
from .record import Record
from .rivals import by_named, by_rivals
from .source import Source
from .when import how_long, is_trajectory


def plan(
    law: Fit | Published | Record | str,
    *,
    budget: Quantity = None,
    hours: float | None = None,
    money: float | None = None,
    loss: float | None = None,
    params: Quantity = None,
    tokens: Quantity = None,
    bits: Formats | None = None,
    quantize_to: Formats | None = None,
    max_params: Quantity = None,
    max_tokens: Quantity = None,
    unique_tokens: Quantity = None,
    batch_tokens: Quantity = None,
    memory: Quantity = None,
    token_flops: Quantity = None,
    speed: float | None = None,
    served: Quantity = None,
    context: Quantity = None,
    sequences: float = 1.0,
    cache: tuple[int, int, int] | None = None,
    kv: str | int | None = None,
    hardware: Hardware | str | None = None,
    devices: float = 1.0,
    achieved: float | Any | None = None,
    throughput: Quantity = None,
    speedups: Mapping[str, float] | None = None,
    max_gap: float | None = None,
    measured_gap: float | None = None,
    within: float | None = None,
    learning_rate: float | None = None,
    momentum: float | None = None,
    batch: int | None = None,
    steps: int | None = None,
    runs: Any = None,
    others: Sequence[Fit | Published | str] = (),
    errors: Fit | None = None,
    max_bits: float = 16.0,
    interval: float = 0.90,
    tolerance: float = 0.01,
) -> Plan:
    """Answer how many parameters, tokens and bits, for training, for serving, or for both.

    What there is to spend, what is given, and what formats there are to choose among make the question; the rest is
    answered. So, for example:

    * `budget` alone: the best (N, D, bits) under C = (6/16) N D P, all parts at P bits.
    * `budget` with `params`, `tokens`, `bits`, `max_params` or `unique_tokens`: the best of the rest.
    * `budget` with `bits="each"`: bits of weights, activations, keys and values, each by itself.
    * `params` with `quantize_to`: the tokens beyond which more training hurts the quantised model.
    * `params`, `tokens` and `quantize_to="lowest"`: the fewest bits that are safe.
    * `memory` (with `context`, `sequences`), `speed` or `token_flops`: the best model that can be served so.
    * `budget` with `served`: training and serving counted together, in formats of their own with `bits="any"` and
      `quantize_to="any"`.
    * `loss`: the cheapest way to a loss; with a law of the trajectory, steps and batch too.
    * `params`, `tokens`, formats and `measured_gap`: whether a gap that was measured is normal.
    * a record of a quantised model instead of a law, with `learning_rate` and `within`: steps until it is back.

    Args:
        law: a fit, published constants, or the name of published constants; or a record of a model (`read_record`).
        budget: training cost, and serving cost of `served` tokens, like "1e22 flops" of 16-bit arithmetic.
        hours: budget as hours on the clock with all devices at work; needs `hardware`.
        money: budget in USD; needs `hardware` of known price.
        loss: to be reached, in nats per token, instead of a budget.
        params: model size, like "8B".
        tokens: training tokens, like "200B".
        bits: formats in training: "int8" or 8 (all parts), "w4a8", "w=nvfp4, a=e4m3", a list to choose among, "any" or
            "each"; "bf16" or 16 means unquantised.
        quantize_to: weights after training: "int4", "int4 group128", a list, "any", or "lowest".
        max_params: largest size.
        max_tokens: most training tokens.
        unique_tokens: distinct tokens there are; a law of repeated data may repeat them, others may not.
        batch_tokens: tokens a step, for laws of the trajectory.
        memory: bytes for weights and cache in serving, like "16 GB".
        token_flops: what a served token may cost, in FLOPs of 16 bits.
        speed: tokens a second of all sequences that serving must reach; needs `hardware`.
        served: tokens served in the model's lifetime.
        context: tokens of a sequence whose keys and values are cached.
        sequences: served at once.
        cache: (layers, heads of keys and values, their width), where the model's are known; else by a rule of its size.
        kv: format of cached keys and values, where it is not that of training.
        hardware: a name of `bitlaw hardware`, or a TOML file of one's own. Costs are then by its rates, not by bits.
        devices: how many.
        achieved: share of the peak that runs reach, like 0.4; or rows (anything `read_runs` reads) that tell it.
        throughput: tokens a second that were measured at `params` and `bits` on all devices, instead.
        speedups: measured, over 16 bits, in place of the hardware's rates, like {"fp8": 1.4}.
        max_gap: with `quantize_to`, nats per token that quantisation may cost: "lowest" takes no format beyond it, and
            where `params` are given, `max_gap_tokens` are the tokens from which on it is more.
        measured_gap: loss in low precision less loss in 16 bits, nats per token.
        within: nats per token above the loss before quantisation that training is to bring a recorded model to.
        learning_rate: of that training, constant.
        momentum: of that training; for a record made for Adam, its beta1.
        batch: examples a step of that training; None is all of them.
        steps: most steps that are looked at; 1,000 by default.
        runs: the rows of a fit: laws and objectives that fit them about as well are asked too.
        others: further laws to ask.
        errors: errors on tasks by the loss, like `downstream(runs).curve`: the answers then have an `error`, a share.
        max_bits: most bits considered, where formats are not named.
        interval: level of the intervals, for laws with draws.
        tolerance: share of the reducible loss (L - E) that counts as near-optimal.

    Returns:
        The decision with intervals, near-optimal choices, and what other laws say.

    Raises:
        ConfigError: a question that is contradictory, incomplete or cannot be read.
        LawError: a question outside the law's domain, or that nothing within the limits answers.

    >>> answer = plan("kumar-2024", budget="1e22 flops")
    >>> round(answer["bits"].value, 2)
    7.0
    """
    given = {name: value for name, value in locals().items() if name not in ("law", "runs", "others")}
    question = Question.read(**given)
    if isinstance(law, Record):
        if runs is not None or others:
            raise ConfigError(
                "a record is of a model, of which no other law can be asked; drop runs and others"
            )
        return how_long_back(law, question)
    source = Source.of(law, interval)
    all_read(source, question)
    found = _answer(source, question)

    def ask(other: Fit | Published) -> Plan:
        return _answer(Source.of(other, interval).at_estimate(), question)

    told = by_named(others, ask)
    if runs is not None:
        if not isinstance(law, Fit):
            raise ConfigError(
                "runs are of a fit; published constants have none here: name other laws with others"
            )
        rivals, notes = by_rivals(law, runs, ask, of_gaps=question.quantize_to is not None)
        told += rivals
        found = replace(found, notes=(*found.notes, *notes))
    return replace(found, others=found.others + told) if told else found


def all_read(source: Source, asked: Question) -> None:
    """Refuse arguments that the kind of question does not read.

    Raises:
        ConfigError: such an argument was given.
    """
    sure, rates = (
        {"interval", "tolerance"} | ({"max_bits"} if asked.measured_gap is None else set()),
        {"hardware", "devices", "achieved", "throughput", "speedups"},
    )
    model = {"params", "tokens", "bits", "quantize_to"}
    if is_trajectory(source):
        what, reads = "steps to a loss", {"params", "loss", "batch_tokens", "bits"} | rates
    elif asked.measured_gap is not None:
        what, reads = "whether a gap is normal", model | {"measured_gap"}
    elif asked.quantize_to == "lowest":
        what, reads = "the fewest safe bits", model | {"max_gap"}
    else:
        what, reads = "this question", set(asked.said) - {"batch_tokens", "max_gap", *(READS - {"loss"})}
        if asked.quantize_to is not None and asked.params is not None:
            reads |= {"max_gap"}
        if asked.context is None:
            alone = {"cache", "kv"} if asked.speed is not None else {"cache", "kv", "sequences"}
            asked.only("a question without context", set(asked.said) - alone)
    asked.only(what, reads | sure)


def _answer(source: Source, asked: Question) -> Plan:
    """Put a question to one law."""
    if is_trajectory(source):
        return how_long(source, asked)
    if asked.measured_gap is not None:
        return judge(source, asked)
    if asked.quantize_to == "lowest":
        return lowest(source, asked)
    search, asked = pose(source, asked)
    return decide(search, asked)
