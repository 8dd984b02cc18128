"""What the rows know of the law's constants: each by itself, and two at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ...errors import DataError
from ...fitting import Fit, Profile, profiles
from ...runs import Runs
from ...units import percent
from ..chart import Axis, Chart, Line, Mark, NothingToDraw, Points, Rule
from ..style import STAR
from ..view import Array
from .base import Figure, evidence, interval

CLOUD = 400  # draws that are shown
LEAST = 1e-9  # of a constant that varies, or of its logarithm, that draws spread over
RANGE = 100.0  # factor around the estimate within which profiles are shown


@Figure
def profile_likelihoods(fit: Fit, runs: Runs, found: Sequence[Profile] | None = None) -> Chart:
    """How the objective rises as each constant is held elsewhere, all others fitted anew.

    A line that leaves the shaded strip on both sides belongs to a constant that the rows hold; a flat one to a
    constant that they do not.

    Args:
        fit: the fit.
        runs: the rows it was fitted to.
        found: what `fitting.profiles` gave, which takes about a second; None to find it here.

    Raises:
        NothingToDraw: these are not the rows of the fit.
    """
    try:
        found = profiles(fit, runs) if found is None else found
    except DataError as error:
        raise NothingToDraw(str(error)) from error
    marks: list[Mark] = []
    positive = {e.parameter.name for e in fit.estimates if e.parameter.positive}
    shown = [p for p in found if p.name in positive]
    if not shown:
        raise NothingToDraw("no constant that was fitted is positive by its bounds")
    limit = shown[0].limit
    marks.append(Rule(y=(-limit, limit), text=f"{percent(fit.level)}"))
    for k, p in enumerate(shown):
        ratio = p.values / fit.values[p.name]
        near = (ratio > 1 / RANGE) & (ratio < RANGE)
        marks.append(Line(ratio[near], p.rise[near], p.name, k, marker=k, dash=(k + k // 8) % 2 == 1))
    fitted = [e.parameter.name for e in fit.estimates if e.status != "fixed"]
    rest = [name for name in fitted if name not in {p.name for p in shown}]
    left = (
        f" Not shown: {', '.join(rest)}, of which the rows tell nothing or which may be negative."
        if rest
        else ""
    )
    return Chart(
        "profile-likelihoods",
        "What the rows know of each constant (flat: nothing)",
        "Each constant is held at a multiple of its estimate and all others are fitted anew; shaded: where it stays in "
        f"its {percent(fit.level)} confidence interval by the profile.{left} {evidence(fit)}.",
        Axis("value / estimate", "log"),
        Axis("signed root of twice the rise, standard errors", low=-2 * limit, high=2 * limit),
        tuple(marks),
        legend="constant",
    )


@Figure
def constant_pair(fit: Fit, first: str = "", second: str = "") -> Chart:
    """Draws of two constants, with the ellipse that holds the fit's level of them.

    Args:
        fit: a fit with draws.
        first: name of one; empty for the two that are most correlated.
        second: name of the other.

    Raises:
        NothingToDraw: a fit without draws, or of one constant, or names of no two that vary.
    """
    names, draws = _coordinates(fit)
    if not first:
        [(first, second)] = correlated(fit, 1)
    if {first, second} - set(names) or first == second:
        raise NothingToDraw(f"no draws of {first!r} and {second!r}; name two of {', '.join(names)}")
    pair = draws[:, [names.index(first), names.index(second)]]
    middle, half = np.median(pair, axis=0), _shape(pair)
    turn = np.linspace(0, 2 * np.pi, 97)
    far = np.quantile(np.linalg.norm(np.linalg.solve(half, (pair - middle).T), axis=0), fit.level)
    ellipse = (middle[:, None] + half @ (far * np.stack([np.cos(turn), np.sin(turn)]))).T
    room = 0.4 * np.ptp(ellipse, axis=0)
    low, high = ellipse.min(axis=0) - room, ellipse.max(axis=0) + room
    outside = int(((pair[:CLOUD] < low) | (pair[:CLOUD] > high)).any(axis=1).sum())
    logs = [_positive(fit, name) for name in (first, second)]

    def own(points: Array) -> list[Array]:
        return [np.exp(points[:, k]) if log else points[:, k] for k, log in enumerate(logs)]

    cloud, rim, ends = own(pair[:CLOUD]), own(ellipse), own(np.stack([low, high]))
    r = _ranked(pair)[0, 1]
    values = fit.values
    x, y = (
        Axis(
            f"{name}, {unit}" if (unit := _unit(fit, name)) else name,
            "log" if log else "linear",
            low=float(end[0]),
            high=float(end[1]),
        )
        for name, log, end in zip((first, second), logs, ends, strict=True)
    )
    beyond = f" {outside} of them lie outside the frame." if outside else ""
    return Chart(
        f"pair-{_file(first)}-{_file(second)}",
        f"{first} and {second} together (rank correlation {r:+.3f})",
        f"Dots: {len(cloud[0])} of {len(fit.draws)} draws ({interval(fit)}).{beyond} Line: an ellipse that holds "
        f"{percent(fit.level)} of all draws. {evidence(fit)}.",
        x,
        y,
        (
            Points(cloud[0], cloud[1], "draws", faint=True),
            Line(rim[0], rim[1], f"{percent(fit.level)} ellipse", 1, dash=True),
            Points([values[first]], [values[second]], "estimate", 1, STAR),
        ),
    )


def correlated(fit: Fit, most: int) -> list[tuple[str, str]]:
    """The pairs of constants whose draws are most correlated, at most so many, no constant twice.

    Raises:
        NothingToDraw: a fit without draws, or of one constant.
    """
    names, draws = _coordinates(fit)
    size = np.triu(np.abs(_ranked(draws)), 1)
    out: list[tuple[str, str]] = []
    for place in np.argsort(-size, axis=None)[: size.size // 2]:
        i, j = divmod(int(place), len(names))
        if i < j and not {names[i], names[j]} & {name for pair in out for name in pair}:
            out.append((names[i], names[j]))
        if len(out) == most:
            break
    return out


def _coordinates(fit: Fit) -> tuple[list[str], Array]:
    """Names and draws (S, k) of the constants that vary, on the scale where draws are nearly normal."""
    found = {}
    for name, draws in zip(fit.law.names, fit.draws.T, strict=True):
        column = np.log(draws) if _positive(fit, name) else draws
        if fit.df and np.ptp(column) > LEAST * (1 + np.abs(column).max()):
            found[name] = column
    if len(found) < 2:
        raise NothingToDraw(
            "the fit has no draws of two constants; fit with draws, and rows with noise of several clusters"
        )
    return list(found), np.stack(list(found.values()), axis=1)


def _ranked(draws: Array) -> Array:
    """Rank correlations (k, k): draws of few clusters have tails that decide any other."""
    ranks = np.argsort(np.argsort(draws, axis=0), axis=0).astype(float)
    correlation: Array = np.corrcoef(ranks.T)
    return correlation


def _shape(pair: Array) -> Array:
    """A square root (2, 2) of the covariance of the draws' middle, which their tails do not move."""
    ends = np.quantile(pair, [0.05, 0.95], axis=0)
    middle = pair[((pair >= ends[0]) & (pair <= ends[1])).all(axis=1)]
    spread = np.cov((middle if len(middle) > 3 else pair).T)
    return np.asarray(np.linalg.cholesky(spread + 1e-9 * np.diag(np.diag(spread))), dtype=np.float64)


def _positive(fit: Fit, name: str) -> bool:
    return fit.law.parameters[fit.law.names.index(name)].positive


def _unit(fit: Fit, name: str) -> str:
    return fit.law.parameters[fit.law.names.index(name)].unit


def _file(name: str) -> str:
    """A constant's name as part of a file's: a law from a stranger may call it anything."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", name)[:40]
