"""The front door of the planner: read a question, and hand it to the room that answers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import ConfigError
from ..fitting import Fit
from ..laws import Law, Published
from ..units import format_quantity
from .answer import Plan
from .back import READS, how_long_back
from .choice import Choice, Formats, chosen, tied
from .decide import decide
from .gap import lowest
from .hardware import Hardware
from .normal import judge
from .optimum import Search
from .question import Quantity, Question
from .record import Record
from .rivals import by_named, by_rivals
from .source import Source
from .target import budget_for
from .when import how_long, is_trajectory

#: Formats that hardware may have units for, among which a plan on it chooses.
NATIVE = ("bf16", "e4m3", "int8", "nvfp4", "mxfp4", "int4")


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
        hours: budget as time of all devices; needs `hardware`.
        money: budget in USD; needs `hardware` of known price.
        loss: to be reached, in nats a token, instead of a budget.
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
        max_gap: with `quantize_to="lowest"`, nats a token that quantisation may cost.
        measured_gap: loss in low precision less loss in 16 bits, nats a token.
        within: nats a token above the loss before quantisation that training is to bring a recorded model to.
        learning_rate: of that training, constant.
        momentum: of that training; for a record made for Adam, its beta1.
        batch: examples a step of that training; None is all of them.
        steps: most steps that are looked at; 1,000 by default.
        runs: the rows of a fit: laws and objectives that fit them about as well are asked too.
        others: further laws to ask.
        max_bits: most bits considered where bits are free.
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
        return how_long_back(law, question)
    source = Source.of(law, interval)
    _all_read(source, question)
    found = _answer(source, question)

    def ask(other: Fit | Published) -> Plan:
        return _answer(Source.of(other, interval).at_estimate(), question)

    told = by_named(others, ask)
    if runs is not None:
        if not isinstance(law, Fit):
            raise ConfigError(
                "runs are of a fit; published constants have none here: name other laws with others"
            )
        told += by_rivals(law, runs, ask)
    return replace(found, others=found.others + told) if told else found


def _all_read(source: Source, asked: Question) -> None:
    """Refuse arguments that the kind of question does not read.

    Raises:
        ConfigError: such an argument was given.
    """
    sure, rates = (
        {"max_bits", "interval", "tolerance"},
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
    choices, free, notes = _choices(source, asked)
    asked = asked.timed(choices)
    search = Search(
        source.noting(*notes),
        choices,
        asked.limits(repeats="unique_tokens" in source.law.columns),
        free,
        asked.max_bits,
    )
    _check(asked, search)
    if asked.loss is not None:
        search = search.with_budget(budget_for(search, asked.loss))
    return decide(search, asked)


def _choices(source: Source, asked: Question) -> tuple[tuple[Choice, ...], str, list[str]]:
    """The formats to choose among, which bits are free, and what has to be said of them."""
    law, bits, post = source.law, asked.bits, asked.quantize_to
    told = dict.fromkeys(name for _, labels in law.spec.labels for name in labels)
    one = bits is None or (isinstance(bits, str | int) and bits not in ("any", "each"))
    notes: list[str] = []
    if asked.machine is None and bits is None and post is None and source.reads_bits:
        if asked.kv is None:
            return tied(law, [16.0]), "bits", notes
        bits = "any"  # keys and values have a format of their own, so that bits are not all the same
    if asked.machine is None and one and post == "any" and _reads_post_bits(law):
        return chosen(law, bits, 8, asked.kv), "post_bits", notes
    if bits is None and post is None and source.reads_bits:  # costs go by hardware's own formats
        native = [name for name in NATIVE if asked.machine is not None and asked.machine.has(name)]
        notes.append(f"formats considered: {', '.join(native)}; name others with bits")
        bits = native
    elif bits is None and post is None:
        assumed = (
            f"training at 16 bits is assumed: the law has constants for {', '.join(told)}; name one with bits"
        )
        plain = "the law has no precision terms, so training at 16 bits is assumed"
        notes.append(assumed if law.parts and told else plain)
    elif bits is not None and not law.parts:
        notes.append("the law has no precision terms: bits count in the cost, and lose nothing by it")
    return chosen(law, bits, post, asked.kv, asked.pace), "", notes


def _reads_post_bits(law: Law) -> bool:
    return "post_bits" in law.columns and "post_format" not in dict(law.spec.labels)


def _check(asked: Question, search: Search) -> None:
    """Refuse what leaves nothing to choose, or what nothing limits.

    Raises:
        ConfigError: a question that is contradictory or incomplete.
    """
    limits = search.limits
    given = limits.params is not None, limits.tokens is not None
    if asked.tokens and limits.most_tokens and asked.tokens > limits.most_tokens:
        raise ConfigError(
            f"{search.source.law.name} does not know what repeated tokens are worth, and there are only "
            f"{format_quantity(limits.most_tokens)} unique_tokens; give fewer tokens, or ask muennighoff-2023"
        )
    if limits.flops is not None and all(given):
        raise ConfigError("a budget with both params and tokens leaves nothing to choose; drop one of them")
    if asked.loss is not None:
        if limits.flops is not None or limits.tokens is not None:
            raise ConfigError(
                "a loss to be reached takes the place of budget and tokens; drop these, or the loss"
            )
        return
    if asked.served and limits.flops is None:
        raise ConfigError(
            "tokens served cost as training does; give the budget of both, or the loss to be reached"
        )
    sized = limits.flops or limits.bytes or limits.token_flops or limits.most_params or given[0]
    if not sized or (limits.endless and not search.turns):
        raise ConfigError(
            "say what there is to spend (budget, hours or money), how many tokens, or which size will be quantised to "
            "what (params with quantize_to): without end, larger and longer is always better"
        )
