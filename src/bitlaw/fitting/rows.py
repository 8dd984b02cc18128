"""From the run table to the rows a law can read: which are used, as what, and which are left out and why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from ..errors import FitError
from ..formats import UNQUANTIZED, parse_format
from ..laws import Law, reduced
from ..laws.terms import PARTS, TRAINED_PARTS
from ..runs import Count, Runs
from .apart import apart
from .objective import Block

#: Measurement error of a gap that came without one, as a share of the smallest gaps in the table.
ASSUMED_GAP_NOISE = 0.1
RATIO, PRODUCT = "tokens_per_param", "params_tokens"  # of ranges
MOST_LOSS = 11.5  # nats per token: guessing among a hundred thousand tokens costs as much
FEW = 1000  # parameters, or tokens: no model of language has as few


@dataclass(frozen=True)
class Rows:
    """What a fit uses.

    Attributes:
        law: the law, without terms that no row could tell anything about.
        loss: rows with a loss to be predicted; None for a law of the gap alone.
        gap: rows with a paired gap to be predicted; None without any.
        notes: what was left out or should be known, in words.
        count: the counting convention of N.
        ranges: lowest and highest value of each input among the rows used; bits of quantised rows only. Also of tokens
            per parameter, and of parameters times tokens.
        facts: params, tokens and fewest bits of every row of the table that has a loss.
    """

    law: Law
    loss: Block | None
    gap: Block | None
    notes: tuple[str, ...]
    count: str
    ranges: dict[str, tuple[float, float]]
    facts: dict[str, np.ndarray]

    def blocks(self) -> tuple[Block, ...]:
        """The blocks that there are."""
        return tuple(block for block in (self.loss, self.gap) if block is not None)


def select(
    law: Law,
    runs: Runs,
    count: Count = "as_given",
    weights: ArrayLike | None = None,
    measured_noise: bool = False,
) -> Rows:
    """Choose the rows of a table that a law can be fitted to.

    Args:
        law: the law.
        runs: the table.
        count: how N is counted.
        weights: how much each row of the table counts; None for equal weights.
        measured_noise: whether the noise of each loss is in proportion to its `loss_se`.

    Raises:
        FitError: no usable rows, rows measured on different evaluation sets, or weights that do not fit.
    """
    ok = runs.filter(pl.col("loss").is_not_null())
    if not len(ok):
        raise FitError("no row has a loss; a fit needs finished runs")
    frame = ok.frame
    sizes = (
        ok.size(count)
        if "params" in law.columns
        else frame["params"].cast(pl.Float64).fill_null(float("nan"))
    )
    columns = {"params": sizes.to_numpy(), "tokens": frame["tokens"].to_numpy()}
    columns |= {f"{part}_bits": ok.bits(part).to_numpy() for part in (*TRAINED_PARTS, "post")}
    low = {part: columns[f"{part}_bits"] < UNQUANTIZED for part in (*TRAINED_PARTS, "post")}
    notes = _warnings(frame, runs)
    general = len(notes)

    sparse = (frame["w_sparsity"].fill_null(0.0) > 0).to_numpy()
    reads_sparsity = "w_sparsity" in law.columns
    keep = np.ones(len(ok), dtype=bool)

    def told(law: Law, which: str = "") -> tuple[Law, Law]:
        """The law without what no kept row tells anything about, before and after its labels have constants."""
        varies = {part: bool((rows & keep).any()) for part, rows in low.items()}
        varies["w"] |= reads_sparsity and bool((sparse & keep).any())
        plain, dropped = _restrict(law, varies, which)
        notes.extend(dropped)
        labels = {c: _labels(frame, c, low[c.partition("_")[0]] & keep) for c in plain.label_columns}
        return plain, plain.for_labels(labels)

    plain, law = told(law)
    unread = [part for part in PARTS if part not in law.parts and low[part].any()]
    if unread:
        said = ", ".join(
            f"{int(low[part].sum())} rows have {PARTS[part]} of low precision" for part in unread
        )
        notes.append(
            f"{said}; this law does not read it, so they are fitted as if they were of 16 bits (leave them out by "
            f'conditions like --where "{unread[0]}_format in none,bf16,fp16,fp32")'
        )

    for mask, why in apart(law, ok):
        keep &= ~mask
        notes.append(why)
    stored = frame.select(
        pl.any_horizontal(pl.col(f"{p}_stored").is_not_null() for p in ("w", "emb", "head"))
    )
    if 0 < (alone := int(stored.to_series().sum())) < len(ok):
        notes.append(
            f"{alone} rows have weights without a master copy, which no law tells from others; fit them apart"
        )
    quantized = low["post"]
    if law.gap == 0 and not any(c.startswith("post_") for c in law.columns) and quantized.any():
        keep &= ~quantized
        notes.append(
            f"{int(quantized.sum())} rows quantised after training are left out: this law has no gap"
        )
    data = {i.column: _column(i.column, ok, columns) for i in law.inputs}
    lacking = np.any([~np.isfinite(column) for column in data.values()], axis=0)
    if (keep & lacking).any():
        names = [n for n, column in data.items() if not np.isfinite(column).all()]
        notes.append(f"{int((keep & lacking).sum())} rows without {', '.join(names)} are left out")
        keep &= ~lacking
    keep = _in_domain(law, data, keep, notes)

    gap, noise = gaps(frame)
    # A law that reads the format after training and has no gap of its own predicts its target, whatever the gap.
    is_gap = keep & quantized & np.isfinite(gap) & (law.gap != 0)
    measured = _column(law.target, ok, {"loss": frame["loss"].to_numpy()})
    is_loss = keep & ~is_gap & (law.loss != 0) & np.isfinite(measured)
    if nothing := int((is_loss & (measured <= 0)).sum()):
        notes.append(f"{nothing} rows whose {law.target} is 0 are left out: it has no logarithm")
    is_loss &= measured > 0
    if not (is_loss | is_gap).any() or (law.loss != 0 and not is_loss.any()):
        what = law.target if law.loss != 0 else "gap"
        if what == "gap" and quantized.any() and not np.isfinite(gap).any():
            notes.append(
                f"{int(quantized.sum())} rows quantised after training have none (column gap: their loss less that of "
                "the row before, on the same tokens)"
            )
        raise FitError(f"no row is left whose {what} this law can predict; " + "; ".join(notes[general:]))
    cluster = clusters(frame)
    weight = _weights(runs, weights)[runs.frame["loss"].is_not_null().to_numpy()]
    spread = _spread(frame, is_loss) if measured_noise else np.ones(len(frame))
    keep &= weight > 0
    is_loss, is_gap = is_loss & keep, is_gap & keep
    keep = is_loss | is_gap
    _, less = told(plain, "that is left ")
    if less.spec != law.spec:
        law, data = less, {i.column: data[i.column] for i in less.inputs}
    if weights is None:
        notes += _repeated(data, np.where(is_gap, gap, measured), keep)

    def block(kind: str, chosen: NDArray[np.bool_]) -> Block:
        target = gap if kind == "gap" else measured
        return Block(kind, data, target, noise, weight, spread, cluster, np.arange(len(frame))).take(chosen)

    one_unit(frame, keep)
    one_evaluation_set(frame, is_loss)
    ranges = {}
    for name, column in data.items():
        inside = column[keep]
        if name.endswith("_bits"):  # of those in low precision
            inside = inside[inside < UNQUANTIZED]
        if len(inside):
            ranges[name] = float(inside.min()), float(inside.max())
    if {"params", "tokens"} <= data.keys() and keep.any():
        n, d = (data[name][keep] for name in ("params", "tokens"))
        ranges |= {RATIO: (float((d / n).min()), float((d / n).max()))}
        ranges |= {PRODUCT: (float((n * d).min()), float((n * d).max()))}
    named = frame["count"][0] if count == "as_given" else count
    return Rows(
        law=law,
        loss=block("loss", is_loss) if is_loss.any() else None,
        gap=block("gap", is_gap) if is_gap.any() else None,
        notes=tuple(notes),
        count=named or "not stated",
        ranges=ranges,
        facts={
            "params": columns["params"],
            "tokens": columns["tokens"],
            "bits": np.min([columns[f"{part}_bits"] for part in (*PARTS, "post")], axis=0),
        },
    )


def _repeated(data: dict[str, np.ndarray], measured: np.ndarray, used: NDArray[np.bool_]) -> list[str]:
    """Say when rows are the same to the last digit: they are then no further evidence."""
    table = np.stack([*data.values(), measured], axis=1)[used]
    again = len(table) - len(np.unique(table, axis=0))
    if not again:
        return []
    return [
        f"{again} rows repeat another in all that the law reads and in what was measured; if they are the same runs, "
        "drop them, for intervals count them as further evidence"
    ]


def _weights(runs: Runs, weights: ArrayLike | None) -> np.ndarray:
    if weights is None:
        return np.ones(len(runs))
    given = np.asarray(weights, dtype=float)
    if given.shape != (len(runs),) or not (np.isfinite(given) & (given >= 0)).all() or not given.any():
        raise FitError(
            f"weights must be {len(runs)} numbers of zero or more, one for each row of the table, some positive"
        )
    return given


def _spread(frame: pl.DataFrame, chosen: NDArray[np.bool_]) -> np.ndarray:
    """Relative standard error of each loss, in units of the middle one."""
    noise = (frame["loss_se"] / frame["loss"]).cast(pl.Float64).fill_null(0.0).to_numpy()
    missing = chosen & ~(noise > 0)
    if missing.any():
        raise FitError(
            f"{int(missing.sum())} rows have no measurement error (column loss_se, above zero), like "
            f"{frame['id'][int(np.flatnonzero(missing)[0])]!r}; give it, or fit without noise='measured'"
        )
    return np.where(chosen, noise, 1.0) / float(np.median(noise[chosen]))


def _column(name: str, runs: Runs, columns: dict[str, np.ndarray]) -> np.ndarray:
    """What a law reads from each row; NaN where the table does not say."""
    if name in columns:
        return columns[name]
    return runs.quantity(name).fill_null(float("nan")).to_numpy()


def _labels(frame: pl.DataFrame, column: str, low: NDArray[np.bool_]) -> tuple[str, ...]:
    """Formats of the quantised rows, by their number of bits."""
    names = frame[column].filter(pl.Series(low)).unique().to_list()
    return tuple(sorted(names, key=lambda name: parse_format(name).bits))


def _restrict(law: Law, varies: dict[str, bool], which: str) -> tuple[Law, list[str]]:
    """Drop the terms of a law that no row could tell anything about."""
    missing = [part for part in dict(law.spec.precision) if not varies[part]]
    notes = [
        f"no row {which}has {TRAINED_PARTS[part]} of low precision; their factor is left out of the law"
        for part in missing
    ]
    gap = bool(law.spec.gap) and not varies["post"]
    if gap:
        notes.append(f"no row {which}was quantised after training; the gap is left out of the law")
    return (
        (reduced(law, set(dict(law.spec.precision)) - set(missing), not gap), notes) if notes else (law, [])
    )


def _in_domain(
    law: Law, data: dict[str, np.ndarray], keep: NDArray[np.bool_], notes: list[str]
) -> NDArray[np.bool_]:
    """Leave out rows that break a condition which no parameter value could mend."""
    symbols = {p.symbol for p in law.parameters}
    theta = np.ones(len(law.parameters))
    said: dict[str, int] = {}
    for condition, holds in zip(law.conditions, law.compiled.holds(theta, data), strict=True):
        if not condition.expression.free_symbols & symbols:
            broken = keep & ~holds
            if broken.any():
                said[condition.sentence] = said.get(condition.sentence, 0) + int(broken.sum())
            keep = keep & holds
    notes += [f"{count} rows are left out: {sentence}" for sentence, count in said.items()]
    return keep


def gaps(frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Gap of each row, given or from the loss of its parent, NaN where there is none; and its standard error."""
    losses = dict(zip(frame["id"], frame["loss"], strict=True))
    parents = frame.select(
        pl.when(pl.col("post_format").is_not_null()).then("parent")
    ).to_series()  # not of tuning
    parent_loss = np.array([losses.get(parent) or np.nan for parent in parents], dtype=float)
    given = frame["gap"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    gap = np.where(np.isfinite(given), given, frame["loss"].to_numpy() - parent_loss)
    noise = frame["gap_se"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    known = np.abs(gap[np.isfinite(gap) & (gap != 0)])
    smallest = float(np.quantile(known, 0.1)) if len(known) else 1.0
    return gap, np.where(np.isfinite(noise) & (noise > 0), noise, ASSUMED_GAP_NOISE * smallest)


def clusters(frame: pl.DataFrame) -> NDArray[np.int64]:
    """Rows derived from one trunk, or from one parent, are one cluster."""
    parents = dict(zip(frame["id"], frame["trunk"], strict=True))
    names = [
        trunk or (parents.get(parent) or parent if parent else own)
        for trunk, parent, own in zip(frame["trunk"], frame["parent"], frame["id"], strict=True)
    ]
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def one_evaluation_set(frame: pl.DataFrame, chosen: NDArray[np.bool_]) -> None:
    """Refuse rows (n,) whose losses are of different texts.

    Raises:
        FitError: there are such.
    """
    sets = frame.filter(pl.Series(chosen))["eval_sha256"].unique()
    if len(sets) == 2 and sets.null_count():
        raise FitError(
            "some rows say which set they were evaluated on (column eval_sha256) and some do not; fill it in for all, "
            "or leave it out if it is one"
        )
    if len(sets) > 1:
        raise FitError(
            f"the rows were evaluated on {len(sets)} different sets (column eval_sha256); their losses cannot be "
            "compared: keep the rows of one"
        )


def one_unit(frame: pl.DataFrame, chosen: NDArray[np.bool_]) -> None:
    """Refuse rows (n,) whose losses are of different kinds.

    Raises:
        FitError: there are such.
    """
    for column, usual in (("unit", "tokens"), ("objective", "cross-entropy")):
        found = frame.filter(pl.Series(chosen))[column].fill_null(usual).unique().sort().to_list()
        if len(found) > 1:
            raise FitError(
                f"the rows mix {' and '.join(found)} (column {column}), which no law compares; fit them apart"
            )


def _warnings(frame: pl.DataFrame, runs: Runs) -> list[str]:
    notes = []
    if failed := len(runs) - len(frame):
        notes.append(f"{failed} rows without a loss (diverged or failed) are left out")
    if (frame["unit"].fill_null("tokens") != "tokens").any():
        unit, objective = frame["unit"].drop_nulls()[0], frame["objective"].drop_nulls().head(1).to_list()
        loss = objective[0] if objective else "loss"
        notes.append(f"tokens are {unit} here, and nats/token are {loss} a unit of them")
    elif (middle := float(np.median(frame["loss"].to_numpy()))) > MOST_LOSS:
        notes.append(
            f"half of the losses are above {middle:.3g}, more nats per token than guessing costs: perplexities, or per "
            "cent? bitlaw runs import turns such columns into losses"
        )
    for name in ("params", "tokens"):
        counts = frame[name].drop_nulls().to_numpy()
        if len(counts) and counts.max() < FEW:
            notes.append(
                f"{name} are at most {counts.max():.3g}: are they millions or billions? "
                "bitlaw runs import has units for them"
            )
    schedules = frame["schedule"].drop_nulls().unique().sort().to_list()
    if len(schedules) > 1:
        notes.append(
            f"the rows mix learning-rate schedules ({', '.join(schedules)}); growth of the gap with tokens is "
            "confounded with learning-rate decay"
        )
    cooldowns = frame["cooldown"].drop_nulls().unique().sort().to_list()
    if len(cooldowns) > 1:
        shares = ", ".join(f"{share:g}" for share in cooldowns)
        notes.append(
            f"the rows mix cooldowns over {shares} of the tokens, with which losses and gaps are confounded"
        )
    after = frame.filter(pl.col("post_format").is_not_null())
    corpora = frame["corpus"].drop_nulls().unique().sort().to_list()
    if len(corpora) > 1:
        notes.append(f"the rows mix corpora ({', '.join(corpora)}), each of which has constants of its own")
    lone = after.filter(pl.col("gap").is_null() & ~pl.col("parent").is_in(frame["id"].implode()))
    absent = (
        "not in the table" if lone.height and lone["parent"][0] not in runs.frame["id"] else "without a loss"
    )
    if lone.height:
        notes.append(
            f"{lone.height} rows quantised after training have no gap, for the rows that they name as parent (like "
            f"{lone['parent'][0]!r}) are {absent}; laws with a gap take their losses for losses after training"
        )
    if frame["gap"].is_not_null().any() and frame["schedule"].is_null().any():
        notes.append("some rows do not say their learning-rate schedule, with which gaps are confounded")
    recipes = pl.col("post_recipe").str.replace(r"^\S+ ?", "")  # "channel mse" of "int4 channel mse"
    for column, what in (
        (pl.col("method"), "methods of quantisation"),
        (pl.coalesce(recipes, "post_granularity"), "scales after training"),
    ):
        kinds = after.select(column).to_series().drop_nulls().unique().sort().to_list()
        if len(kinds) > 1:
            notes.append(f"the gaps mix {what} ({', '.join(kinds)}), which have constants of their own")
    trained = frame.filter(pl.col("parent").is_null() & pl.col("post_format").is_null())
    alike = ["params", "seed", "corpus", *(f"{part}_format" for part in TRAINED_PARTS)]
    if frame["trunk"].is_null().all() and (trained.group_by(alike).n_unique()["tokens"] > 1).any():
        notes.append(
            "no row names the run that it is a point of: if rows that differ in tokens alone are of one, name it in "
            "a column trunk (bitlaw runs import --map trunk=COLUMN), or intervals are too narrow; they are taken as "
            "independent"
        )
    return notes
