"""What the planner panel of a page needs: the law's constants and draws, the formats to choose among, the ranges.

The panel answers in the browser what `plan` answers with budget, size, formats and tokens served; planner.js has the
same costs (planning/cost.py), the same search and the same ranges. A test moves every control and compares.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..fitting import Fit
from ..fitting.tell import draws_text
from ..laws import Law, Published
from ..laws.terms import PARTS
from ..planning.choice import POST_BITS, Choice, chosen
from ..planning.source import Source, sensible_budget, why_not_plannable

MOST_DRAWS = 1000
BITS = range(2, 16)  # of a part trained in low precision; 16 is unquantised
FORMATS = ("int2", "int3", "int4", "int6", "int8", "mxfp4", "nvfp4", "e4m3", "e5m2")
TOLERANCE = 0.01  # share of the reducible loss, as `plan` has it by default


def panel_data(
    law: Fit | Published, *, command: Sequence[str], budget: float | None = None
) -> dict[str, Any]:
    """Gather what the planner panel reads, as plain data for JSON.

    Args:
        law: a fit, or published constants.
        command: the words that plan with it, like `["bitlaw", "plan", "--fit", "fit.json"]`; the panel adds to them.
        budget: training cost that it begins with, in 16-bit FLOPs; `sensible_budget` by default.

    Returns:
        The data; the law's functions are `laws.javascript.javascript(law.law)`.

    Raises:
        ConfigError: a law that says nothing of the loss at a size and a number of tokens.

    >>> from bitlaw.laws import published
    >>> data = panel_data(published("kumar-2024"), command=["bitlaw", "plan", "--law", "kumar-2024"])
    >>> [control["part"] for control in data["controls"]]
    ['w', 'a', 'kv', 'post']
    """
    of = law.law
    if reason := why_not_plannable(of):
        raise ConfigError(f"{of.name} has no panel: {reason}")
    source = Source.of(law, 0.9)
    (plain,) = chosen(of, None, None)
    drawn = source.theta[1:][:MOST_DRAWS] if source.drawn else source.theta[:0]
    start = budget or sensible_budget(source.ranges)
    low, high = source.ranges.get("params", (1e6, 1e9))
    few, many = source.ranges.get("tokens", (2e7, 2e10))
    return {
        "law": source.name,
        "columns": list(of.columns),
        "base": dict(plain.columns),
        "theta": source.theta[0].tolist(),
        "draws": base64.b64encode(np.ascontiguousarray(drawn, dtype="<f8").tobytes()).decode(),
        "level": law.level if isinstance(law, Fit) else None,
        "method": draws_text(law) if isinstance(law, Fit) else "",
        "drawn": len(drawn),
        "count": law.count if isinstance(law, Fit) else "",
        "floors": [of.names.index(name) for name in of.floors],
        "turns": source.turns,
        "gap": of.gap != 0,
        "tolerance": TOLERANCE,
        "sentences": [c.sentence for c in of.conditions],
        "ranges": {name: list(pair) for name, pair in source.ranges.items()},
        "controls": controls(of, plain),
        "budget": _decades(start, start / 1e3, start * 1e4),
        "params": _decades(math.sqrt(low * high), low / 10, high * 1e3),
        "served": _decades(many, few, many * 1e4),
        "command": list(command),
    }


def controls(law: Law, plain: Choice) -> list[dict[str, Any]]:
    """The formats that can be chosen: of each part by its bits, or of all parts by name; and after training."""
    found = []
    if {"w", "a"} <= set(law.parts) <= set(PARTS) and all(f"{p}_bits" in law.columns for p in law.parts):
        if law.reads_bits:
            found += [_part(law, plain, part) for part in law.parts]
    elif law.parts:
        found.append({"part": "all", "label": "Formats in training", "options": _named(law, plain)})
    if law.gap != 0:
        labels = dict(law.spec.labels).get("post_format")
        options = [{**_option(plain, plain), "name": "none", "label": "none"}]
        for choice in chosen(law, None, list(labels or (f"int{b}" for b in POST_BITS))):
            name = choice.name.partition("then ")[2]
            columns = {k: v for k, v in choice.columns.items() if v != plain.columns[k]}
            bits = 16 * choice.serve
            option = {"name": name, "label": name, "columns": columns, "bits": bits, "bpw": choice.bpw}
            options.append(option)
        found.append({"part": "post", "label": "Weights after training", "options": options})
    return found


def _part(law: Law, plain: Choice, part: str) -> dict[str, Any]:
    options = [
        {**_option(c, plain), "bits": b, "label": f"{b} bits"}
        for b, c in zip(BITS, chosen(law, [f"{part}{b}" for b in BITS], None), strict=True)
    ]
    label = PARTS[part]
    return {
        "part": part,
        "label": label[:1].upper() + label[1:],
        "options": [*options, {**_option(plain, plain), "name": "", "label": "16 bits"}],
    }


def _named(law: Law, plain: Choice) -> list[dict[str, Any]]:
    labels = [known for column, known in law.spec.labels if column != "post_format"]
    options = []
    for name in dict.fromkeys(name for known in labels for name in known) or FORMATS:
        for words in (name, f"{name} group128"):
            try:
                (choice,) = chosen(law, words, None)
            except ConfigError:  # the law reads more of a format than its name tells, or cannot read it
                continue
            options.append(_option(choice, plain))
            break
    return [*options, {**_option(plain, plain), "name": "bf16", "label": "bf16"}]


def _option(choice: Choice, plain: Choice) -> dict[str, Any]:
    return {
        "name": choice.name,
        "label": choice.name,
        "columns": {k: v for k, v in choice.columns.items() if v != plain.columns[k]},
        "bits": choice.bits,
        "bpw": choice.bpw,
        "train": choice.train,
    }


def _decades(start: float, low: float, high: float) -> dict[str, float]:
    """Ends of a slider on a logarithmic scale, and where it stands at first, to three digits."""
    return {
        "low": 10.0 ** math.floor(math.log10(low)),
        "high": 10.0 ** math.ceil(math.log10(high)),
        "start": float(f"{start:.3g}"),
    }
