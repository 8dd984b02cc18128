"""Write the pages that are made from the code: docs/laws.md and docs/schema.md.

    python docs/generate.py

A test checks that they are what the code says.
"""

from __future__ import annotations

from pathlib import Path

import sympy as sp

from bitlaw.laws import LAWS, PUBLISHED
from bitlaw.laws.terms import GAP, PRECISION
from bitlaw.runs import COLUMNS

HERE = Path(__file__).parent
NOTE = "<!-- Made by docs/generate.py from the code; edit there. -->\n"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def laws() -> str:
    """Every law with its equation, parameters, domain and published constants."""
    out = [NOTE, "# Laws\n"]
    out.append(
        "A law is a base (how loss falls with parameters N and tokens D), what low precision in training does to it, "
        "and what quantising after training adds. Parts compose: "
        '`chinchilla.with_precision(w="kumar").with_gap("kumar")`. '
        "Parameters marked *per* have one value for each label of a column.\n"
    )
    out.append("Not here: mixtures of experts and distillation, whose constants we know from memory only.\n")
    forms = [[name, "precision", (f.__doc__ or "").splitlines()[0]] for name, f in PRECISION.items()]
    forms += [[name, "gap", (f.__doc__ or "").splitlines()[0]] for name, f in GAP.items()]
    out += ["## Forms that compose\n", table(["name", "kind", "what it says"], forms)]
    out.append("## Laws that are fitted by name\n")
    for law in LAWS.values():
        out += [f"### {law.name}\n", f"{law.source}.\n"]
        for short, expression in law.display().items():
            out.append(f"$${sp.latex(sp.Eq(sp.Symbol(short), expression, evaluate=False))}$$\n")
        rows = [
            [
                f"`{p.name}`",
                f"{p.low:g} to {p.high:g}" + (f" x middle of {p.scale_of}" if p.scale_of else ""),
                p.unit,
                p.meaning
                + (f" (per {p.per})" if p.per else "")
                + (f" (held at {p.fixed:g})" if p.fixed is not None else ""),
            ]
            for p in law.parameters
        ]
        out.append(table(["parameter", "bounds", "unit", "meaning"], rows))
        out.append("Reads: " + ", ".join(f"`{i.column}`" for i in law.inputs) + ".\n")
        out += [f"Domain: {sentence}.\n" for sentence in dict.fromkeys(c.sentence for c in law.conditions)]
    out.append("## Published constants\n")
    for p in PUBLISHED.values():
        out += [f"### {p.name}\n", f"{p.source}. Regime: {p.regime}.\n"]
        out.append(table(["parameter", "value"], [[f"`{k}`", f"{v:g}"] for k, v in p.values.items()]))
    return "\n".join(out)


def schema() -> str:
    """Every column of the run table."""
    rows = [
        [
            f"`{c.name}`",
            c.kind,
            c.unit,
            c.range_text() if c.kind in ("integer", "number") else ", ".join(c.choices),
            c.meaning,
        ]
        for c in COLUMNS
    ]
    return "\n".join([NOTE, "# The run table\n", table(["column", "kind", "unit", "range", "meaning"], rows)])


if __name__ == "__main__":
    (HERE / "laws.md").write_text(laws())
    (HERE / "schema.md").write_text(schema())
