"""A simulated study with everything that the figures of the precision paper need, drawn from the law itself."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any

import numpy as np
from conftest import TRUTH

from bitlaw import Runs
from bitlaw.formats import Recipe, law_bits
from bitlaw.laws import kumar_unified

SIZES = (30e6, 60e6, 110e6, 220e6)
TOKENS = (1.5e9, 3e9, 6e9, 13e9)
EQUAL = {"e2m1": 1.76e9, "e3m2": 1.17e9, "e4m3": 880e6, "bf16": 440e6, "fp32": 220e6}
PARTS = ("w", "a", "kv")
METHODS = {"gptq": 1.0, "rtn": 1.6, "awq": 1.3}  # factors on the gap
COSINE = 1.5  # another, of the schedule
CELLS: list[dict[str, str]] = [
    {},
    *({"w": f"int{b} channel"} for b in (3, 4, 5, 6, 8, 10, 12)),
    *({"a": f"int{b} tensor"} for b in (4, 5, 6, 8, 12)),
    *({"kv": f"int{b} tensor"} for b in (3, 4, 5, 6, 8)),
    {"w": "int4 channel", "a": "int8 tensor"},
    {"w": "int8 channel", "a": "int8 tensor"},
    *(
        {"w": f"int{b} channel", "a": f"int{b} tensor", "kv": f"int{b} tensor"}
        for b in (4, 6, 8)
    ),
]  # fmt: skip
FORMATS: list[dict[str, str]] = [
    *(
        {"w": name}
        for name in ("e2m0", "e3m0", "e3m1", "e3m2", "e4m2", "e5m2", "e5m6", "e1m3", "e2m3", "e3m3", "e4m3")
    ),
    *({"w": name} for name in ("e3m4", "mxfp4", "nvfp4")),
    {"w": "mxfp4", "a": "mxfp4"},
    *({"a": f"int{b} token"} for b in (4, 6, 8)),
    *({"w": f"int{b} tensor"} for b in (3, 4, 6)),
]


def row(params: float, tokens: float, cell: dict[str, str], noise: float, **more: Any) -> dict[str, Any]:
    """A row before quantisation, with its exact loss times noise."""
    formats, bits = {}, {}
    for part, text in cell.items():
        recipe = Recipe.parse(text, "channel" if part == "w" else "tensor")
        formats |= {f"{part}_format": recipe.format.name, f"{part}_granularity": recipe.granularity}
        bits[f"{part}_bits"] = law_bits(recipe.format)
    loss = float(kumar_unified.predict(TRUTH, params=params, tokens=tokens, **bits)) * noise
    return {"params": params, "tokens": tokens, "loss": loss, **formats, **more}


@cache
def full_grid(seed: int = 0, noise: float = 0.002) -> Runs:
    """The study: a grid in every part, mixtures, floats, granularities, three methods, two schedules, equal N P."""
    rng = np.random.default_rng(seed)

    def near() -> float:
        return float(np.exp(noise * rng.standard_normal()))

    rows: list[dict[str, Any]] = []
    for n, cell in product(SIZES, CELLS):
        for d in TOKENS:
            rows.append(row(n, d, cell, near(), schedule="constant", cooldown=0.2))
            rows[-1] |= {"trunk": f"{n:g} {cell}"}
    for d, cell in product(TOKENS, FORMATS):
        rows.append(
            row(SIZES[0], d, cell, near(), schedule="constant", cooldown=0.2, trunk=f"formats {cell}")
        )
    rows += [
        row(n, d, {}, near(), schedule="cosine", trunk=f"c{n:g} {d:g}") for n in SIZES[:3:2] for d in TOKENS
    ]
    for name, n in EQUAL.items():
        rows.append(
            row(n, 16e9, dict.fromkeys(PARTS, name) if name[0] == "e" else {}, near(), trunk=f"equal {name}")
        )
    for k, parent in enumerate(rows):
        parent["id"] = f"run-{k}"
    after = []
    for parent in rows:
        low = [part for part in PARTS if f"{part}_format" in parent]
        if parent["trunk"].startswith(("formats", "equal")) or low not in ([], ["w"]):
            continue
        trained = {f"{p}_bits": float(parent[f"{p}_format"].removeprefix("int")) for p in low}
        for bits, (method, factor) in product((2, 3, 4, 6), METHODS.items()):
            if min(trained.values(), default=99) <= bits or (low and method == "awq"):
                continue
            size = {"params": parent["params"], "tokens": parent["tokens"]}
            gap = float(kumar_unified.predict_gap(TRUTH, **size, **trained, post_bits=float(bits))) * factor
            gap *= COSINE if parent["schedule"] == "cosine" else 1.0
            se = 0.03 * gap + 1e-5
            gap += se * float(rng.standard_normal())
            after.append(
                parent
                | {
                    "id": f"{parent['id']}-{method}{bits}",
                    "parent": parent["id"],
                    "post_format": f"int{bits}",
                }
                | {"method": method, "gap": gap, "gap_se": se, "loss": parent["loss"] + gap}
            )
    return Runs.from_rows(rows + after)
