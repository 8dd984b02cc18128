"""Who clicks? A small model on an embedding table, trained with the table held in any way, and scored by its AUC."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import t as student
from torch import Tensor, nn

from ...errors import LabError
from .auc import auc
from .clicks import Clicks
from .tables import FloatTable, Method, StoredTable, make_table

CLIPS = (0.0625, 0.125, 0.25, 0.5, 1.0)
STEP_RATES = (2e-5, 2e-4, 2e-3)
CHOOSING_SEED = 1_000_003  # of the runs by which clips and rates are chosen; no run that is reported has it


@dataclass(frozen=True)
class Training:
    """What all methods share: vectors of `width`, Adam at `rate`, `epochs` over the rows in batches of `batch`."""

    width: int = 8
    rate: float = 1e-3
    epochs: int = 3
    batch: int = 512


@dataclass(frozen=True)
class Score:
    """One trained model.

    Attributes:
        method: how its table was held.
        seed: of rows, first values, order and rounding.
        auc: on the test rows.
        auc_se: its standard error over these rows (DeLong).
        auc_validation: on the rows to choose by.
        table_bytes: of the table, with steps.
        moment_bytes: of the optimiser's moments for it, which no method compresses.
        lost: share of the updates that were rounded to nothing; None where floats are kept.
        seconds: spent.
        ceiling: AUC of the teacher on the test rows, if there is one.
    """

    method: Method
    seed: int
    auc: float
    auc_se: float
    auc_validation: float
    table_bytes: int
    moment_bytes: int
    lost: float | None
    seconds: float
    ceiling: float | None


class ClickModel(nn.Module):
    """A factorisation machine's pairs and a perceptron of 64 and 32, side by side (as DeepFM, Guo et al. 2017).

        logit = sum_{i<j} <v_i, v_j> + MLP(v_1, ..., v_F)

    Shapes: B rows, F fields, D width.
    """

    def __init__(self, fields: int, width: int) -> None:
        super().__init__()
        self.deep = nn.Sequential(
            nn.Linear(fields * width, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1)
        )

    def forward(self, v_BFD: Tensor) -> Tensor:
        """Return log-odds (B,)."""
        pairs_B = (v_BFD.sum(1).square() - v_BFD.square().sum(1)).sum(1) / 2
        logit_B: Tensor = pairs_B + self.deep(v_BFD.flatten(1)).squeeze(1)
        return logit_B


def train(
    clicks: Clicks,
    method: Method,
    seed: int,
    how: Training | None = None,
    most: int | None = None,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Score:
    """Train one model and score it.

    Args:
        clicks: all rows; three fifths are trained on, a fifth is there to choose by, and a fifth to test on.
        method: how the table is held.
        seed: of the split, first values, order and rounding; methods of one seed share all but the last.
        how: what all methods share.
        most: rows used in all.
        on_rows: told of rows trained on, for progress.

    Raises:
        LabError: training diverged.
    """
    how, began = how or Training(), time.perf_counter()
    trained, validation, test = clicks.split(seed, most)
    chance = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ClickModel(clicks.ids.shape[1], how.width)
    values = 0.05 * torch.randn(clicks.vocabulary, how.width, generator=chance)
    table = make_table(values, method, how.rate, torch.Generator().manual_seed(seed + 1))
    dense = torch.optim.Adam(model.parameters(), lr=how.rate)
    ids_NF, labels_N = torch.from_numpy(trained.ids), torch.from_numpy(trained.labels).float()
    for _ in range(how.epochs):
        for places_B in torch.randperm(len(ids_NF), generator=chance).split(how.batch):
            rows, place_BF = ids_NF[places_B].unique(return_inverse=True)
            labels_B = labels_N[places_B]

            def loss_of(v: Tensor, place_BF: Tensor = place_BF, labels_B: Tensor = labels_B) -> Tensor:
                return F.binary_cross_entropy_with_logits(model(v[place_BF]), labels_B)

            table.learn(rows, loss_of, dense, len(places_B))
            on_rows(len(places_B))
    logit = _logits(model, table, test)
    if not np.isfinite(logit).all():
        raise LabError(f"{method.name} diverged with seed {seed}; try a lower rate than {how.rate:g}")
    value, error = auc(test.labels, logit)
    return Score(
        method,
        seed,
        value,
        error,
        auc(validation.labels, _logits(model, table, validation))[0],
        table.bytes,
        table.moment_bytes,
        table.lost,
        time.perf_counter() - began,
        None if test.teacher is None else auc(test.labels, test.teacher)[0],
    )


@torch.no_grad()
def _logits(model: ClickModel, table: FloatTable | StoredTable, clicks: Clicks) -> np.ndarray:
    parts = [
        model(table.read(ids.flatten()).view(*ids.shape, -1))
        for ids in torch.from_numpy(clicks.ids).split(8192)
    ]
    logit: np.ndarray = torch.cat(parts).numpy()
    return logit


def candidates(method: Method) -> list[Method]:
    """Return a method with each clip and, if its steps are learned, each rate of theirs."""
    if method.way == "float32":
        return [method]
    rates = STEP_RATES if method.way in ("lsq", "alpt") else (method.step_rate,)
    return [replace(method, clip=clip, step_rate=rate) for clip in CLIPS for rate in rates]


def compare(
    data: Callable[[int], Clicks],
    methods: Sequence[Method],
    seeds: Sequence[int],
    how: Training | None = None,
    most: int | None = None,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Iterator[Score]:
    """Train every method with every seed, clips and rates of steps chosen first on validation rows.

    The choice is made once a method, by the AUC on the validation rows of a run with a seed of its own; test rows
    have no part in it.

    Args:
        data: rows of a seed; a function that returns the same rows for all where there is one table.
        methods: how tables are held; their clips and step rates are chosen anew.
        seeds: of the runs that are reported.
        how: what all methods share.
        most: rows used in all.
        on_rows: told of rows trained on, for progress.

    Raises:
        LabError: training diverged.
    """
    clicks = data(CHOOSING_SEED)
    chosen = []
    for method in methods:
        options = candidates(method)
        tried = [
            train(clicks, option, CHOOSING_SEED, how, most, on_rows) for option in options if len(options) > 1
        ]
        chosen.append(max(tried, key=lambda score: score.auc_validation).method if tried else method)
    for seed in seeds:
        clicks = data(seed)
        for method in chosen:
            yield train(clicks, method, seed, how, most, on_rows)


def runs_needed(methods: Sequence[Method], seeds: int) -> int:
    """Models that `compare` trains."""
    tried = [len(candidates(method)) for method in methods]
    return sum(n for n in tried if n > 1) + seeds * len(methods)


@dataclass(frozen=True)
class Line:
    """What the seeds of one method say together; intervals are mean +- half, by Student's t over seeds.

    Attributes:
        method: with the clip and the rate that were chosen.
        auc, auc_half: mean over seeds.
        difference, difference_half: to float32 of the same seed; None without float32.
        table_bytes, moment_bytes, lost: of the mean of the seeds.
    """

    method: Method
    seeds: int
    auc: float
    auc_half: float
    difference: float | None
    difference_half: float | None
    table_bytes: float
    moment_bytes: float
    lost: float | None


def summarise(scores: Sequence[Score], level: float = 0.9) -> list[Line]:
    """Return one line a method, in the order in which methods come."""
    lines = []
    for method in dict.fromkeys(score.method for score in scores):
        own = [score for score in scores if score.method == method]
        apart = paired(scores, method.name, "float32", level) if method.way != "float32" else None
        lost = [score.lost for score in own if score.lost is not None]
        lines.append(
            Line(
                method,
                len(own),
                *mean_interval([score.auc for score in own], level),
                *(apart or (None, None)),
                float(np.mean([score.table_bytes for score in own])),
                float(np.mean([score.moment_bytes for score in own])),
                float(np.mean(lost)) if lost else None,
            )
        )
    return lines


def paired(scores: Sequence[Score], one: str, other: str, level: float = 0.9) -> tuple[float, float] | None:
    """Return how far the AUC of one method lies above another's, as mean and half width over the seeds both have.

    Args:
        scores: of both, and any others.
        one: name of a method, like "alpt int4 stochastic".
        other: of the one it is compared with.
        level: of the interval.
    """
    by = {(score.method.name, score.seed): score.auc for score in scores}
    apart = [
        value - by[other, seed] for (name, seed), value in by.items() if name == one and (other, seed) in by
    ]
    return mean_interval(apart, level) if apart else None


def mean_interval(values: Sequence[float], level: float) -> tuple[float, float]:
    """Return the mean of independent values and half the width of Student's interval for it; infinite for one value.

    >>> mean, half = mean_interval([1.0, 2.0, 3.0], 0.9)
    >>> round(mean, 2), round(half, 2)
    (2.0, 1.69)
    """
    n = len(values)
    if n < 2:
        return float(np.mean(values)), math.inf
    return float(np.mean(values)), float(
        student.ppf((1 + level) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n)
    )
