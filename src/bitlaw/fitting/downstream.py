"""From loss to errors on tasks, and whether the loss still says all of it once a model is quantised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..errors import ConfigError, FitError, nearest
from ..formats import UNQUANTIZED
from ..laws import Law, get
from ..laws.terms import TRAINED_PARTS
from ..runs import Runs, read_runs
from ..runs.schema import COLUMNS
from .apart import no_law_reads
from .compare import compare
from .estimate import fit
from .objective import Array, student_quantile
from .ranking import Ranking
from .result import Fit, plain
from .rows import clusters, gaps, one_evaluation_set, one_unit
from .split import Split, largest

ERRORS = tuple(c.name for c in COLUMNS if c.name == "error" or c.name.startswith("error_"))
CURVE, LINE = "gadre-error", "error-line"
PLAIN, TRAINED, AFTER, BOTH = "not quantised", "trained in low precision", "quantised after training", "both"
#: What may be of low precision in training, and after it.
IN_TRAINING = (*TRAINED_PARTS, "q", "head", "grad_w")
LATER = ("post", "post_a", "post_kv")
BLOCKS = 50  # refits that a jackknife makes at most: of more trunks, several are left out together
SUFFICIENT, MORE, LESS, OPEN = (
    "sufficient",
    "errs more than its loss says",
    "errs less than its loss says",
    "cannot be told",
)


@dataclass(frozen=True)
class Effect:
    """How far rows lie off the curve that the loss of unquantised rows says.

    Attributes:
        kind: `trained in low precision`, `quantised after training` or `both`.
        name: which formats, and by which method; empty for all of the kind.
        rows: that the mean is of.
        trunks: that these descend from.
        beyond: rows that are left out of it, as no unquantised row has a loss so high, or so low.
        gap: by how much quantising these raised their loss, the mean where it is known: of copies that lost nothing,
            the verdict says nothing either.
        mean: error less what the curve says at the same loss, a share.
        low, high: its confidence interval; NaN where there is none.
        verdict: `sufficient`, `errs more than its loss says`, `errs less than its loss says` or `cannot be told`.
    """

    kind: str
    name: str
    rows: int
    trunks: int
    beyond: int
    gap: float
    mean: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True)
class Downstream:
    """What the loss says of an error.

    Attributes:
        error: the column.
        curve: Err(L) = epsilon - k exp(-gamma L), fitted to unquantised rows.
        line: the straight line through the same rows.
        held_out: both laws on rows held out, fitted without them; None where none can be.
        effects: of each kind of low precision, then of each format and method.
        margin: mean residuals within this are none that matter, a share.
        level: of the intervals.
        notes: what was left out, or should be known.
        points: every row: `id`, `loss`, `error`, `kind`, `name`, whether it is `inside` the range of losses that were
            fitted, and whether it was `held` out.
    """

    error: str
    curve: Fit
    line: Fit
    held_out: Ranking | None
    effects: tuple[Effect, ...]
    margin: float
    level: float
    notes: tuple[str, ...]
    points: pl.DataFrame

    @property
    def verdict(self) -> str:
        """Whether the loss is a sufficient statistic, for each kind of low precision in one sentence."""
        from .tell_downstream import downstream_verdict

        return downstream_verdict(self)

    @property
    def best(self) -> Fit:
        """The line where it predicts held-out rows better, else the curve."""
        first = self.held_out.entries[0].name if self.held_out else CURVE
        return self.line if first == LINE else self.curve

    def as_json(self) -> dict[str, Any]:
        """Plain data; NaN becomes None."""
        laws = {"curve": self.curve, "line": self.line}
        held = self.held_out and {
            "split": self.held_out.split,
            "rows": self.held_out.rows,
            "verdict": self.held_out.verdict,
            "laws": [
                {"name": e.name, "error": e.held_out.error, "bias": e.held_out.bias}
                for e in (*self.held_out.entries, *self.held_out.baselines)
            ],
        }
        return plain(
            {
                "error": self.error,
                "interval": {"level": self.level, "method": "jackknife over trunks", "kind": "confidence"},
                "margin": self.margin,
                "verdict": self.verdict,
                **{n: {k: v for k, v in f.as_json().items() if k != "draws"} for n, f in laws.items()},
                "held_out": held,
                "effects": [vars(effect) for effect in self.effects],
                "notes": list(self.notes),
            }
        )

    def __str__(self) -> str:
        from .tell_downstream import downstream_text

        return downstream_text(self)

    def _repr_html_(self) -> str:
        from .tell_downstream import downstream_html

        return downstream_html(self)


def downstream(
    runs: Any,
    error: str = "error",
    *,
    margin: float = 0.01,
    hold_out: Split | None = None,
    interval: float = 0.90,
    draws: int = 400,
    seed: int = 0,
) -> Downstream:
    """Fit error on tasks as a function of the loss, and ask whether quantised models obey it.

        Err(L) = epsilon - k exp(-gamma L)

    The curve is fitted to rows of which no part is of low precision, beside a straight line; both are judged on the
    largest size. Rows trained in low precision, or quantised after training, are then compared with the curve at
    their own loss: were the loss a sufficient statistic, their residuals would be zero on average. Only rows whose
    loss lies among those that were fitted are, so that no extrapolation is judged.

    Intervals of mean residuals are Student's, from a jackknife over trunks (Efron 1982; CR3 of MacKinnon & White
    1985): each trunk is left out of the curve and of the mean at once, so that they hold the doubt of the curve too.
    Those of the kinds of low precision hold all at once, those of single formats one at a time.

    Args:
        runs: whatever `read_runs` reads, with `loss` and errors.
        error: which error, like `error_keyword`; `error` is their mean.
        margin: mean residuals within this are none that matter, a share.
        hold_out: what both laws are judged on; None for the largest size.
        interval: level of the intervals.
        draws: behind the intervals of the constants.
        seed: of starting points and draws.

    Raises:
        ConfigError: no such error, or an impossible level or margin.
        FitError: too few unquantised rows with it, or rows that cannot be compared.

    Source: Gadre et al. 2024, arXiv 2403.08540, section 3.3; the comparison at equal loss is ours.

    >>> from bitlaw import Runs
    >>> def row(n, loss, off=0.0, **more):
    ...     name = f"{n:g}-{loss:.2f}" + more.get("post_format", "")
    ...     return {"id": name, "params": n, "tokens": 1e7, "trunk": f"{n:g}", "loss": loss,
    ...             "error": 0.85 - 2.0 * np.exp(-0.7 * loss) + off, **more}
    >>> losses = [(n, 2.6 + 0.1 * k + 3 / k) for n in (1e6, 2e6, 4e6, 8e6) for k in range(1, 6)]
    >>> rows = [row(n, x) for n, x in losses]
    >>> rows += [row(n, x, 0.03, post_format="int4", method="rtn") for n, x in losses]
    >>> print(downstream(Runs.from_rows(rows)).verdict)
    Quantised after training: errs more than its loss says, by 3.00 points (90%: +3.00 to +3.00).
    """
    if error not in ERRORS:
        raise ConfigError(f"there is no error {error!r}; {nearest(error, ERRORS)}")
    if not 0 < interval < 1 or not 0 < margin < 1:
        raise ConfigError(
            f"level and margin lie between 0 and 1, not {interval} and {margin}; try interval=0.9, margin=0.01"
        )
    table, notes = _usable(read_runs(runs), error)
    frame = table.frame
    kinds, names = _low_precision(table)
    is_plain = kinds == PLAIN
    if not is_plain.any():
        raise FitError(
            "every row is of low precision, and the curve from loss to error is of unquantised models; add some"
        )
    trained = Runs(frame.filter(pl.Series(is_plain)), table.source)
    one_unit(frame, np.ones(len(frame), bool))
    one_evaluation_set(frame, np.ones(len(frame), bool))
    how: dict[str, Any] = {"interval": interval, "draws": draws, "seed": seed}
    curve, line = fit(CURVE, trained, **how), fit(LINE, trained, **how)
    held, why = _judged(trained, hold_out or largest(), interval, seed)
    notes += [*curve.notes, *why]

    loss, errors = (frame[name].to_numpy().astype(float) for name in ("loss", "error"))
    inside = (loss >= loss[is_plain].min()) & (loss <= loss[is_plain].max())
    gap = gaps(frame)[0]
    trunk = clusters(frame)
    block = np.unique(trunk % BLOCKS, return_inverse=True)[1]
    residual, without = _residuals(curve, trained, block, is_plain, loss, errors, seed)
    effects = []
    groups = _groups(kinds, names)
    together = sum(name == "" for _, name, _ in groups)
    for kind, name, mask in groups:
        level = 1 - (1 - interval) / (together if name == "" else 1)
        used = mask & inside
        mean, low, high = _mean(residual, without, used, block, is_plain, level)
        effects.append(
            Effect(
                kind,
                name,
                int(used.sum()),
                len(np.unique(trunk[used])),
                int((mask & ~inside).sum()),
                float(gap[known].mean()) if (known := used & np.isfinite(gap)).any() else math.nan,
                mean,
                low,
                high,
                _verdict(low, high, margin),
            )
        )
    index = list(held.entries[0].held_out.index) if held else []
    points = frame.select("id", "loss", "error").with_columns(
        pl.Series("kind", kinds.tolist()),
        pl.Series("name", names.tolist()),
        pl.Series("inside", inside),
        pl.Series("held", np.isin(np.arange(len(frame)), np.flatnonzero(is_plain)[index])),
    )
    return Downstream(error, curve, line, held, tuple(effects), margin, interval, tuple(notes), points)


def _usable(table: Runs, error: str) -> tuple[Runs, list[str]]:
    """Rows with a loss and the error, which takes the place of `error`; and what was left out, in words."""
    frame = table.frame.filter(pl.col("loss").is_not_null(), pl.col(error).is_not_null())
    notes = []
    if lost := len(table) - frame.height:
        notes.append(f"{lost} rows without a loss or without {error} are left out")
    sparse = (frame["w_sparsity"].fill_null(0.0) > 0).to_numpy()
    if sparse.any():
        notes.append(f"{int(sparse.sum())} rows of sparse weights are left out")
    keep = ~sparse
    for mask, why in no_law_reads(frame):
        keep &= ~mask
        notes.append(why)
    frame = frame.filter(keep)
    if not frame.height:
        raise FitError(f"no row has both a loss and {error}; sweeps of `bitlaw study` write them")
    return Runs(frame.with_columns(pl.col(error).alias("error")), table.source), notes


def _low_precision(table: Runs) -> tuple[NDArray[Any], NDArray[Any]]:
    """For each row what is of low precision: the kind, and formats with the method, each (n,) of text."""
    frame = table.frame
    low = {part: (table.bits(part) < UNQUANTIZED).to_numpy() for part in (*IN_TRAINING, *LATER)}
    before = np.any([low[part] for part in IN_TRAINING], axis=0)
    after = np.any([low[part] for part in LATER], axis=0)
    kinds = np.where(before, np.where(after, BOTH, TRAINED), np.where(after, AFTER, PLAIN)).astype(object)
    names = []
    for k, row in enumerate(frame.iter_rows(named=True)):
        if after[k]:
            words = [
                f"{row['method'] or 'no method named'} {row['post_format'] if low['post'][k] else 'bf16'}"
            ]
            words += [f"{p[5:]} {row[f'{p}_format']}" for p in LATER[1:] if low[p][k]]
        else:
            words = [f"{p} {row[f'{p}_format']}" for p in IN_TRAINING if low[p][k]]
        names.append(", ".join(words))
    return kinds, np.array(names, dtype=object)


def _groups(kinds: NDArray[Any], names: NDArray[Any]) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """Each kind of low precision that there is, then each of its formats: kind, name, rows."""
    there = [kind for kind in (TRAINED, AFTER, BOTH) if (kinds == kind).any()]
    whole: list[tuple[str, str, NDArray[np.bool_]]] = [(kind, "", kinds == kind) for kind in there]
    parts = [
        (kind, name, (kinds == kind) & (names == name))
        for kind in there
        for name in sorted(set(names[kinds == kind]))
    ]
    return whole + parts


def _judged(trained: Runs, split: Split, interval: float, seed: int) -> tuple[Ranking | None, list[str]]:
    """Both laws on rows held out, each fitted without them; or why not."""
    laws: Sequence[Law] = [get(CURVE), get(LINE)]
    try:
        (ranking,) = compare(trained, laws, hold_out=split, interval=interval, seed=seed).rankings
    except FitError as problem:
        return None, [f"no size was held out: {problem}"]
    guesses = tuple(replace(e, name=e.name.replace("loss", "error")) for e in ranking.baselines)
    return replace(ranking, baselines=guesses), []


def _residuals(
    curve: Fit,
    trained: Runs,
    block: NDArray[np.int64],
    is_plain: NDArray[np.bool_],
    loss: Array,
    errors: Array,
    seed: int,
) -> tuple[Array, dict[int, Array | None]]:
    """Residuals of all rows (n,), and the same by curves without each block of trunks; None where there is none."""
    residual = errors - curve.predict(loss=loss)
    without: dict[int, Array | None] = {}
    own = block[is_plain]
    for b in np.unique(own).tolist():
        rest = Runs(trained.frame.filter(pl.Series(own != b)), trained.source)
        try:
            without[b] = errors - fit(CURVE, rest, draws=0, seed=seed).predict(loss=loss)
        except FitError:
            without[b] = None
    return residual, without


def _mean(
    residual: Array,
    without: dict[int, Array | None],
    used: NDArray[np.bool_],
    block: NDArray[np.int64],
    is_plain: NDArray[np.bool_],
    level: float,
) -> tuple[float, float, float]:
    """Mean residual of some rows, and its interval by a jackknife over blocks of trunks."""
    if not used.any():
        return math.nan, math.nan, math.nan
    mean = float(residual[used].mean())
    ours, theirs = np.unique(block[used]), np.unique(block[is_plain])
    if min(len(ours), len(theirs)) < 2 or any(r is None for r in without.values()):
        return mean, math.nan, math.nan
    left = []
    for b in np.union1d(ours, theirs).tolist():
        changed = without.get(b)
        rest = residual if changed is None else changed
        left.append(rest[used & (block != b)].mean())
    spread = math.sqrt((len(left) - 1) / len(left) * float(np.square(np.array(left) - mean).sum()))
    margin = student_quantile(min(len(ours), len(theirs)) - 1, 0.5 + level / 2) * spread
    return mean, mean - margin, mean + margin


def _verdict(low: float, high: float, margin: float) -> str:
    """What an interval of the mean residual says; NaN says nothing."""
    if -margin < low and high < margin:
        return SUFFICIENT
    return MORE if low > 0 else LESS if high < 0 else OPEN
