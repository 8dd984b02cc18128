"""A planner with sliders: how the best size, tokens and bits move with the budget.

marimo edit planner.py
"""
# ruff: noqa: B018 (the last expression of a cell is what it shows)

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium")


@app.cell
def _():
    import marimo as mo
    import matplotlib.pyplot as plt

    import bitlaw as bl
    from bitlaw.report import figures

    return bl, figures, mo, plt


@app.cell
def _(mo):
    mo.md("""
    # A planner with sliders

    The law is fitted to byte-level transformers of 60k and 220k parameters (`studies/thousandth`). Move the budget, and
    everything below is asked again.
    """)
    return


@app.cell
def _(bl, mo):
    study = mo.notebook_dir().parents[1] / "studies" / "thousandth"
    runs = bl.read_runs(study / "rows.parquet")
    runs
    return (runs,)


@app.cell
def _(bl, runs):
    fit = bl.fit("kumar", runs)
    fit
    return (fit,)


@app.cell
def _(mo):
    budget = mo.ui.slider(12.5, 15, step=0.25, value=14, label="budget, log10 of FLOPs", show_value=True)
    kilobytes = mo.ui.slider(50, 800, step=50, value=200, label="memory, kB", show_value=True)
    mo.hstack([budget, kilobytes])
    return budget, kilobytes


@app.cell
def _(bl, budget, fit):
    bl.plan(fit, budget=10**budget.value)
    return


@app.cell
def _(bl, fit, kilobytes):
    bl.plan(fit, memory=f"{kilobytes.value} kB", tokens="26M", bits=["bf16", "w4", "w3"])
    return


@app.cell
def _(budget, figures, fit, plt, runs):
    _, axis = plt.subplots(figsize=(7, 4))
    figures.loss_against_bits(axis, fit, runs, 10**budget.value)
    return


if __name__ == "__main__":
    app.run()
