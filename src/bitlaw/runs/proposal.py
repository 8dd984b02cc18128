"""What would be made of a source: what was said and what may be guessed, shown before it is done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import polars as pl

from ..errors import ConfigError, nearest
from . import guess
from .check import check_column
from .convert import check_unit, convert, difference
from .mapping import Rule, Said, check_minus, quoted
from .raw import Raw, shown
from .schema import COLUMN

MOST_NATS = 5.0  # a token, of trained models; perplexities are mostly more


@dataclass(frozen=True)
class Proposal:
    """What would be made of a source.

    Attributes:
        rules: one for each of our columns that has something.
        unused: their columns that nothing is made of.
        remarks: what a person should look at.
        examples: of each of our columns, a value as it stands there and what it becomes.
    """

    rules: tuple[Rule, ...]
    unused: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    examples: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def guesses(self) -> tuple[Rule, ...]:
        """Rules that a person must confirm."""
        return tuple(rule for rule in self.rules if rule.guessed)

    def table(self) -> list[dict[str, str]]:
        """Each rule with an example of a cell before and after."""
        return [
            {
                "theirs": (shown(rule.theirs) or "(the same in all rows)")
                + (f" minus {shown(rule.minus)}" if rule.minus else ""),
                "ours": rule.ours,
                "unit": rule.unit or ("values" if rule.values is not None else ""),
                "why": rule.why,
                "before": self.examples.get(rule.ours, ("", ""))[0],
                "after": self.examples.get(rule.ours, ("", ""))[1],
            }
            for rule in self.rules
        ]


def propose(raw: Raw, said: Said, guesses: bool = True) -> Proposal:
    """Put what was said and what may be guessed together.

    Raises:
        ConfigError: a column that there is not, or bits that nobody explained.
    """
    names = raw.frame.columns
    given = [_resolved(rule, names) for rule in said.rules]
    for name in said.ignored - set(names):
        raise ConfigError(f"there is no column {name[:80]!r} to ignore; {nearest(name[:80], names)}")
    taken = {name for rule in given for name in (rule.theirs, rule.minus)}
    done = {rule.ours for rule in given} | said.refused
    free = [name for name in names if name not in taken and name not in said.ignored]
    found = _guessed(raw, free, done) if guesses else []
    found += [
        Rule("loss", rule.theirs, rule.unit, why="guess: what the gap is of")
        for rule in given
        if rule.minus and guesses and "loss" not in {*done, *(other.ours for other in found)}
    ]
    rules = tuple([*given, *found])
    used = {name for rule in rules for name in (rule.theirs, rule.minus)}
    unused = tuple(name for name in names if name not in used)
    asked = [name for name in unused if name not in said.ignored]
    _ask_for_bits(raw, asked, {rule.ours for rule in rules}, said.refused)
    _ask_for_loss(raw, asked, rules)
    return Proposal(rules, unused, tuple(_remarks(raw, rules, unused)), _examples(raw, rules))


def _resolved(rule: Rule, names: list[str]) -> Rule:
    """A rule whose column there is; a unit is split off its name unless a column is called that."""
    if not rule.theirs:
        return rule
    theirs, unit, minus = rule.theirs, rule.unit, rule.minus
    if theirs not in names and not rule.exact:
        head, word, tail = theirs.rpartition(" in ")
        if word and (head.strip() in names or " minus " in head):
            theirs, unit = head.strip(), tail.strip()
        if theirs not in names:
            theirs, _, minus = (part.strip() for part in theirs.partition(" minus "))
            check_minus(rule.ours, minus)
        if unit:
            check_unit(unit, "loss" if minus else rule.ours)
    for name in (theirs, minus):
        if name and name not in names:
            close = nearest(name[:80], names) if names else "it has no columns"
            raise ConfigError(f"there is no column {name[:80]!r} to make {rule.ours} of; {close}")
    return replace(rule, theirs=theirs, unit=unit, minus=minus)


def _guessed(raw: Raw, free: list[str], done: set[str]) -> list[Rule]:
    rules: list[Rule] = []
    done = set(done)
    filled = [name for name in free if raw.frame[name].null_count() < raw.frame.height]
    for ours in [name for name in free if name in COLUMN and name not in done and raw.kind == "table"]:
        if COLUMN[ours].kind != "format" or not guess.has_digits(raw.frame[ours]):
            rules.append(Rule(ours, ours, why="same name"))
    used = {rule.theirs for rule in rules}
    done |= {rule.ours for rule in rules}
    for ours in guess.NAMES:
        ranked = [(guess.rank(name, ours), name) for name in filled if name not in used]
        best = min(((place, name) for place, name in ranked if place is not None), default=None)
        if ours in done or best is None or not _plausible(raw, ours, best[1]):
            continue
        name = best[1]
        unit = guess.unit_of(name, ours, raw.frame[name])
        rules.append(Rule(ours, name, unit, why="guess: by its name" + (" and unit" if unit else "")))
        used.add(name)
    return rules


def _plausible(raw: Raw, ours: str, name: str) -> bool:
    """Whether cells do not speak against a guess by name."""
    series = raw.frame[name]
    if ours == "id":
        return not series.null_count() and not series.is_duplicated().any()
    if COLUMN[ours].kind == "format":
        return guess.format_unit(ours, series) is not None
    return COLUMN[ours].kind == "text" or series.dtype != pl.Boolean


def _ask_for_bits(raw: Raw, unused: list[str], done: set[str], refused: frozenset[str]) -> None:
    """Refuse to lose a column that says how many bits: rows without a format count as 16 bits."""
    asked = []
    for name in unused:
        ours = guess.formats_of(name, raw.frame[name])
        if ours is None or ours in refused:
            continue
        if (
            ours == "w_format" and ours in done and "post_format" not in done
        ):  # one of the two is of something else
            ours = "post_format"
        cells = guess.filled(raw.frame[name]).unique(maintain_order=True)
        if ours in done:
            asked.append(
                f"column {name!r} seems to name formats too, beside that of {ours}: --ignore {name!r} if it says "
                "nothing else"
            )
            continue
        some = ", ".join(shown(cell) for cell in cells.head(5))
        if not guess.has_digits(cells):
            unit = guess.format_unit(ours, cells)
            meant = ", ".join(
                f'{quoted(cell)} = "{guess.meaning(cell)}"' for cell in map(str, cells.head(20))
            )
            file = f"{ours} = {{ column = {quoted(name)}, values = {{ {meant} }} }}"
            how = (
                f"in a mapping file (--map FILE.toml), below its line [columns], perhaps by {file}"
                if unit is None
                else f'by --map "{ours}={name}{unit and f" in {unit}"}"'
            )
            parts = " for each part, w_format and a_format and so on" if guess.is_scheme(cells) else ""
            asked.append(
                f"column {name!r} ({some}) seems to name formats, and rows without one count as 16 bits: say what they "
                f"mean {how}{parts}; or --ignore {name!r}"
            )
            continue
        if asked:
            asked.append(f'column {name!r} ({some}) too: --map "{ours}={name} in int", or --ignore {name!r}')
            continue
        asked.append(
            f"column {name!r} ({some}) seems to give bit widths, but not of which format, and rows without one "
            f'count as 16 bits: add --map "{ours}={name} in int" (4 is int4), "... in fp" (8 is e4m3), '
            f"post_format for quantisation after training, a mapping file with values, or --ignore {name!r}"
        )
    if asked:
        raise ConfigError("; ".join(asked))


def _ask_for_loss(raw: Raw, unused: list[str], rules: tuple[Rule, ...]) -> None:
    """Refuse to guess which of several losses is that of the quantised model."""
    by = {rule.ours: rule for rule in rules}
    loss = by.get("loss")
    if loss is None or not loss.guessed or "post_format" not in by:
        return
    others = [
        name for name in unused if guess.seems_loss(name) and raw.frame[name].null_count() < raw.frame.height
    ]
    if others:
        unit = guess.unit_of(others[0], "loss", raw.frame[others[0]])
        raise ConfigError(
            f"the rows are quantised after training, and {shown(loss.theirs)} and {', '.join(map(shown, others))} may "
            f'be their losses: say which is of the quantised model, like --map "loss={shown(others[0])}'
            f'{unit and f" in {unit}"}", or --ignore the others'
        )


def _examples(raw: Raw, rules: Iterable[Rule]) -> dict[str, tuple[str, str]]:
    out = {}
    for rule in rules:
        if not rule.theirs:
            out[rule.ours] = ("", rule.constant)
            continue
        if rule.minus and raw.frame.height:
            turned, _ = difference(raw.frame[rule.theirs].head(1), raw.frame[rule.minus].head(1), rule.unit)
            before = " minus ".join(shown(raw.frame[name][0]) for name in (rule.theirs, rule.minus))
            out[rule.ours] = (before, shown(turned[0]) or "(empty)")
            continue
        cells = guess.filled(raw.frame[rule.theirs]).head(20)
        if not len(cells):
            continue
        turned, flaws = convert(cells, rule.ours, rule.unit, rule.values)
        turned, more = check_column(COLUMN[rule.ours], turned)
        place = int(turned.is_not_null().arg_max() or 0)
        bad = any(flaw.row == place for flaw in flaws + more)
        after = "(cannot be read)" if bad else shown(turned[place]) or "(empty)"
        out[rule.ours] = (shown(cells[place]), after)
    return out


def _remarks(raw: Raw, rules: tuple[Rule, ...], unused: tuple[str, ...]) -> Iterable[str]:
    by = {rule.ours: rule for rule in rules}
    for ours, least in (("params", 1e3), ("tokens", 1e3)):
        rule = by.get(ours)
        if rule is None or rule.unit or not rule.theirs:
            continue
        largest, _ = check_column(COLUMN[ours], raw.frame[rule.theirs])
        if largest.max() is not None and largest.max() < least:  # type: ignore[operator]
            yield (
                f"{shown(rule.theirs)} is at most {shown(largest.max())}, few for {ours}: "
                f'if it counts billions, say --map "{ours}={shown(rule.theirs)} in B"'
            )
    if "params" in by and "count" not in by:
        yield "how params are counted is not known: --set count=non_embedding (or total, matmul) says it"
    loss = by.get("loss")
    if loss is not None and guess.plain(loss.theirs) == "loss" and raw.kind != "table":
        yield f"{shown(loss.theirs)} may be of the last step's training text; a loss on held-out text is better"
    column, states = guess.states(raw.frame)
    if states and "status" not in by:
        kinds = ", ".join(f"{n} {shown(state)}" for state, n in states.items())
        yield (
            f"{sum(states.values())} of {raw.frame.height} runs are not finished ({kinds}): their last values count as "
            "their ends; "
            f'--map "status={shown(column)} in state" --keep-good leaves them out'
        )
    if "post_format" in by and not {"trunk", "parent"} & by.keys():
        yield (
            "nothing says which run a quantised row was made from, so each counts as a run of its own: "
            '--map "trunk=COLUMN" says it'
        )
    if loss is not None and not loss.unit and loss.theirs:
        typical = check_column(COLUMN["loss"], raw.frame[loss.theirs])[0].median()
        if typical is not None and typical > MOST_NATS:  # type: ignore[operator]
            yield (
                f"{shown(loss.theirs)} is {shown(typical)} in the middle, much for nats per token: if it is a "
                f'perplexity, say --map "loss={shown(loss.theirs)} in ppl"'
            )
    other = [name for name in unused if loss is not None and guess.seems_loss(name)]
    if other:
        yield f"also possible as loss: {', '.join(shown(name) for name in other)}"
