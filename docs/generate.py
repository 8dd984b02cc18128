"""Write the pages in docs/ that are made from the code: the reference, and the list of decisions.

    python docs/generate.py

A test checks that they are what the code says.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sympy as sp
import typer

from bitlaw.cli.main import app
from bitlaw.errors import BitlawError
from bitlaw.formats.listing import listing
from bitlaw.laws import BESIDE, INCOMPLETE, LAWS, PUBLISHED, chain, compatible
from bitlaw.laws.spec import BASE
from bitlaw.laws.terms import GAP, PRECISION, TARGETS, TRAINED_PARTS, WHOLE, Form
from bitlaw.planning.hardware import UNITS, profiles
from bitlaw.runs import COLUMNS

HERE = Path(__file__).parent
NOTE = "<!-- Made by docs/generate.py from the code; edit there. -->\n"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def row(name: str, kind: str, form: Form) -> list[str]:
    """One form: what it says, and the bases that it goes with."""
    part = (form.parts or tuple(TRAINED_PARTS))[0]
    asked = (
        (base, {part: name}, None) if kind == "precision" else (base, None, name)
        for base in (*LAWS, "none")
        if base in BASE
    )
    bases = [base for base, precision, gap in asked if not compatible(base, precision, gap)]
    parts = f", for {' and '.join(TRAINED_PARTS[p] for p in form.parts)}" if form.parts else ""
    return [name, kind, (form.make.__doc__ or "").splitlines()[0], ", ".join(bases) + parts]


def equation(short: str, expression: sp.Expr) -> str:
    """LaTeX of an equation, with the million bits of unquantised rows in words."""
    text = sp.latex(sp.Eq(sp.Symbol(short), expression, evaluate=False)).replace("_{eff}", r"_{\text{eff}}")
    return re.sub(rf"for\}}\\: ([^&]*?) < {WHOLE:.1f}", r"for quantised}\\: \1", text)


def source(function: object) -> str:
    """What a function's docstring gives as its source."""
    _, found, rest = (function.__doc__ or "").partition("Source: ")
    return " ".join(rest.split("\n\n")[0].split()) if found else ""


def laws() -> str:
    """Every law with its equation, parameters, domain and published constants."""
    out = [NOTE, "# Laws\n"]
    out.append(
        "A law is a base (how loss falls with parameters N and tokens D), what low precision in training does to it, "
        "and what quantising after training adds. Parts compose: "
        '`chinchilla.with_precision(w="kumar").with_gap("kumar")`. '
        "Parameters marked *per* have one value for each label of a column. "
        "A law in which L stands on both sides is an equation, solved to rounding. "
        "A law that reads a loss is a link, which `chain` puts after a law of the loss: "
        '`chain(get("gadre-error"), chinchilla)` is error on tasks, as a function of N and D.\n'
    )
    out.append(
        "Bounds hold what is searched. A parameter that enters the loss linearly, like E, A and B, is solved for "
        "instead, as the best value of zero or more, and fits do not hold it to its bounds.\n"
    )
    out.append("Not here: mixtures of experts and distillation, whose constants we know from memory only.\n")
    forms = [row(name, "precision", form) for name, form in PRECISION.items()]
    forms += [row(name, "gap", form) for name, form in GAP.items()]
    out += ["## Forms that compose\n", table(["name", "kind", "what it says", "goes with"], forms)]
    out.append(
        "Pairs that mean nothing, like a factor on N in a law without N, are refused with the reason; "
        "`laws.compatible(base, precision, gap)` tells it beforehand.\n"
    )
    out.append("## Laws that are fitted by name\n")
    for law in LAWS.values():
        out += [f"### {law.name}\n", f"{law.source}.\n"]
        if law.target != "loss":
            out.append(f"Predicts `{law.target}`, {TARGETS[law.target][1]}.\n")
        for short, expression in law.display().items():
            out.append(f"$${equation(short, expression)}$$\n")
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
    out.append("## Beside the laws\n")
    out.append("What follows from single laws in closed form, and rules that are not laws.\n")
    beside = [
        [
            f"`{f.__module__.removeprefix('bitlaw.')}.{f.__name__}`",
            (f.__doc__ or "").splitlines()[0],
            source(f),
        ]
        for f in (*BESIDE, chain, compatible)
    ]
    out.append(table(["function", "what it says", "source"], beside))
    out.append("## Published constants\n")
    for p in PUBLISHED.values():
        out += [f"### {p.name}\n", f"{p.source}. Regime: {p.regime}.\n"]
        out.append(table(["parameter", "value"], [[f"`{k}`", f"{v:g}"] for k, v in p.values.items()]))
    out.append("## Constants published in part\n")
    out.append("They say how a law bends; what is missing must be fitted.\n")
    for x in INCOMPLETE:
        out += [f"### {x.law}: {x.setting}\n", f"{x.source}. Regime: {x.regime}. {x.missing}.\n"]
        out.append(table(["parameter", "value"], [[f"`{k}`", f"{v:g}"] for k, v in x.values.items()]))
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


def formats() -> str:
    """Every number format with its cost and its error."""
    header = ["format", "bits", "bpw", "Gaussian error", "effective bits", "status", "meaning", "source"]
    rows = []
    for line in listing():
        error = [f"{line.error:.3g}", f"{line.effective:.2f}"] if line.error else ["", ""]
        rows.append(
            [
                f"`{line.name}`",
                f"{line.bits:g}",
                f"{line.bpw:.3f}",
                *error,
                line.status,
                line.meaning,
                line.source,
            ]
        )
    text = (
        "Bits are nominal, as laws read them; bpw are those of a packed 4096 x 4096 weight with its scales, "
        "one of 16 bits for each output where the format has none of its own. The error is the mean squared "
        "error on Gaussian data of unit variance, at the best scale, or with the scales that blocks would "
        "have; effective bits are log_1/4 of it (Panferov et al. 2025, 2506.01863). Any `intB`, `uintB` and "
        "`midriseB` of up to 16 bits can be named, and any `eXmY` with X up to 7. A recipe adds what shares a "
        "scale and how it is found: `int4 group128 mse`.\n"
    )
    return "\n".join([NOTE, "# Number formats\n", text, table(header, rows)])


def hardware() -> str:
    """Every hardware profile with its figures and where they are from."""

    def scaled(value: float | None, scale: float) -> str:
        return "" if value is None else f"{value / scale:,.4g}"

    rows, origins, faster = [], [], []
    for h in profiles().values():
        rates = h.peak.known()
        held = [scaled(h.memory, 1e9), scaled(h.bandwidth, 1e9)]
        rows.append(
            [f"`{h.name}`", *held, *(scaled(rates.get(unit), 1e12) for unit in UNITS), scaled(h.price, 1)]
        )
        price = f"{h.price_source}, {h.price_date}" if h.price else ""
        origins.append([f"`{h.name}`", h.label, f"{h.source}, {h.date}", price, h.note])
        faster += [[f"`{h.name}`", m.what, m.formats, m.over, f"{m.factor:g}", m.source] for m in h.measured]
    text = (
        "Rates are peaks of dense matrix products in TFLOP/s, by the format of both operands, never the figures with "
        "sparsity, which are twice as large; memory in GB, its bandwidth in GB/s, prices in USD for one device and "
        "hour. An empty cell is one for which we know no source. `bf16` stands for 16-bit floats, `fp8` for E4M3 and "
        "E5M2, `fp4` for E2M1, MXFP4 and NVFP4.\n"
    )
    rule = (
        "Products run on the narrowest unit that holds every operand exactly but for its scales: integers of up to 4 "
        "and 8 bits on `int4` and `int8`, floats that fit into E2M1 on `fp4`, into E4M3 or E5M2 on `fp8`; all of them, "
        "and any mix of integers and floats, on `bf16`. So weights of 4 bits with activations of 16 run at the rate of "
        "16. Where a unit does not exist, or its rate is not known, the next wider is taken, and plans say so.\n"
    )
    own = (
        "Your own file, named in place of a profile, holds tables in the form of "
        "`src/bitlaw/planning/hardware.toml`:\n\n"
        '```toml\n[my-card]\nlabel = "what it is"\nmemory = 24e9\nbandwidth = 1e12\nsource = "where from"\n'
        'date = "2026-11"\n[my-card.peak]\nbf16 = 150e12\nint8 = 300e12\n```\n'
    )
    return "\n".join(
        [
            NOTE,
            "# Hardware\n",
            text,
            table(["hardware", "GB", "GB/s", *UNITS, "USD/h"], rows),
            "## Which unit\n",
            rule,
            "## Measured speed-ups\n",
            "Of real work, which gains less than peaks promise; `Hardware.with_speedups` puts such factors in their "
            "place.\n",
            table(["hardware", "what", "in", "over", "factor", "source"], faster),
            "## Sources\n",
            table(["hardware", "what it is", "figures", "price", "note"], origins),
            "## Your own\n",
            own,
        ]
    )


def verbs(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """A command with its name, then those below it."""
    yield name, command
    for short, below in getattr(command, "commands", {}).items():
        yield from verbs(below, f"{name} {short}")


def argument(parameter: Any) -> str:
    """The name of an argument in a command line; empty for an option."""
    return (parameter.metavar or parameter.name.upper()) if parameter.param_type_name == "argument" else ""


def parameter_row(parameter: Any) -> list[str]:
    """One argument or option: how it is written, what it means, and what it is if not given."""
    names = [argument(parameter)] if argument(parameter) else parameter.opts + parameter.secondary_opts
    meaning = parameter.help + (f" Or `${parameter.envvar}`." if parameter.envvar else "")
    default = names[0] if parameter.default is True else parameter.default
    shown = "" if default is None or default is False else f"`{default}`"
    return [", ".join(f"`{name}`" for name in names), meaning, "required" if parameter.required else shown]


def cli() -> str:
    """Every verb with its arguments, options and defaults, and the exit codes."""
    out = [NOTE, "# The command line\n"]
    out.append(
        "Results go to standard output, progress and errors to standard error. `bitlaw VERB --help` says what stands "
        "here.\n"
    )
    codes = [["0", "Done."], ["1", "An error that nobody foresaw, or a question answered with no."]]
    codes += [[str(e.exit_code), f"`{e.__name__}`: {e.__doc__}"] for e in BitlawError.__subclasses__()]
    codes.append(["130", "Ctrl-C stopped it, or SIGTERM a sweep."])
    out += ["## Exit codes\n", table(["code", "what ended it"], codes)]
    out.append("A flag that does not exist ends with 2 too.\n")
    for name, command in verbs(typer.main.get_command(app), "bitlaw"):
        words = [argument(p) if p.required else f"[{argument(p)}]" for p in command.params if argument(p)]
        words.append("VERB" if hasattr(command, "commands") else "[OPTIONS]")
        out += [f"## {name}\n", f"    {' '.join([name, *words])}\n", f"{command.help}\n"]
        if command.params:
            rows = [parameter_row(p) for p in command.params]
            out.append(table(["argument or option", "meaning", "default"], rows))
    return "\n".join(out)


def sweep_file() -> str:
    """Every key of a sweep's or study's file, with its default."""
    from bitlaw.lab.sweep import SweepConfig
    from bitlaw.study import FitConfig, PlanConfig

    out = [NOTE, "# The sweep file\n"]
    out.append(
        "`bitlaw sweep` and `bitlaw study` read a TOML file: `name`, and these tables. A sweep needs `[sweep]` alone; "
        "`bitlaw study` also fits and plans. Unknown keys are refused. [How to run a sweep](how-to/sweep.md) has an "
        "example.\n"
    )
    for name, model in (("sweep", SweepConfig), ("fit", FitConfig), ("plan", PlanConfig)):
        rows = [
            [
                f"`{key}`",
                "required" if field.is_required() else f"`{written(field.default)}`",
                field.description,
            ]
            for key, field in sorted(model.model_fields.items(), key=lambda item: not item[1].is_required())
        ]
        out += [f"## [{name}]\n", table(["key", "default", "meaning"], rows)]
    return "\n".join(out)


def written(value: Any) -> str:
    """A default as TOML has it; what is absent there is none here."""
    if value is None:
        return "none"
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def decisions() -> str:
    """Every decision by its title, the newest first."""
    titles = {
        path: path.read_text().splitlines()[0].lstrip("# ") for path in (HERE / "decisions").glob("*.md")
    }
    lines = [f"- [{titles[path]}](decisions/{path.name})" for path in sorted(titles, reverse=True)]
    text = (
        "A choice that was not obvious has half a page here: what was chosen, and why. What was measured is in the "
        "[log](log.md).\n"
    )
    return "\n".join([NOTE, "# Decisions\n", text, *lines]) + "\n"


def pages() -> dict[str, str]:
    """Every generated page by its path in docs/."""
    sys.path.insert(0, str(HERE))
    import reference

    made = {
        "cli.md": cli(),
        "decisions.md": decisions(),
        "formats.md": formats(),
        "hardware.md": hardware(),
        "laws.md": laws(),
        "schema.md": schema(),
        "sweep-file.md": sweep_file(),
        "api/index.md": f"{NOTE}\n{reference.front()}",
    }
    return made | {
        f"api/{name}.md": f"{NOTE}<!-- fmt: off -->\n\n{reference.room(name)}" for name in reference.ROOMS
    }


if __name__ == "__main__":
    for name, text in pages().items():
        (HERE / name).write_text(text)
