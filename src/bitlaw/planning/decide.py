"""From optima to a plan: intervals from draws, what lies near the optimum, and what has to be said with it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..errors import LawError
from ..formats import UNQUANTIZED, Recipe
from ..formats.listing import SHAPE
from ..shapes import ladder_shape
from .answer import SHOWN, Answer, Hedge, Option, Plan, quantity
from .choice import POST_BITS, WHOLE_BITS, Choice, tied
from .derive import derived
from .hedge import hedged
from .limits import Array
from .optimum import MIN_BITS, Best, Search
from .question import Question
from .remarks import remarks
from .source import answer, stretch
from .target import cheapest_of_each
from .training import training_toml

#: What a model costs, without end in draws that never reach a loss.
COSTS = {"training_flops", "serving_flops", "hours", "money"}
NEAR = 4.0  # sizes and tokens are compared within exp(+-4) of the best


def decide(search: Search, asked: Question) -> Plan:
    """Find the optimum and all that a plan says of it.

    Args:
        search: the law, the choices and the limits.
        asked: the question.

    Raises:
        LawError: no point that the law speaks of is within the limits.
    """
    source, interval, tolerance = search.source, asked.interval, asked.tolerance
    each = search.each()
    k = int(np.argmin(each.loss))
    if not np.isfinite(each.loss[k]):
        raise LawError(search.why_not())
    found = each.at(np.array([k]))
    drawn = source.drawn
    if drawn:
        draws = search.in_draws(each)
        found = Best(
            *(np.concatenate(pair) for pair in zip(vars(found).values(), vars(draws).values(), strict=True))
        )
    best, choice = found.at(slice(1)), search.choices[k]
    limit = best.loss[0] + tolerance * (best.loss[0] - source.floor(source.theta[:1])[0])
    near = _near(search, k, best, limit)
    answers = _answers(search, found, choice, near, asked)
    listed = replace(search, choices=_whole(search), free_bits="") if search.free_bits else search
    of_listed = listed.each() if search.free_bits else each
    in_draws = None
    if drawn:
        in_draws = listed.in_draws(of_listed) if search.free_bits else draws
    options, unreached = _options(listed, of_listed, in_draws, limit, asked)
    hedge = None if in_draws is None else hedged(listed, of_listed, in_draws)
    training, planned = _training(listed, of_listed, hedge, asked.words)
    notes = [
        *source.notes,
        *_left_out(search, each),
        *unreached,
        *_same(search),
        *_told_apart_by_cost(search),
        *_priced(search, asked),
        *remarks(search, found, choice, asked.loss),
        *asked.notes(choice),
        *_counted(source.count, training),
        *(_cached(search, planned) if training else []),
        *_beyond(asked, [("the answer", float(best.loss[0])), *((o.formats, o.loss) for o in options)]),
        *_hedging(hedge, tolerance),
    ]
    return Plan(
        question=asked.words,
        law=source.name,
        answers=answers,
        options=options,
        level=interval if drawn else math.nan,
        tolerance=tolerance,
        notes=tuple(dict.fromkeys(notes)),
        method=source.method,
        formats="" if search.free_bits else choice.name,
        training=training,
        hedge=hedge,
    )


def _counted(count: str, training: str) -> list[str]:
    """Say where a configuration would take a size for another than it is."""
    if not count or not training:
        return []
    return [
        f"N counts {count} parameters, as in the fit; the configuration takes it for parameters without embeddings"
    ]


def _cached(search: Search, params: float) -> list[str]:
    """Say where the configuration's model keeps more keys and values than the plan counts."""
    limits = search.limits
    if not limits.cached or limits.cache is not None:
        return []
    shape = ladder_shape(params)
    size = np.array([params])
    held, counted = limits.cached * 2 * shape.depth * shape.width, float(limits.kept(size)[0][0])
    if held < 1.1 * counted:
        return []
    return [
        f"the configuration's model (width {shape.width}, depth {shape.depth}) is deeper than the cache is counted "
        f"for: it keeps {held / counted:.2g} times as many keys and values; give its cache, or train another shape"
    ]


def _prices(search: Search, choice: Choice) -> tuple[float, ...]:
    """What a choice costs of all that the question limits."""
    limits = search.limits
    return (
        choice.train if limits.flops is not None else 0.0,
        choice.serve if limits.served or limits.token_flops is not None else 0.0,
        choice.bpw if limits.bytes is not None else 0.0,
        choice.kv_bits if limits.bytes is not None and limits.cached else 0.0,
    )


def _alike(search: Search) -> list[list[int]]:
    """For each choice, those that neither the law nor what they cost tells from it, itself among them."""
    keys = [(sorted(c.columns.items()), _prices(search, c)) for c in search.choices]
    return [[k for k, other in enumerate(keys) if other == key] for key in keys]


def _same(search: Search) -> list[str]:
    """Say which choices are the same."""
    choices = search.choices
    groups = {tuple(group): [choices[k].name for k in group] for group in _alike(search) if len(group) > 1}
    return [
        f"{' and '.join(names)} are one and the same here, for the law and for all that is limited"
        for names in groups.values()
    ]


def _told_apart_by_cost(search: Search) -> list[str]:
    """Say which choices the law takes for one, though they cost differently."""
    groups: dict[tuple[tuple[str, float], ...], list[Choice]] = {}
    for choice in search.choices:
        groups.setdefault(tuple(sorted(choice.columns.items())), []).append(choice)
    return [
        f"the law reads no difference between {' and '.join(repr(c.name) for c in group[:SHOWN])}: at one size and "
        "tokens it predicts one loss of them, and they differ here in what they cost alone"
        for group in groups.values()
        if len({_prices(search, c) for c in group}) > 1
    ]


def _priced(search: Search, asked: Question) -> list[str]:
    """Say what FLOPs are, where formats change them."""
    notes, choices = [], search.choices
    free = bool(search.free_bits)
    if asked.flops is None and asked.loss is None:
        return []
    if asked.machine is not None:
        if any(c.train != 1 for c in choices):
            notes.append("FLOPs are of 16 bits: in formats that the hardware runs faster, one counts less")
    elif free or any(c.train != 1 or (asked.served and c.serve != 1) for c in choices):
        notes.append("FLOPs are of 16 bits: one in P bits counts P/16 of it (Kumar et al. 2024, section 4.3)")
        wide = [c for c in choices if free or c.serve < c.scheme.a.format.bits / 16]
        if asked.served and wide:
            notes.append(
                "serving counts the bits of the weights alone (appendix E.3), as where reading them takes the time; "
                "where products with wider activations do, it is dearer: hardware counts those"
            )
    return notes


def _beyond(asked: Question, losses: Sequence[tuple[str, float]]) -> list[str]:
    """Say which errors are read off a curve where no row of it was."""
    if asked.errors is None:
        return []
    low, high = asked.errors.ranges.get("loss", (-math.inf, math.inf))
    outside = [name for name, loss in losses if not low <= loss <= high]
    if not outside:
        return []
    return [
        f"the error of {', '.join(dict.fromkeys(outside))} is read off beyond the rows of its curve, whose losses are "
        f"from {low:.3f} to {high:.3f}"
    ]


def _hedging(hedge: Hedge | None, tolerance: float) -> list[str]:
    """Say what to train, and why it is not the best at the estimate where draws disagree by more than is tolerated."""
    if hedge is None:
        return []
    model = f"{quantity('params', hedge.params)} on {quantity('tokens', hedge.tokens)} tokens"
    if hedge.at_best <= tolerance:
        return [
            f"hedged over the draws: {model} at {hedge.formats}, expected to lose {hedge.regret:.2%} of the reducible "
            f"loss (the best at the estimate {hedge.at_best:.2%})"
        ]
    return [
        f"the rows leave the optimum open: over the draws, the best is expected to lose {hedge.at_best:.1%} of the "
        f"reducible loss against what would have been best; {model} at {hedge.formats} loses {hedge.regret:.1%}"
    ]


def _training(search: Search, each: Best, hedge: Hedge | None, question: str) -> tuple[str, float]:
    """The configuration of the model that draws expect to lose least with, or without draws of the best; its size."""
    k = int(np.argmin(each.loss))
    params, tokens = float(each.params[k]), float(each.tokens[k])
    if hedge is not None:
        k = next(k for k, choice in enumerate(search.choices) if choice.name == hedge.formats)
        params, tokens = hedge.params, hedge.tokens
    choice = search.choices[k]
    return training_toml(question, params, tokens, choice.scheme, choice.post), params


def _left_out(search: Search, each: Best) -> list[str]:
    """Say which of the choices that were named have no optimum."""
    if search.free_bits:
        return []
    out = np.flatnonzero(~np.isfinite(each.loss))
    said = Counter(search.against(int(k), search.choices[k].bits) for k in out)
    return [
        f"{count} of {len(search.choices)} choices of formats are left out: {why or 'the limits leave them no room'}"
        for why, count in said.most_common()
    ]


def _near(search: Search, k: int, best: Best, limit: float) -> dict[str, tuple[float, float]]:
    """Ranges of each free quantity over which the best choice of the others stays near-optimal."""
    limits, out = search.limits, dict[str, tuple[float, float]]()
    given = {"params": limits.params is not None, "tokens": limits.tokens is not None}
    follows = [name for name in given if search.axes and name not in search.axes and not given[name]]
    for name in (*search.axes, *follows):
        if name == search.free_bits:
            grid = np.union1d(np.linspace(MIN_BITS, search.max_bits, 281), best.bits)
        else:
            middle = float(getattr(best, name)[0])
            grid = middle * np.exp(np.linspace(-NEAR, NEAR, 321))
        out[name] = stretch(grid, search.profile(k, name, grid).loss, limit)
    if search.free_bits and search.free_bits in out:
        out["bits"] = out.pop(search.free_bits)
    return out


def _answers(
    search: Search,
    found: Best,
    choice: Choice,
    near: Mapping[str, tuple[float, float]],
    asked: Question,
) -> tuple[Answer, ...]:
    limits, source = search.limits, search.source
    quantities: dict[str, Array] = {"params": found.params, "tokens": found.tokens}
    quantities |= {"bits": found.bits, "loss": found.loss}
    if choice.post is not None or search.free_bits == "post_bits":
        quantities["gap"] = search.gap(source.theta[: len(found.loss)], found)
    quantities |= {name: read(found) for name, read in derived(search, asked).items()}
    given = {
        "params": limits.params is not None,
        "tokens": limits.tokens is not None,
        "bits": not search.free_bits and len(search.choices) == 1,
    }
    endless = COSTS & quantities.keys() if asked.loss is not None else set()
    quantities |= {name: np.where(np.isfinite(found.loss), quantities[name], np.inf) for name in endless}
    return tuple(
        answer(
            name,
            values,
            source.drawn,
            asked.interval,
            near.get(name),
            given.get(name, False),
            name in endless,
        )
        for name, values in quantities.items()
    )


def _options(
    search: Search, each: Best, draws: Best | None, limit: float, asked: Question
) -> tuple[tuple[Option, ...], list[str]]:
    """The best that each choice, or each whole number of free bits, can do, and how often it is the best of them.

    Also says which of them never reach a loss that was asked for.
    """
    if len(search.choices) == 1:
        return (), []
    read = derived(search, asked)
    names = {"served_bytes": "bytes", "error": "error", "tokens_per_second": "tokens_per_second"}
    near, flops, never = each.loss <= limit, np.full(len(search.choices), math.nan), list[str]()
    if asked.loss is not None:
        able = np.isfinite(each.loss)  # the law speaks of them
        each, flops = cheapest_of_each(search, asked.loss)
        never = [search.choices[k].name for k in np.flatnonzero(able & np.isnan(flops))]
        each = replace(each, loss=np.where(np.isfinite(flops), each.loss, np.inf))
    won = np.empty(0) if draws is None else draws.choice[np.isfinite(draws.loss)]
    alike = _alike(search)
    options = []
    for k, choice in enumerate(search.choices):
        if not np.isfinite(each.loss[k]):
            continue
        best = each.at(np.array([k]))
        options.append(
            Option(
                formats=choice.name,
                bits=choice.post_bits if choice.post_bits < UNQUANTIZED else choice.bits,
                params=float(each.params[k]),
                tokens=float(each.tokens[k]),
                loss=float(each.loss[k]),
                near_optimal=bool(near[k]),
                flops=float(flops[k]),
                chance=float(np.isin(won, alike[k]).mean()) / len(alike[k]) if len(won) else math.nan,
                **{names[name]: float(read[name](best)[0]) for name in names.keys() & read.keys()},
            )
        )
    order = "bits" if _bits_alone(search) else "loss" if asked.loss is None else "flops"
    said = [f"no budget reaches the loss with {', '.join(never)}"] if never else []
    return tuple(sorted(options, key=lambda option: getattr(option, order))), said


def _bits_alone(search: Search) -> bool:
    return all(c.name.endswith(" bits") for c in search.choices)


def _whole(search: Search) -> tuple[Choice, ...]:
    (choice,) = search.choices
    if search.free_bits == "bits":
        return tied(search.source.law, [float(b) for b in WHOLE_BITS if b <= search.max_bits])
    return tuple(_after(choice, b) for b in POST_BITS if b <= search.max_bits)


def _after(choice: Choice, bits: int) -> Choice:
    recipe = Recipe.parse(f"int{bits}", "channel")
    return replace(
        choice,
        name=f"{bits} bits",
        columns={**choice.columns, "post_bits": float(bits)},
        serve=bits / 16,
        post_bits=float(bits),
        bpw=recipe.bits_per_weight(SHAPE),
        post=recipe,
    )
