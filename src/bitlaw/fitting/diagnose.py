"""What is wrong with a fit, or cannot be told from its rows, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..formats import UNQUANTIZED
from ..laws import Law
from ..laws.terms import TRAINED_PARTS
from ..units import format_quantity
from .intervals import covariance
from .objective import HUBER, Array, Problem, robust_spread, student_quantile
from .solve import polish
from .valley import flat

FAR = 5.0  # noise away from a fit without the row, at which a row is named
EXACT = 1e-8  # noise of rows that were computed rather than measured
MISFIT = "the residuals are not noise"  # how a note begins that says so
SURE = 0.01  # chance that residuals without structure would be said to have some


def unidentified(problem: Problem, u: Array) -> tuple[list[str], set[str]]:
    """Return sentences about directions the rows do not identify, and the parameters that lie in them."""
    names = [problem.law.parameters[k].name for k in problem.free]
    sentences, involved = [], set()
    for direction in flat(problem, u):
        chosen = [n for n, x in zip(names, direction, strict=True) if abs(x) > 0.3]
        involved |= set(chosen)
        cure = _cure(problem, u, direction)
        if len(chosen) == 1:
            sentences.append(
                f"{chosen[0]} is not identified: values more than a factor of e apart fit as well{cure}"
            )
        else:
            sentences.append(f"{', '.join(chosen)} are not identified separately, only in combination{cure}")
    return list(dict.fromkeys(sentences)), involved


def _cure(problem: Problem, u: Array, direction: Array) -> str:
    """The run, among some that could be trained, that would tell most about a direction."""
    rows = problem.blocks[0].data
    sizes = {n: np.exp(np.log(rows[n]).mean()) for n in ("params", "tokens") if n in rows}
    ends = {n: (rows[n].min() / 4, sizes[n], rows[n].max() * 4) for n in sizes}
    bits = [i.column for i in problem.law.inputs if i.column.endswith("_bits")]
    settings: list[dict[str, float]] = [{}]
    settings += [{column: float(b)} for column in bits for b in (2, 3, 4, 6, 8)]
    settings += [{i.column: 1.0} for i in problem.law.inputs if i.label is not None]
    if "post_bits" in bits:
        settings += [{c: 6.0, "post_bits": 4.0} for c in bits if c != "post_bits"]
    each = np.log(rows["tokens"] / rows["params"]) if len(ends) == 2 else np.zeros(1)
    likely = np.exp(each.min()) / 4, np.exp(each.max()) * 4  # tokens a parameter
    candidates = [
        {"params": n, "tokens": d, **setting}
        for n in ends.get("params", (1.0,))
        for d in ends.get("tokens", (1.0,))
        for setting in settings
        if len(ends) < 2 or likely[0] <= d / n <= likely[1]
    ]
    usual = {
        i.column: float(rows[i.column].mean()) if i.default is None else i.default for i in problem.law.inputs
    }
    data = {column: np.array([c.get(column, value) for c in candidates]) for column, value in usual.items()}
    theta = problem.theta(u)
    with np.errstate(all="ignore"):
        value, slopes = problem.law.compiled.total.slopes(theta, data)
        inside = np.isfinite(problem.law.compiled.guarded("total", theta, data)) & (value > 0)
        chain = problem.chain(theta) * direction
        told = np.abs(sum(c * slopes[k] for c, k in zip(chain, problem.free, strict=True)) / value)
    told = np.where(inside & np.isfinite(told), told / problem.sigma[0], 0.0)
    best = int(np.argmax(told))
    if told[best] < 1:  # even the best one would not tell e from 1
        return ""
    run = candidates[best]
    words = [
        f"{format_quantity(run[n] * problem.centre.get(n, 1.0))} {what}"
        for n, what in (("params", "parameters"), ("tokens", "tokens"))
        if n in ends
    ]
    for column, number in run.items():
        part, _, kind = column.partition("_")
        if kind == "bits":
            words.append(
                f"quantised to {number:g} bits"
                if part == "post"
                else f"{number:g}-bit {TRAINED_PARTS.get(part, part)}"
            )
        elif "=" in column:
            words.append(f"{column.partition('=')[0]} {column.partition('=')[2]}")
    return f"; most would be told by a run of {', '.join(words)}"


def at_bounds(problem: Problem, u: Array) -> dict[str, str]:
    """Name the parameters that ended at a bound, and which."""
    out = {}
    for place, k in enumerate(problem.free):
        span = problem.high[place] - problem.low[place]
        within = 1e-6 * span if np.isfinite(span) else 0.0
        for side, bound in (("lower", problem.low[place]), ("upper", problem.high[place])):
            if abs(u[place] - bound) <= within:
                out[problem.law.parameters[k].name] = side
    return out


def floorless(law: Law, values: Mapping[str, float], lowest: float) -> set[str]:
    """Parameters that stand for the floor and have run to zero."""
    return {name for name in law.floors if values[name] < 0.1 * lowest}


def suspicious(
    law: Law, values: Mapping[str, float], intervals: Mapping[str, tuple[float, float]], lowest: float
) -> list[str]:
    """Sentences about values that should make one think: no floor, and efficiencies above one."""
    out = []
    for name in sorted(floorless(law, values, lowest)):
        out.append(
            f"{name} runs to zero ({values[name]:.2g} nats against a lowest loss of {lowest:.3g}): the rows tell "
            "no floor, so the exponents are too low and far extrapolation is too optimistic; factors of precision "
            "hardly depend on it"
        )
    high = [n for n in values if n.startswith("eff_") and intervals.get(n, (values[n], 0))[0] > 1]
    if high:
        out.append(
            f"{', '.join(high)} above one: no format makes a model larger; a constant factor cannot be right, and "
            "a gap that grows with tokens may be what is seen"
        )
    return out


def influential(problem: Problem, u: Array, names: Sequence[str]) -> list[str]:
    """Name the rows that lie far from a fit without them, and say what they move together.

    Args:
        problem: the fit's objective.
        u: its optimum (f,).
        names: id of every row of the table with a loss.
    """
    rows = np.concatenate([block.row for block in problem.blocks])
    if max(problem.sigma) < EXACT:
        return []
    keep = np.ones(len(rows), dtype=bool)
    clean, here = problem, u[None]
    for _ in range(8):  # rows that hide each other come out one after the other
        residual = problem.predictions(here)[0] - problem.targets
        middle = robust_spread(residual[keep])
        near = np.abs(residual) < FAR * max(middle, 1e-12)
        if (near == keep).all() or near.mean() < 0.8:
            break
        keep = near
        blocks = tuple(block.take(keep[part]) for block, part in problem.parts)
        if not all(len(block) for block in blocks):
            return []
        clean = replace(problem, blocks=blocks)
        here = polish(clean, here).u
    far = np.flatnonzero(~keep)
    if not len(far):
        return []
    residual = problem.predictions(here)[0] - problem.targets
    middle = max(robust_spread(residual[keep]), 1e-12)
    far = far[np.argsort(-np.abs(residual[far]))]
    clean = replace(clean, sigma=tuple(s * middle for s in clean.sigma), delta=HUBER)
    values, slopes = clean.linearised(here)
    spread = np.sqrt(np.diag(covariance(clean, slopes[0].T, values[0] - clean.targets)))
    before, after = (problem.decentre(problem.theta(x)) for x in (here[0], u))
    moved = [
        f"{problem.law.parameters[k].name} from {before[k]:.4g} to {after[k]:.4g}"
        for place, k in enumerate(problem.free)
        if abs(u[place] - here[0, place]) > spread[place] and k not in problem.linear
    ]
    listed = ", ".join(f"{names[rows[k]]} ({residual[k] / middle:+.0f})" for k in far[:8])
    more = f" and {len(far) - 8} more" if len(far) > 8 else ""
    effect = (
        f"; together they move {', '.join(moved)}" if moved else "; they move no exponent by a standard error"
    )
    return [
        f"{len(far)} rows lie more than {FAR:g} times the noise off a fit without them: {listed}{more}{effect}: look "
        "at them before you trust either fit"
    ]


def barely_trained(problem: Problem) -> list[str]:
    """Say how many losses are of models that have seen fewer tokens than they have parameters."""
    block = problem.blocks[0]
    if block.kind != "loss" or not {"params", "tokens"} <= set(block.data):
        return []
    params, tokens = (block.data[c] * problem.centre.get(c, 1.0) for c in ("params", "tokens"))
    few = int((tokens < params).sum())
    if not few:
        return []
    swapped = " (are the columns params and tokens swapped?)" if few > 0.8 * len(block) > 1 else ""
    return [
        f"{few} of {len(block)} rows have seen fewer tokens than they have parameters; models trained that little bend "
        f'the exponents, so see what the fit is without them (--where "tokens>=params"){swapped}'
    ]


def structure(problem: Problem, u: Array) -> list[str]:
    """Say what the residuals still depend on, by score tests of terms that the law does not have."""
    values, slopes = problem.linearised(u[None])
    residual = values[0] - problem.targets
    sigma = robust_spread(residual)
    if sigma * problem.sigma[0] < EXACT:
        return []
    score = np.clip(residual / sigma, -HUBER, HUBER)
    member = np.unique(problem.clusters, return_inverse=True)[1]
    tests = _terms(problem)
    df = member.max() + 1 - slopes.shape[1] - 1
    if df < 3 or not tests:
        return []
    bar = student_quantile(df, 1 - SURE / 2 / len(tests))
    basis = np.linalg.qr(slopes[0].T / np.maximum(np.linalg.norm(slopes[0], axis=1), 1e-300))[0]
    found = []
    for name, column in tests.items():
        rest = column - basis @ (basis.T @ column)
        if np.linalg.norm(rest) < 1e-6 * np.linalg.norm(column):
            continue
        sums = np.bincount(member, weights=rest * score)
        if not sums.any():
            continue
        t = sums.sum() / np.sqrt((sums**2).sum())
        if abs(t) > bar:
            found.append((abs(t), name))
    if not found:
        return []
    found.sort(reverse=True)
    listed = ", ".join(f"{name} (t = {t:.1f})" for t, name in found[:3])
    return [
        f"{MISFIT}: they still depend on {listed}, which this law cannot follow; its intervals do "
        "not cover that, so compare it with others"
    ]


def _terms(problem: Problem) -> dict[str, Array]:
    """Terms that a law may lack, over all rows."""

    def joined(column: str) -> Array:
        return np.concatenate([block.data[column] for block in problem.blocks])

    inputs = {i.column for i in problem.law.inputs}
    logs = {
        what: np.log(joined(column))
        for column, what in (("params", "parameters"), ("tokens", "tokens"))
        if column in inputs
    }
    logs = {what: x - x.mean() for what, x in logs.items() if np.ptp(x) > 0.1}
    out: dict[str, Array] = {f"{what} (bent)": x**2 - (x**2).mean() for what, x in logs.items()}
    if len(logs) == 2:
        n, d = logs.values()
        out["parameters and tokens together"] = n * d
    for column in sorted(inputs):
        if column.endswith("_bits"):
            low = joined(column) < UNQUANTIZED
            words = (
                "quantisation after training" if column == "post_bits" else TRAINED_PARTS.get(column[:-5], "")
            )
        elif "=" in column:
            low = joined(column) > 0
            words = column.replace("=", " ")
        else:
            continue
        if 3 <= low.sum() <= len(low) - 3 or (column == "post_bits" and low.sum() > 3):
            out |= {f"{what} where {words} is of low precision": x * low for what, x in logs.items()}
    return out
