"""The verbs that look laws up."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from .common import JsonFlag, print_json

if TYPE_CHECKING:
    from ..laws import Law

laws_app = typer.Typer(no_args_is_help=True, help="The laws: equations, parameters, published constants.")


@laws_app.command("list")
def laws_list(json_: JsonFlag = False) -> None:
    """List the laws that can be fitted, the published constants, and the rules beside them."""
    from ..laws import BESIDE, LAWS, PUBLISHED
    from ..planning.source import why_not_plannable

    why = {name: why_not_plannable(p.law) for name, p in PUBLISHED.items()}
    steps = [name for name, p in PUBLISHED.items() if {"steps", "batch_tokens"} <= set(p.law.columns)]
    paths = {f"{f.__module__}.{f.__name__}": (f.__doc__ or "").splitlines()[0] for f in BESIDE}
    if json_:
        planned = [name for name in PUBLISHED if not why[name]]
        print_json(
            {
                "laws": list(LAWS),
                "published": list(PUBLISHED),
                "planned": planned,
                "planned_by_loss": steps,
                "rules": list(paths),
            }
        )
        return
    for law in LAWS.values():
        print(f"{law.name:22} {len(law.parameters):2} parameters   {law.source}")
    print("\nPublished constants, for `bitlaw plan --law`:")
    for p in PUBLISHED.values():
        if not why[p.name]:
            print(f"{p.name:28} {p.source}")
    print("\nPublished constants, for `bitlaw plan --law` with --params and --loss:")
    for name in steps:
        print(f"{name:28} {PUBLISHED[name].source}")
    print("\nPublished constants of which no plan can be made:")
    for p in PUBLISHED.values():
        if why[p.name] and p.name not in steps:
            print(f"{p.name:28} {p.source}; {why[p.name]}")
    print("\nRules, which are functions:")
    for path, sentence in paths.items():
        print(f"{path:42} {sentence}")


def _of_one_kind(law: Law, other: Law) -> bool:
    """Whether constants of a law are constants of another, or of some of its parts."""
    ours, theirs = law.spec, other.spec
    parts = dict(theirs.precision).items() <= dict(ours.precision).items()
    same = (ours.base, ours.gap, ours.link) == (theirs.base, theirs.gap, theirs.link)
    return same and parts and bool(theirs.precision) == bool(ours.precision)


def _plain(law: Law) -> Law:
    """A law as it was before its labels had constants of their own: one equation instead of one term a label."""
    from ..laws import from_spec

    return (
        from_spec({**law.spec.as_json(), "labels": {}}).named(law.name, law.source)
        if law.spec.labels
        else law
    )


@laws_app.command("show")
def laws_show(
    name: Annotated[str, typer.Argument(help="A law, or published constants.")], json_: JsonFlag = False
) -> None:
    """Print a law's equation, parameters, constants and where it holds."""
    from ..laws import INCOMPLETE, PUBLISHED, get, published
    from ..laws.terms import TARGETS

    constants = published(name) if name.lower() in PUBLISHED else None
    law = constants.law if constants else get(name)
    title, source = (constants or law).name, str(constants.source if constants else law.source)
    plain = _plain(law)
    read = {i.column: (i.symbol, i.meaning) for i in plain.inputs}
    for column in sorted(plain.label_columns):
        known = dict(law.spec.labels).get(column)
        each = f"one of {', '.join(known)}" if known else "each with constants of its own"
        read[column] = ("", f"the label of each row, {each}; bf16 is unquantised")
    domain = tuple(dict.fromkeys(c.sentence for c in law.conditions))
    parts = [x for x in INCOMPLETE if x.law == law.name]
    if json_:
        print_json(
            {
                "name": title,
                "source": source,
                "target": law.target,
                "loss": str(plain.loss + plain.gap),
                "inputs": {column: meaning for column, (_, meaning) in read.items()},
                "parameters": {p.name: p.meaning for p in law.parameters},
                "bounds": {p.name: [p.low, p.high] for p in law.parameters},
                "units": {p.name: p.unit for p in law.parameters},
                "fixed": {p.name: p.fixed for p in law.parameters if p.fixed is not None},
                "conditions": list(domain),
                "values": dict(constants.values) if constants else None,
                "regime": constants.regime if constants else None,
                "fitted": dict(constants.fitted) if constants else None,
                "published_in_part": [{**vars(x), "source": str(x.source)} for x in parts],
            }
        )
        return
    _say(f"{title}: {source}")
    symbol, unit = TARGETS[law.target]
    _say(f"Predicts {law.target}: {symbol}, {unit}." if law.loss != 0 else "Predicts the gap, in nats/token.")
    print()
    for short, expression in plain.display().items():
        _say(f"  {short} = {expression}", 6)
    print("\nReads:")
    for column, (letter, meaning) in read.items():
        _say(f"  {letter!s:12} {column:20} {meaning}", 36)
    print("\nParameters:")
    for p in law.parameters:
        value = f" = {constants.values[p.name]:g}" if constants else ""
        of = f" [{p.unit}]" if p.unit else ""
        each = f"; one for each {p.per}" if p.per else ""
        held = f"; held at {p.fixed:g}" if p.fixed is not None else ""
        scale = f" x middle of {p.scale_of}" if p.scale_of else ""
        _say(f"  {p.name + value:24} {p.meaning}{of}{each}{held}; {p.low:g} to {p.high:g}{scale}", 27)
    print()
    if constants:
        _say(f"Fitted on {constants.regime}.")
        for column, (low, high) in constants.fitted.items():
            _say(f"Fitted range of {column}: {low:g} to {high:g}.")
    else:
        known_as = [p.name for p in PUBLISHED.values() if _of_one_kind(law, p.law)]
        _say(
            f"Published constants: {', '.join(known_as)}."
            if known_as
            else "No constants are published in full."
        )
    for x in parts:
        values = ", ".join(f"{name} = {value:g}" for name, value in x.values.items())
        _say(f"Published in part, for {x.setting}: {values}; {x.missing} ({x.source}). Regime: {x.regime}.")
    for sentence in domain:
        _say(f"Domain: {sentence}.")


def _say(text: str, indent: int = 2) -> None:
    """Print text in lines of 100 characters."""
    first = text[: len(text) - len(text.lstrip())]
    lines = textwrap.wrap(
        text.lstrip(),
        100,
        initial_indent=first,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    print("\n".join(lines))
