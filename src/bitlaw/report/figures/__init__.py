"""The figures: each is worked out by `figure.chart(...)`, and drawn by `figure(ax, ...)`, which returns `ax`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from ...errors import DataError
from ...files import whole
from ...fitting import Comparison, Fit
from ...planning import Plan
from ...runs import Runs
from ..chart import Chart, NothingToDraw
from ..draw import draw
from ..style import style
from ..view import View
from .base import Figure
from .budgets import compute_optimal, loss_against_bits
from .judged import predicted_against_measured
from .losses import loss_against_tokens
from .precision import effective_parameters, gap_against_ratio

__all__ = [
    "Figure",
    "charts",
    "compute_optimal",
    "effective_parameters",
    "gap_against_ratio",
    "loss_against_bits",
    "loss_against_tokens",
    "predicted_against_measured",
    "write_figures",
]
FORMATS = ("svg", "png", "pdf")


def charts(
    runs: Runs, fit: Fit, *, comparison: Comparison | None = None, plans: Sequence[Plan] = ()
) -> list[Chart]:
    """Every figure that some rows and a fit support, in reading order.

    Args:
        runs: the table the fit was made from.
        fit: the fit.
        comparison: laws ranked on held-out rows.
        plans: decisions.

    Returns:
        The charts; what the rows or the law have nothing of is left out.

    >>> from bitlaw import Runs, fit
    >>> rows = [{"params": n, "tokens": d, "loss": 2 + 400 / n**0.3 + 400 / d**0.3}
    ...         for n in (1e6, 3e6, 1e7) for d in (1e7, 1e8, 1e9)]
    >>> [chart.name for chart in charts(Runs.from_rows(rows), fit("chinchilla", Runs.from_rows(rows)))][0]
    'loss-against-tokens'
    """
    return list(_charts(View.of(runs, fit), comparison, plans))


def _charts(view: View, comparison: Comparison | None, plans: Sequence[Plan]) -> Iterator[Chart]:
    fit = view.fit
    makers: tuple[Callable[[], Chart], ...] = (
        lambda: loss_against_tokens.chart(fit, view),
        lambda: effective_parameters.chart(fit, view),
        lambda: gap_against_ratio.chart(fit, view),
        lambda: compute_optimal.chart(fit, view),
        lambda: loss_against_bits.chart(fit, view),
        lambda: predicted_against_measured.chart(fit, view),
    )
    for make in makers:
        with suppress(NothingToDraw):
            yield make()


def write_figures(
    folder: str | os.PathLike[str], charts: Sequence[Chart], formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Write charts as files, each whole or not at all, named after their charts.

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
                undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
                with whole(path) as temporary:
                    canvas.savefig(temporary, format=kind, metadata=undated)
                written.append(path)
    return written
