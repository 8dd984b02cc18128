"""What a comparison of laws found: entries in rankings, one ranking for each split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ..units import percent
from .result import HeldOut, plain

What: TypeAlias = Literal["loss", "gap"]


@dataclass(frozen=True)
class Entry:
    """One law, or a baseline, in a ranking.

    Attributes:
        name: of the law.
        parameters: number that were fitted; None for a baseline.
        held_out: its errors on the rows held out.
        margin: half the interval of its mean absolute error, from the spread over clusters.
        behind: how much larger that error is than the best one's; None for the best.
        behind_low, behind_high: interval of the same, from paired differences by cluster, all of a ranking at once.
        bic: Bayesian information criterion of a Gaussian fit to all rows; None where it would not be proper.
        beaten: whether the best is clearly better, by differences of errors or, at half the risk, by their ratios:
            of few clusters, differences that all show the same may still vary too much for an interval.
    """

    name: str
    parameters: int | None
    held_out: HeldOut
    margin: float
    behind: float | None
    behind_low: float
    behind_high: float
    bic: float | None = None
    beaten: bool = False


@dataclass(frozen=True)
class Ranking:
    """Laws ranked by their error on one split, best first; baselines stand at the end."""

    what: What
    split: str
    rows: int
    clusters: int
    level: float
    entries: tuple[Entry, ...]
    baselines: tuple[Entry, ...]

    @property
    def verdict(self) -> str:
        """Who wins, that nobody can be said to, or that no law holds."""
        best, *rest = self.entries
        unbeaten = [b.name for b in self.baselines if not b.beaten]
        if unbeaten:
            as_good = any(b.behind is not None and b.behind <= 0 for b in self.baselines)
            start = "No law holds here" if as_good else "No law is shown to hold here"
            order = ", so the order of laws says nothing" if rest else ""
            return (
                f"{start}: at {percent(self.level)} {best.name} is not clearly better than a guess without a law "
                f"({unbeaten[0]}){order}."
            )
        if not rest:
            return f"{best.name} is clearly better than guesses without a law; no other law was fitted."
        ties = [e.name for e in rest if not e.behind_low > 0]
        if ties:
            named = ", ".join(ties[:5]) + (f" and {len(ties) - 5} more" if len(ties) > 5 else "")
            return f"No winner: {best.name} is ahead, but at {percent(self.level)} not clearly of {named}."
        return f"{best.name} predicts the held-out rows best, clearly so at {percent(self.level)}."


@dataclass(frozen=True)
class Comparison:
    """Laws ranked on one or more splits, and what was left out of each.

    `left_out` gives the reason for each law or split that the rows cannot carry.
    """

    rankings: tuple[Ranking, ...]
    left_out: Mapping[str, str]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The entries of the first ranking."""
        return self.rankings[0].entries

    @property
    def verdict(self) -> str:
        """The verdict of every ranking."""
        if len(self.rankings) == 1:
            return self.rankings[0].verdict
        return " ".join(f"Held out {ranking.split}: {ranking.verdict}" for ranking in self.rankings)

    def as_json(self) -> dict[str, Any]:
        """Plain data; NaN becomes None."""

        def entry(e: Entry) -> dict[str, Any]:
            return {
                "name": e.name,
                "parameters": e.parameters,
                "error": e.held_out.error,
                "error_margin": e.margin,
                "bias": e.held_out.bias,
                "outside": e.held_out.outside,
                "behind": e.behind,
                "behind_interval": [e.behind_low, e.behind_high],
                "bic": e.bic,
            }

        return plain(
            {
                "rankings": [
                    {
                        "what": r.what,
                        "split": r.split,
                        "rows": r.rows,
                        "clusters": r.clusters,
                        "interval": {
                            "level": r.level,
                            "method": "Student's t over clusters",
                            "kind": "confidence",
                        },
                        "verdict": r.verdict,
                        "laws": [entry(e) for e in r.entries],
                        "baselines": [entry(e) for e in r.baselines],
                    }
                    for r in self.rankings
                ],
                "left_out": dict(self.left_out),
            }
        )

    def __str__(self) -> str:
        from .tell import comparison_text

        return comparison_text(self)

    def _repr_html_(self) -> str:
        from .tell import comparison_html

        return comparison_html(self)
