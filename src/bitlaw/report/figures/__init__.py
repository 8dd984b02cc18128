"""The figures: each is worked out by `figure.chart(...)`, and drawn by `figure(ax, ...)`, which returns `ax`."""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import polars as pl

from ...errors import BitlawError, DataError
from ...files import whole
from ...fitting import Comparison, Fit, downstream, isoflop
from ...planning import Plan
from ...runs import Runs
from ..chart import Chart, NothingToDraw
from ..draw import draw
from ..style import style
from ..view import View
from .base import Figure, by_count
from .budgets import compute_optimal, isoflop_parabolas, loss_against_bits, loss_against_bytes, plan_options
from .constants import constant_pair, correlated, profile_likelihoods
from .formats import effective_parameters_by_format, effective_parameters_by_granularity, parts_multiply
from .gaps import by_way, gap_against_ratio, gap_by_schedule, u_curves
from .judged import law_ranking, predicted_against_measured, residuals_and_influence
from .losses import isoloss, loss_against_tokens, loss_slices, loss_surface
from .precision import effective_parameters
from .tasks import error_against_loss
from .trades import best_bits_against_tokens, equal_parameters_times_bits, serving_optimal
from .training import learning_curves, reliability_diagram, sweep_progress
from .unified import gap_against_training_bits, gap_residuals, predicted_against_measured_gap

__all__ = [
    "Figure",
    "NothingToDraw",
    "best_bits_against_tokens",
    "charts",
    "compute_optimal",
    "constant_pair",
    "effective_parameters",
    "effective_parameters_by_format",
    "effective_parameters_by_granularity",
    "equal_parameters_times_bits",
    "error_against_loss",
    "gap_against_ratio",
    "gap_against_training_bits",
    "gap_by_schedule",
    "gap_residuals",
    "isoflop_parabolas",
    "isoloss",
    "law_ranking",
    "learning_curves",
    "loss_against_bits",
    "loss_against_bytes",
    "loss_against_tokens",
    "loss_slices",
    "loss_surface",
    "parts_multiply",
    "plan_options",
    "predicted_against_measured",
    "predicted_against_measured_gap",
    "profile_likelihoods",
    "reliability_diagram",
    "residuals_and_influence",
    "serving_optimal",
    "sweep_progress",
    "u_curves",
    "write_figures",
]
PAIRS = 2  # of constants that are drawn
FORMATS = ("svg", "png", "pdf")


def charts(
    runs: Runs,
    fit: Fit,
    *,
    comparison: Comparison | None = None,
    plans: Sequence[Plan] = (),
    slow: bool = False,
    budget: float | None = None,
) -> list[Chart]:
    """Every figure that some rows and a fit support, in reading order.

    Args:
        runs: the table the fit was made from.
        fit: the fit.
        comparison: laws ranked on held-out rows.
        plans: decisions, whose choices of formats are drawn.
        slow: also those that fit again, which take a second or more: profiles of the constants, isoFLOP parabolas, and
            errors on tasks.
        budget: training cost in 16-bit FLOPs that figures of budgets are to show; None for those of the rows.

    Returns:
        The charts; what the rows or the law have nothing of is left out.

    >>> from bitlaw import Runs, fit
    >>> rows = [{"params": n, "tokens": d, "loss": 2 + 400 / n**0.3 + 400 / d**0.3}
    ...         for n in (1e6, 3e6, 1e7) for d in (1e7, 1e8, 1e9)]
    >>> [chart.name for chart in charts(Runs.from_rows(rows), fit("chinchilla", Runs.from_rows(rows)))][:2]
    ['compute-optimal', 'loss-slices']
    """
    view = View.of(runs, fit)
    methods, usual = _ways(view)
    makers: list[Callable[[], Chart]] = [
        *(partial(plan_options.chart, answer, k) for k, answer in enumerate(plans)),
        lambda: compute_optimal.chart(fit, view, budget),
        lambda: loss_against_bits.chart(fit, view, budget),
        lambda: best_bits_against_tokens.chart(fit, view),
        lambda: equal_parameters_times_bits.chart(fit, view),
        lambda: serving_optimal.chart(fit, view),
        lambda: effective_parameters.chart(fit, view),
        lambda: effective_parameters_by_format.chart(fit, view),
        lambda: effective_parameters_by_granularity.chart(fit, view),
        lambda: parts_multiply.chart(fit, view),
        lambda: loss_against_tokens.chart(fit, view),
        lambda: loss_slices.chart(fit, view),
        lambda: loss_surface.chart(fit, view),
        lambda: isoloss.chart(fit, view),
        *(partial(gap_against_ratio.chart, fit, view, method, usual) for method in methods),
        lambda: gap_by_schedule.chart(fit, view),
        lambda: gap_against_training_bits.chart(fit, view),
        lambda: u_curves.chart(fit, view),
        lambda: loss_against_bytes.chart(fit, view),
    ]
    if slow:
        makers.append(lambda: _parabolas(runs, fit))
    if comparison:
        makers += [partial(law_ranking.chart, comparison, k) for k in range(len(comparison.rankings))]
    makers += [
        lambda: predicted_against_measured.chart(fit, view),
        lambda: predicted_against_measured_gap.chart(fit, view),
        lambda: _gap_errors(fit, view),
        lambda: residuals_and_influence.chart(fit, runs),
    ]
    if slow:
        makers += [lambda: profile_likelihoods.chart(fit, runs), lambda: _tasks(runs, fit)]
    with suppress(NothingToDraw):
        makers += [partial(constant_pair.chart, fit, *pair) for pair in correlated(fit, PAIRS)]
    makers += [lambda: learning_curves.chart(runs), lambda: sweep_progress.chart(runs)]
    found: list[Chart] = []
    for make in makers:
        try:
            chart = make()
        except NothingToDraw:
            continue
        except Exception as error:  # one figure that fails must not cost the report all the others
            frames = traceback.extract_tb(error.__traceback__)[1:]
            figure = next((frame.name for frame in frames if frame.name != "<lambda>"), "")
            warnings.warn(
                f"the figure {figure} is left out, for it failed ({type(error).__name__}: {error})",
                RuntimeWarning,
                stacklevel=2,
            )
            continue
        taken = {other.name for other in found}
        names = (f"{chart.name}-{k}" if k > 1 else chart.name for k in count(1))
        found.append(replace(chart, name=next(name for name in names if name not in taken)))
    return found


def _ways(view: View) -> tuple[list[str | None], str | None]:
    """Methods of quantisation, where several stand apart, the most frequent first, and the schedule of most rows."""
    rows = by_way(view)
    methods, ways = by_count(rows, "method"), by_count(rows, "way")
    return (list(methods) if len(methods) > 1 else [None]), (ways[0] if len(ways) > 1 else None)


def _gap_errors(fit: Fit, view: View) -> Chart:
    if view.frame.filter(pl.col("fitted") == "gap")["w_bits"].n_unique() < 2:
        raise NothingToDraw("no models of several bits in training were quantised after it")
    return gap_residuals.chart(fit, view)


def _tasks(runs: Runs, fit: Fit) -> Chart:
    try:
        return error_against_loss.chart(downstream(runs, interval=fit.level))
    except BitlawError as error:  # many tables have no errors on tasks
        raise NothingToDraw(str(error)) from error


def _parabolas(runs: Runs, fit: Fit) -> Chart:
    try:
        return isoflop_parabolas.chart(isoflop(runs, count=fit.counting, interval=fit.level))
    except BitlawError as error:  # hardly any table is an isoFLOP sweep
        raise NothingToDraw(str(error)) from error


def write_figures(
    folder: str | os.PathLike[str], charts: Sequence[Chart], formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Write charts as files, each whole or not at all, named after their charts, with title and caption as metadata.

    Args:
        folder: made if it is absent.
        charts: what to draw.
        formats: of `svg`, `png` and `pdf`, those wanted.

    Returns:
        The files.

    Raises:
        DataError: a file or the folder cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> from bitlaw.report.chart import Axis, Chart, Points
    >>> chart = Chart("two", "Two runs", "n = 2.", Axis("tokens", "log"), Axis("loss"), (Points([1, 9], [3, 2]),))
    >>> with TemporaryDirectory() as folder:
    ...     [path.name for path in write_figures(folder, [chart], ["svg"])]
    ['two.svg']
    """
    from matplotlib.figure import Figure as Canvas

    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {folder}: {error.strerror}") from error
    written = []
    with style():
        for chart in charts:
            canvas = Canvas()
            draw(canvas.subplots(), chart)
            for kind in formats:
                path = folder / f"{chart.name}.{kind}"
                undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
                about = {"Title": chart.title, "Subject" if kind == "pdf" else "Description": chart.caption}
                with whole(path) as temporary:
                    canvas.savefig(temporary, format=kind, metadata=undated | about)
                written.append(path)
    return written
