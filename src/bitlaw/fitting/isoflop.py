"""Compute-optimal size and tokens without a law of loss: approaches 1 and 2 of Hoffmann et al. (2022).

Approach 2 fits a parabola in log N to each budget's losses; approach 1 reads, from training curves, over
which budgets each size is the best. Both then put a power law through the minima. What biases each, and how
the interval was chosen, stands in `isoflop`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from ..errors import ConfigError, FitError
from ..formats import UNQUANTIZED
from ..laws import chinchilla
from ..laws.terms import TRAINED_PARTS
from ..runs import Count, Runs, read_runs
from ..units import parse_quantity
from .intervals import WEBB
from .line import Line, Range, straight
from .minima import OK, Minima, Places, Sweep, envelope, group, number_sizes, parabolas
from .minimize import Aim, minimize
from .objective import Array, student_quantile
from .path import Minimum, OptimalPath
from .rows import Rows, select

STUDENT, WILD = "Student's t over the minima", "wild cluster bootstrap"
BAD_FIT = 0.02  # rms of log loss; valleys are a few per cent deep over the sizes a parabola takes


def isoflop(
    runs: Any,
    approach: int = 2,
    budgets: Sequence[str | float] | None = None,
    *,
    count: Count = "as_given",
    width: float = 6.0,
    tolerance: float = 0.1,
    interval: float = 0.90,
    draws: int = 400,
    seed: int = 0,
) -> OptimalPath:
    """Find how the compute-optimal size and tokens grow with compute, from minima of loss and no law of it.

    Approach 2: L(N; C) = c0 + c1 log N + c2 (log N)^2 for each budget C, whose minimum is N_opt(C); approach 1:
    the size with the least loss at C. Then log N_opt = log G + a log C by least squares, with weights from the
    curvature of the parabolas.

    On L = E + A N^-alpha + B D^-beta both give a = beta / (alpha + beta) exactly, whatever alpha and beta, where
    the sizes lie alike around N_opt at every budget (approach 2) or are evenly spaced (approach 1). A parabola
    through a lopsided valley (alpha != beta), or through sizes off its centre, has its minimum elsewhere. Where it
    is off by one factor at all budgets, only G is wrong; where sizes are off by more at some budgets than at
    others, a is too. `bias` and `bias_params` are what the design at hand does; no interval holds them.

    The interval of approach 2 is Student's t over the minima. In 300 simulated sweeps of each of 60 combinations of
    design, law and noise it covered 86 to 96 % at nominal 90 %, also with noise that all rows of a budget share,
    where bootstraps of rows within budgets covered 8 to 30 %; resampling budgets and rows covered 97 to 100 %.
    Rows of several budgets that descend from one trunk (column `trunk`) are not independent: there t covered 75 to
    84 %, and a wild cluster bootstrap, which is taken instead, 96 to 100 %. Approach 1 has Student's t over the
    sizes, which covered 80 to 92 %; resampling the sizes covered 100 %.

    Args:
        runs: whatever `read_runs` reads; unquantised rows are used.
        approach: 2, isoFLOP parabolas, or 1, the envelope of training curves. Approach 3 is `fit`.
        budgets: training FLOPs of the budgets, like `["1e19 flops", 3e19]`; None finds them.
        count: how N is counted; `as_given` takes the `params` column.
        width: a parabola takes the sizes within this factor of the one of least loss, and at least four;
            `math.inf` takes all.
        tolerance: how far, as a share, a row's compute may lie from its budget. Compute is the column `flops`
            where all rows have it, and 6 N D otherwise.
        interval: level of the intervals.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        Exponents with intervals, the minimum of each budget, and the bias of the approach.

    Raises:
        FitError: fewer than three budgets, budgets of fewer than four sizes, or fewer than three minima.
        ConfigError: an approach, budget, width, tolerance or level that cannot be.

    Source: Hoffmann et al. 2022, arXiv 2203.15556, sections 3.1 and 3.2.

    >>> from bitlaw import Runs
    >>> law = chinchilla.predict
    >>> known = {"E": 1.8, "A": 500.0, "B": 1500.0, "alpha": 0.35, "beta": 0.35}
    >>> cells = [(c, n) for c in (1e18, 1e19, 1e20) for n in (c / 60) ** 0.5 * np.array([0.3, 0.6, 1.2, 2.4])]
    >>> rows = [{"params": n, "tokens": c / 6 / n} for c, n in cells]
    >>> path = isoflop(Runs.from_rows({**row, "loss": float(law(known, **row))} for row in rows))
    >>> round(path.a.value, 3)
    0.5
    """
    if approach not in (1, 2):
        raise ConfigError(
            f"approach must be 1 or 2, not {approach!r}; approach 3 is fit, of the law chinchilla"
        )
    if not 0 < interval < 1 or draws < 0:
        raise ConfigError(
            f"interval must lie between 0 and 1 and draws be 0 or more, not {interval} and {draws}; try 0.9 and 400"
        )
    if not width > 1 or not 0 < tolerance < 1:
        raise ConfigError(
            f"width must be above 1 and tolerance between 0 and 1, not {width} and {tolerance}; try 6 and 0.1"
        )
    if approach == 1 and budgets is not None:
        raise ConfigError("approach 1 reads the envelope at all budgets; drop budgets, or use approach=2")
    sweep, rows, notes = _read(read_runs(runs), count)
    if approach == 2:
        given = None if budgets is None else [parse_quantity(c, "flops") for c in budgets]
        groups, lost = group(sweep, given, tolerance)
        notes += lost

    def find(losses: Array) -> Minima:
        moved = replace(sweep, loss=losses)
        return parabolas(moved, groups, width) if approach == 2 else envelope(moved)

    minima = find(sweep.loss)
    line = _through(minima)
    method, rng = STUDENT, np.random.default_rng(seed)
    used = np.unique(np.concatenate([r for r, fine in zip(minima.rows, minima.ok, strict=True) if fine]))
    if approach == 2:
        line, method, more = _shared(sweep, minima, line, used, draws, rng)
        notes += more
    else:
        notes.append("in simulation the interval of approach 1 covered 80 to 92 % at nominal 90 %")
    a = line.of((0.0, 1.0), interval)
    if line.df < 3:
        notes.append(
            f"a power law through {line.df + 2} minima leaves {line.df} degrees of freedom: intervals are wide"
        )
    bias, ratio, said = _bias(sweep, rows, find, minima, used)
    per = sweep.flops / (sweep.params * sweep.tokens)
    if per.max() > 1.05 * per.min():
        notes.append(
            f"flops / (N D) lies between {per.min():.3g} and {per.max():.3g}; tokens follow from its geometric mean, "
            "and b = 1 - a holds only as far as it is constant"
        )
    flops_per = float(np.exp(np.log(per).mean()))
    return OptimalPath(
        approach=approach,
        a=a,
        b=Range(1 - a.value, 1 - a.high, 1 - a.low),
        scale=math.exp(line.height - line.slope * line.centre),
        minima=_told(minima, flops_per, interval),
        bias=bias,
        bias_params=ratio,
        level=interval,
        method=method,
        kind="confidence",
        df=line.df,
        rows=len(used),
        count=rows.count,
        flops_per=flops_per,
        notes=tuple(notes + _flags(minima) + [said]),
        line=line,
        valleys=minima.valleys,
    )


def _read(runs: Runs, count: Count) -> tuple[Sweep, Rows, list[str]]:
    """The rows of one precision, as a sweep and as a law reads them, and what was left out."""
    table = runs.filter(pl.col("post_format").is_null())
    parts = tuple(TRAINED_PARTS)
    low = np.any([(table.bits(part) < UNQUANTIZED).to_numpy() for part in parts], axis=0)
    after = len(runs) - len(table)
    notes = [f"{after} rows quantised after training are left out"] if after else []
    if low.any() and not low.all():
        notes.append(f"{int(low.sum())} rows trained in low precision are left out")
        table = Runs(table.frame.filter(pl.Series(~low)), table.source)
    formats = table.frame.select(f"{part}_format" for part in parts).unique()
    if low.all() and len(formats) > 1:
        raise FitError(
            f"the rows were trained in {len(formats)} combinations of formats, none of them unquantised; keep the rows "
            "of one, or fit a law with precision terms"
        )
    rows = select(chinchilla, table, count)
    block = rows.loss
    if block is None:
        raise FitError("no unquantised row has a loss; approaches 1 and 2 need finished runs")
    frame = table.ok()[block.row]
    n, d, flops = block.data["params"], block.data["tokens"], frame["flops"]
    if 0 < flops.null_count() < len(flops):
        notes.append(f"{flops.null_count()} rows have no flops; 6 N D is taken for all")
    c = 6 * n * d if flops.null_count() else flops.to_numpy()
    named = not frame["trunk"].has_nulls()
    return Sweep(n, d, c, block.measured, block.cluster, named), rows, notes + list(rows.notes)


def _through(minima: Minima) -> Line:
    if minima.ok.sum() < 3:
        mend = "sizes on both sides of the best" if minima.valleys else "sizes, or longer training curves"
        raise FitError(
            f"{int(minima.ok.sum())} minima can be used and a power law needs 3 ({'; '.join(_flags(minima))}); "
            f"add {mend}, or fit the law chinchilla"
        )
    return Line.through(np.log(minima.flops), np.log(minima.params), minima.weight)


def _shared(
    sweep: Sweep, minima: Minima, line: Line, used: Places, draws: int, rng: np.random.Generator
) -> tuple[Line, str, list[str]]:
    """Draw the line anew where budgets share trunks; say so where they may without the table's saying it."""
    clusters = np.unique(sweep.cluster[used])
    if len(clusters) == len(used):
        sizes = len(np.unique(number_sizes(sweep.params[used])))
        if sweep.named or sizes > 0.7 * len(used):
            return line, STUDENT, []
        note = (
            "the same sizes recur at several budgets; if rows of a size are points of one training curve, name it in "
            "the column trunk: taken as runs of their own, as here, they get too narrow an interval (75 to 84 % at "
            "nominal 90 % in simulation)"
        )
        return line, STUDENT, [note]
    if not draws:
        return line, STUDENT, ["budgets share trunks, which Student's t does not know; ask for draws"]
    df = max(1, len(clusters) - 3)
    signs = rng.choice(WEBB, size=(draws, len(clusters))) * np.sqrt(df / rng.chisquare(df, size=(draws, 1)))
    places = np.full((draws, len(minima.flops)), np.nan)
    for k, valley in enumerate(minima.valleys):
        if minima.ok[k]:
            flips = signs[:, np.searchsorted(clusters, sweep.cluster[valley.rows])]
            noise = flips * valley.residual / np.clip(1 - valley.leverage, 0.1, None)
            places[:, k] = valley.minimum((valley.design @ valley.coef + noise) @ valley.solver.T)
    there = np.isfinite(places)
    keep = there.sum(axis=1) >= 3
    weight = np.where(there, minima.weight, 0.0)[keep]
    moved = straight(np.log(minima.flops) - line.centre, np.where(there, places, 0.0)[keep], weight)
    notes = [f"{int((~keep).sum())} of {draws} draws have fewer than 3 minima and are left out"] * (
        not keep.all()
    )
    return replace(line, draws=moved, df=df), WILD, notes


def _bias(
    sweep: Sweep, rows: Rows, find: Callable[[Array], Minima], minima: Minima, used: Places
) -> tuple[float, float, str]:
    """What the approach gives on a Chinchilla law at the rows' own sizes and tokens, against the law itself."""
    try:
        near = replace(rows, loss=rows.loss and rows.loss.take(used))
        problem, optimum = minimize(near, Aim(), np.random.default_rng(0))
        theta = problem.decentre(problem.theta(optimum.u[0]))
        exact = rows.law.predict(theta, params=sweep.params, tokens=sweep.tokens)
        again = find(exact)
        shared = minima.ok & again.ok if minima.valleys else again.ok
        if shared.sum() < 3:
            raise FitError("fewer than 3 minima are left without noise")
        line = Line.through(np.log(again.flops), np.log(again.params), np.where(shared, again.weight, 0.0))
    except FitError as error:
        return math.nan, math.nan, f"the bias of the approach is not known: {error}"
    v = dict(zip(rows.law.names, theta.tolist(), strict=True))
    own = v["beta"] / (v["alpha"] + v["beta"])
    scale = (v["alpha"] * v["A"] / v["beta"] / v["B"]) ** (1 / (v["alpha"] + v["beta"]))
    per = float(np.exp(np.log(sweep.flops / (sweep.params * sweep.tokens)).mean()))
    ratio = math.exp(line.height - math.log(scale) - own * (line.centre - math.log(per)))
    rms = float(np.sqrt(np.mean(np.log(exact[used] / sweep.loss[used]) ** 2)))
    doubt = " (so badly that this says little)" if rms > BAD_FIT else ""
    said = (
        f"on a Chinchilla law fitted to the rows used to {rms:.2%} rms of log loss{doubt}, whose own a is {own:.3f}, "
        f"the same design gives without noise an a that is off by {line.slope - own:+.4f} and an N_opt that is off by "
        f"a factor of {ratio:.3f}; the estimates are not corrected for it"
    )
    return line.slope - own, ratio, said


def _told(minima: Minima, flops_per: float, level: float) -> tuple[Minimum, ...]:
    """The minima one by one; intervals from the noise about all parabolas together."""
    fine = [v for v, ok in zip(minima.valleys, minima.ok, strict=True) if ok] if minima.valleys else []
    df = sum(len(v.loss) - 3 for v in fine)
    noise = math.sqrt(sum(float(((v.residual / v.loss) ** 2).sum()) for v in fine) / df) if df else math.nan
    out = []
    for k, (c, n, loss) in enumerate(zip(minima.flops, minima.params, minima.loss, strict=True)):
        size = Range(float(n))
        if minima.ok[k] and df:
            factor = math.exp(student_quantile(df, (1 + level) / 2) * noise / math.sqrt(minima.weight[k]))
            size = Range(float(n), float(n / factor), float(n * factor))
        lost = math.isnan(n)
        out.append(
            Minimum(
                float(c),
                size,
                float(c / flops_per / n),
                math.nan if lost else float(loss),
                len(minima.rows[k]),
                minima.flag[k],
            )
        )
    return tuple(out)


def _flags(minima: Minima) -> list[str]:
    """Minima that are not used, in words."""
    return [
        f"{minima.flag.count(flag)} of {len(minima.flag)} minima are not used: {flag}"
        for flag in dict.fromkeys(minima.flag)
        if flag != OK
    ]
