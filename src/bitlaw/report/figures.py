"""The figures. Each takes a fit, rows and an `ax`, draws on it and returns it."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from ..errors import LawError
from ..fitting import Fit
from ..formats import UNQUANTIZED
from ..laws.terms import PARTS
from ..planning import frontier, plan
from ..units import format_quantity
from .style import COLOURS, GREY, MARKERS
from .view import View

_QUANTITY = FuncFormatter(lambda value, _: format_quantity(value))


def loss_against_tokens(ax: Axes, fit: Fit, view: View, params: float | None = None) -> Axes:
    """Loss against training tokens, one line per weight precision, at one size; the fit runs through."""
    trained = view.weights_only()
    size = float(trained["params"].to_numpy().max()) if params is None else params
    rows = trained.filter(pl.col("params") == size)
    tokens = rows["tokens"].to_numpy()
    grid = np.geomspace(tokens.min(), tokens.max(), 60)
    for k, bits in enumerate(rows["w_bits"].unique().sort()):
        points = rows.filter(pl.col("w_bits") == bits)
        colour = COLOURS[k % len(COLOURS)]
        ax.plot(points["tokens"], points["loss"], MARKERS[k % len(MARKERS)], color=colour, label=_bits(bits))
        inputs = {"w_bits": bits} if "w" in fit.law.parts else {}
        with suppress(LawError):  # bits below the fitted law's domain have points but no curve
            ax.plot(grid, fit.predict(params=size, tokens=grid, **inputs), "-", color=colour)
    ax.set(xscale="log", xlabel="training tokens", ylabel="loss, nats per token")
    _plain_ticks(ax, rows["tokens"].unique().to_list())
    ax.set_title(f"Loss against tokens at {format_quantity(size, 'params')}, by bits of the weights")
    ax.legend(title="weights")
    return ax


def effective_parameters(ax: Axes, fit: Fit, view: View) -> Axes:
    """Share of parameters that count, against bits, for each part; dots are single runs.

    A run's dot compares it with the fitted 16-bit loss at its own size and tokens (Kumar et al. 2024,
    equation 30): f = [ (L - L_16) / A + N^-alpha ]^(-1/alpha) / N.
    """
    values = fit.values
    base = {"params": view.trained["params"].to_numpy(), "tokens": view.trained["tokens"].to_numpy()}
    full = fit.predict(**base)
    for k, part in enumerate(part for part in PARTS if f"{part}_bits" in fit.law.columns):
        colour = COLOURS[k]
        others = [other for other in PARTS if other != part]
        alone = pl.all_horizontal([pl.col(f"{other}_bits") == UNQUANTIZED for other in others])
        mask = view.trained.select(alone & (pl.col(f"{part}_bits") < UNQUANTIZED)).to_series().to_numpy()
        bits = view.trained[f"{part}_bits"].to_numpy()[mask]
        if not len(bits):
            continue
        excess = (view.trained["loss"].to_numpy() - full)[mask] / values["A"]
        sizes = base["params"][mask]
        with np.errstate(invalid="ignore"):
            dots = (excess + sizes ** -values["alpha"]) ** (-1 / values["alpha"]) / sizes
        ax.plot(bits + 0.06 * (k - 1), dots, MARKERS[k], color=colour, alpha=0.45, markersize=3.5, mew=0)
        grid = np.linspace(max(1.5, bits.min() - 0.5), 16, 200)
        curves = _factor(fit, part, grid)
        tail = (1 - fit.level) / 2
        ax.plot(grid, curves[0], color=colour, label=PARTS[part])
        if len(curves) > 2:
            low, high = np.quantile(curves[1:], [tail, 1 - tail], axis=0)
            ax.fill_between(grid, low, high, color=colour, alpha=0.15, lw=0)
    ax.axhline(1, color=GREY, lw=0.8, ls=":")
    ax.set(xlabel="bits in training", ylabel="effective / actual parameters", ylim=(0, 1.6))
    ax.set_title("Effective parameters by part")
    ax.legend(loc="lower right")
    return ax


def gap_against_ratio(ax: Axes, fit: Fit, view: View) -> Axes:
    """Gap after training against tokens per parameter, one colour per bits; bars are standard errors."""
    rows = view.quantized
    ratios = (rows["tokens"] / rows["params"]).to_numpy()
    low, high = 0.9 * float(ratios.min()), 1.1 * float(ratios.max())
    sizes = rows["params"].unique().sort().to_list()
    for k, bits in enumerate(rows["post_bits"].unique().sort()):
        points = rows.filter(pl.col("post_bits") == bits)
        colour = COLOURS[k % len(COLOURS)]
        for size in sizes:
            some = points.filter(pl.col("params") == size).sort("tokens")
            ratio = (some["tokens"] / some["params"]).to_numpy()
            error = some["gap_se"].fill_null(0).to_numpy()
            label = f"{bits:g} bits" if size == sizes[0] else None
            ax.errorbar(
                ratio,
                some["gap"],
                error,
                fmt=MARKERS[sizes.index(size) % len(MARKERS)],
                color=colour,
                lw=0.8,
                label=label,
            )
            if fit.law.gap != 0 and "post_bits" in fit.law.columns:
                seen = some["tokens"].to_numpy()
                tokens = np.geomspace(seen.min(), seen.max(), 20)
                curve = fit.law.predict_gap(fit.values, params=size, tokens=tokens, post_bits=bits)
                ax.plot(tokens / size, curve, "-", color=colour, lw=1)
                low_gap, high_gap = fit.band("gap", params=size, tokens=tokens, post_bits=bits)
                ax.fill_between(tokens / size, low_gap, high_gap, color=colour, alpha=0.12, lw=0)
    smallest = float(np.abs(rows["gap"].to_numpy()).min())
    ax.set_yscale("symlog", linthresh=max(1e-3, smallest), linscale=0.5)
    ax.set(
        xscale="log", xlabel="training tokens per parameter", ylabel="gap after quantisation, nats per token"
    )
    _plain_ticks(
        ax, [r for r in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 1e4, 1e5) if low <= r <= high]
    )
    ax.set_title("What quantising the weights after training costs (one marker per size)")
    ax.legend(title="after training", loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def compute_optimal(ax: Axes, fit: Fit, view: View) -> Axes:
    """Best parameters, tokens and bits against the budget, with intervals."""
    largest = view.largest_cost()
    budgets = np.geomspace(largest / 10, largest * 10, 5)
    best = frontier(fit, budgets.tolist(), fit.level)
    for k, name in enumerate(("params", "tokens")):
        value, low, high = best[name].T
        ax.plot(budgets, value, color=COLOURS[k], marker=MARKERS[k], label=name)
        ax.fill_between(budgets, low, high, color=COLOURS[k], alpha=0.15, lw=0)
    ax.axvline(largest, color=GREY, lw=0.8, ls=":")
    ax.text(largest, 0.02, " largest run", transform=ax.get_xaxis_transform(), color=GREY, fontsize=8)
    ax.set(xscale="log", yscale="log", xlabel="budget, 16-bit FLOPs", ylabel="best params, tokens")
    ax.yaxis.set_major_formatter(_QUANTITY)
    ax.legend(loc="upper left")
    title = "Compute-optimal parameters and tokens"
    if fit.law.reads_bits:
        twin = ax.twinx()
        value, low, high = best["bits"].T
        twin.plot(budgets, value, color=COLOURS[2], marker=MARKERS[2], lw=1, label="bits")
        twin.vlines(budgets, low, high, color=COLOURS[2], lw=1)
        twin.set(ylabel="best bits", ylim=(0, 16))
        twin.spines["right"].set_visible(True)
        twin.grid(False)
        twin.legend(loc="lower right")
        title += ", and bits"
    ax.set_title(title)
    return ax


def loss_against_bits(ax: Axes, fit: Fit, budget: float) -> Axes:
    """The best loss a budget buys against bits: where the optimum is, and how flat."""
    answer = plan(fit, budget=budget, interval=fit.level)
    bits = [o.bits for o in answer.options]
    ax.plot(bits, [o.loss for o in answer.options], color=COLOURS[0], marker=MARKERS[0])
    best = answer["bits"]
    ax.axvspan(best.near_low, best.near_high, color=GREY, alpha=0.12, lw=0)
    ax.axvline(best.value, color=GREY, lw=0.8, ls=":")
    ax.set(xlabel="bits of all parts in training", ylabel="best loss, nats per token")
    ax.set_title(f"What {format_quantity(budget, 'flops')} buys, by bits (shaded: near-optimal)")
    return ax


def predicted_against_measured(ax: Axes, fit: Fit, view: View) -> Axes:
    """Signed error of the prediction against the measured loss; held-out rows come from a fit without them."""
    rows = view.trained
    inputs = {i.column: rows[i.column].to_numpy() for i in fit.law.inputs}
    measured = rows["loss"].to_numpy()
    theta = fit.law.vector(fit.values)
    predicted = fit.law.compiled.total(theta, fit.law.arrange(inputs))
    ax.plot(
        measured,
        100 * (predicted / measured - 1),
        MARKERS[0],
        color=COLOURS[0],
        alpha=0.6,
        mew=0,
        label="fitted",
    )
    if fit.held_out:
        losses = view.losses[list(fit.held_out.index)]
        ax.plot(
            losses,
            100 * np.array(fit.held_out.errors),
            MARKERS[1],
            color=COLOURS[1],
            mfc="none",
            label=f"held out: {fit.held_out.split}",
        )
    ax.axhline(0, color=GREY, lw=0.8)
    ax.set(xlabel="measured loss, nats per token", ylabel="predicted minus measured, %")
    ax.set_title("Predicted against measured")
    ax.legend()
    return ax


def _plain_ticks(ax: Axes, at: list[float]) -> None:
    """Put plain numbers at a few places of a log axis; powers of ten say little over one decade."""
    ax.set_xticks(at)
    ax.xaxis.set_major_formatter(_QUANTITY)
    ax.xaxis.set_minor_locator(NullLocator())


def _factor(fit: Fit, part: str, bits: np.ndarray) -> np.ndarray:
    """The factor of a part at the estimate and in every draw (1 + draws, n)."""
    theta = np.concatenate([fit.law.vector(fit.values)[None], fit.draws])
    data = fit.law.arrange({"params": 1.0, "tokens": 1.0, f"{part}_bits": bits})
    return fit.law.compiled.n_eff(theta, data)


def _bits(bits: float) -> str:
    return "16-bit" if bits == UNQUANTIZED else f"{bits:g} bits"
