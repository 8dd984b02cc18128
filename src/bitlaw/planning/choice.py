"""What a plan chooses among: formats in training and in serving, what a law reads of them, and what they cost."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import product
from typing import Any, TypeAlias

from ..errors import ConfigError, DataError
from ..formats import UNQUANTIZED, Format, Native, Recipe, Scheme, law_bits, parse_format
from ..formats.listing import SHAPE
from ..laws import Law
from ..laws.terms import PARTS, TRAINED_PARTS
from ..runs import Runs
from .cost import train_work

#: What matrix products cost in formats of their operands, in those of 16 bits.
Pace: TypeAlias = Callable[[Format, Format], float]
#: Formats as a question names them: one, several, "any" or "each".
Formats: TypeAlias = str | int | Sequence[str | int]

WHOLE_BITS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 16)  # of all parts, compared where bits are free
PART_BITS = (3, 4, 5, 6, 7, 8, 10, 12)  # of each part, where each is free, beside none
#: What a format tells, if it is of the right kind.
GRID = ("bits", "capacity", "exponent", "mantissa", "group")
#: What a law reads besides formats.
SIZES = ("params", "tokens", "unique_tokens", "steps", "batch_tokens")
POST_BITS = (2, 3, 4, 5, 6, 7, 8)  # of weights after training
_PARTS = re.compile(r"((kv|w|a)\d+)+")
FULL = Recipe(Native("bf16", 16))


def by_bits(one: Format, other: Format) -> float:
    """Products cost in proportion to bits, those of the wider operand (Kumar et al. 2024, section 4.3).

    >>> by_bits(parse_format("int4"), parse_format("int8"))
    0.5
    """
    return max(one.bits, other.bits) / 16


@dataclass(frozen=True)
class Choice:
    """One option.

    Attributes:
        name: in words.
        columns: what the law reads of it.
        train: what a FLOP of training costs, in FLOPs of 16 bits.
        serve: the same of a FLOP of serving.
        bits: of the weights in training, as costs count them.
        post_bits: of the weights after training, as the law reads them.
        bpw: bits a served weight takes, scales included.
        kv_bits: bits a served key or value takes, scales included.
        scheme: formats in training.
        post: recipe of the weights after it; None where they stay as they were trained.
        untold: parts of low precision that the law says nothing of.
        said: what has to be said of its costs.
    """

    name: str
    columns: Mapping[str, float]
    train: float
    serve: float
    bits: float
    post_bits: float = UNQUANTIZED
    bpw: float = 16.0
    kv_bits: float = 16.0
    scheme: Scheme = Scheme()
    post: Recipe | None = None
    untold: tuple[str, ...] = ()
    said: tuple[str, ...] = ()

    @property
    def silent(self) -> list[str]:
        """What the law says nothing of."""
        return (
            [f"the law says nothing of {' and '.join(self.untold)}: they are taken to lose nothing"]
            if self.untold
            else []
        )

    @property
    def notes(self) -> list[str]:
        """What has to be said of it, costs included."""
        return [*self.silent, *self.said]


@dataclass(frozen=True)
class _Named:
    """Formats in training as they were named: of all parts, or of each."""

    name: str
    scheme: Scheme
    of_all: Recipe | None = None


def tied(law: Law, bits: Sequence[float]) -> tuple[Choice, ...]:
    """All parts that the law knows at some numbers of bits, which cost in proportion to them."""
    columns = _plain(law)
    return tuple(
        Choice(
            name=f"{b:g} bits",
            columns=columns | {f"{part}_bits": b for part in law.parts},
            train=b / 16,
            serve=b / 16,
            bits=b,
            bpw=b,
            kv_bits=b,
            scheme=Scheme.parse("".join(f"{part}{min(16, round(b))}" for part in PARTS)),
        )
        for b in bits
    )


def chosen(
    law: Law,
    bits: Formats | None,
    post: Formats | None,
    kv: str | int | None = None,
    pace: Pace = by_bits,
) -> tuple[Choice, ...]:
    """Read the formats that a question names, and pair each in training with each after it.

    Args:
        law: the law that will read them.
        bits: formats in training: of all parts, like "int8", 8, "bf16" or "int4 group128"; of each, like "w4a8" or
            "w=nvfp4, a=e4m3"; several of these; "any" for whole numbers of bits, or all formats that the law has
            constants for; "each" for every number of bits of each part by itself. None is unquantised.
        post: weights after training, like "int4" or "int4 group128"; several; "any". None leaves them as trained.
        kv: format of keys and values in serving, where it differs.
        pace: what products cost.

    Raises:
        ConfigError: formats that cannot be read, or that the law has no constants for.

    >>> from bitlaw.laws import kumar
    >>> [(c.name, c.train, c.bpw) for c in chosen(kumar, ["int8", "bf16"], None)]
    [('int8', 0.5, 8.00390625), ('bf16', 1.0, 16.0)]
    """
    trained, afters = _trained(law, bits), _after(law, post)
    pairs = [(t, a) for t in trained for a in afters]
    if len(pairs) > 1:  # weights are quantised only to fewer bits than they have
        pairs = [(t, a) for t, a in pairs if a is None or a.format.bits < t.scheme.w.format.bits] or pairs
    rows = [_row(law, t, a) for t, a in pairs]
    served_kv = None if kv is None else _recipe(_checked("kv", kv), "token")
    found = [
        _choice(law, t, a, columns, served_kv, pace)
        for (t, a), columns in zip(pairs, _columns(law, rows), strict=True)
    ]
    return tuple({c.name: c for c in found}.values())


def within(choices: Sequence[Choice], most: float) -> tuple[Choice, ...]:
    """Choices whose weights have at most so many bits, after training where they are quantised then.

    Raises:
        ConfigError: there are none.
    """
    kept = tuple(c for c in choices if min(c.bits, c.post_bits) <= most)
    if not kept:
        raise ConfigError(
            f"none of {', '.join(c.name for c in choices)} is of at most {most:g} bits; raise max_bits"
        )
    return kept


# ---- what was named


def _trained(law: Law, bits: Formats | None) -> list[_Named]:
    if bits == "each":
        if not law.reads_bits:
            raise ConfigError(f"{law.name} does not read bits, so parts cannot have numbers of their own")
        options = [[*(f"{p}{b}" for b in PART_BITS), ""] for p in PARTS if p in law.parts]
        names = ["".join(words) or "16" for words in product(*options)]
        return [_Named(name, Scheme.parse(name)) for name in names]
    if bits == "any":
        columns = [known for column, known in law.spec.labels if column != "post_format"]
        labels = dict.fromkeys(name for known in columns for name in known)
        bits = [*(labels or (b for b in WHOLE_BITS if b < 16)), "bf16"]
    return [_named(name) for name in _several("bits", "bf16" if bits is None else bits)]


def _named(name: str | int) -> _Named:
    text = str(name).strip()
    if "=" in text or _PARTS.fullmatch(text):
        scheme = Scheme.parse(text)
        return _Named(scheme.name, scheme)
    text = _canonical(text)
    return _Named(text, Scheme.from_parts(dict.fromkeys(PARTS, text)), Recipe.parse(text, "channel"))


def _recipe(name: str | int, granularity: str) -> Recipe:
    return Recipe.parse(_canonical(str(name).strip()), granularity)


def _canonical(text: str) -> str:
    """A recipe's words, in which "8" and "int8" are one format, and 16 bits are unquantised."""
    first, _, rest = text.partition(" ")
    return f"{'bf16' if first == '16' else parse_format(first).name} {rest}".strip()


def _after(law: Law, post: Formats | None) -> list[Recipe | None]:
    if post is None:
        return [None]
    if law.gap == 0:
        raise ConfigError(f"{law.name} says nothing about quantisation after training; use a law with a gap")
    found: list[Recipe | None] = []
    for name in _several(
        "quantize_to", dict(law.spec.labels).get("post_format", POST_BITS) if post == "any" else post
    ):
        recipe = _recipe(name, "channel")
        if not recipe.quantized:
            raise ConfigError(f"quantize_to {name!r} does not quantise anything; try int4")
        found.append(recipe)
    return found


def _several(what: str, names: Formats) -> Sequence[str | int]:
    several = [names] if isinstance(names, str | int) or not isinstance(names, Sequence) else list(names)
    if not several:
        raise ConfigError(
            f"{what}: an empty list leaves nothing to choose; name formats, like ['int4', 'int8']"
        )
    return [_checked(what, name) for name in several]


def _checked(what: str, name: Any) -> str | int:
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise ConfigError(f"{what}: {name!r} is no format; name one like 'int4', or a whole number of bits")
    if isinstance(name, str) and "," in name and "=" not in name:
        raise ConfigError(
            f"{what}: {name[:60]!r} names several formats; give each by itself, as a list or by repeating the option"
        )
    return name


# ---- what it costs


def _choice(
    law: Law,
    trained: _Named,
    after: Recipe | None,
    columns: Mapping[str, float],
    kv: Recipe | None,
    pace: Pace,
) -> Choice:
    scheme, said = trained.scheme, _said(law, trained, pace)
    if trained.of_all is not None:  # also of what else the law reads
        read = {"grad_a" if p == "grad" else p: trained.of_all for p in law.parts if p not in PARTS}
        scheme = replace(scheme, **read)
    forward = pace(scheme.w.format, scheme.a.format)
    if trained.of_all is not None or (pace is by_bits and not scheme.grad_a.quantized):
        train = forward  # the papers count one number of bits for every product
    else:
        work = train_work(1.0, 1.0, scheme)
        train = sum(flops * pace(*pair) for pair, flops in work.items()) / sum(work.values())
    served = scheme.w if after is None else after
    # By bits, weights alone count in serving, as in the paper's inference cost N P_post (appendix E.3).
    serve = served.format.bits / 16 if pace is by_bits else pace(served.format, scheme.a.format)
    return Choice(
        name=trained.name if after is None else f"{trained.name}, then {str(after).replace(' channel', '')}",
        columns=columns,
        train=train,
        serve=serve,
        bits=float(scheme.w.format.bits),
        post_bits=UNQUANTIZED if after is None else law_bits(after.format),
        bpw=served.bits_per_weight(SHAPE),
        kv_bits=(kv or scheme.kv).bits_per_weight(SHAPE),
        scheme=scheme,
        post=after,
        untold=_untold(law, trained),
        said=said,
    )


def _said(law: Law, trained: _Named, pace: Pace) -> tuple[str, ...]:
    """What naming one format for all parts means for costs."""
    if trained.of_all is None or not trained.of_all.quantized:
        return ()
    said, name = [], trained.name
    if "grad" not in law.parts and pace is not by_bits:
        said.append(
            f"costs count the backward pass at {name} too, which a scheme of weights, activations, keys and values "
            f"leaves at 16 bits; name the parts, like 'w={name}, a={name}', to count it so"
        )
    read = [TRAINED_PARTS[part] for part in law.parts]
    idle = [what for part, what in PARTS.items() if part not in law.parts]
    if law.parts and idle:
        said.append(
            f"the law reads {name} of {' and '.join(read)} alone, and training costs count {' and '.join(idle)} at it "
            "as well: look at what the law was fitted on"
        )
    return tuple(said)


def _untold(law: Law, trained: _Named) -> tuple[str, ...]:
    if trained.of_all is not None:  # constants of one format often are of several parts, as their regime says
        return ()
    low = [f.name for f in fields(Scheme) if getattr(trained.scheme, f.name).quantized]
    parts = ["grad" if name.startswith("grad") else name for name in low]
    return tuple(dict.fromkeys(TRAINED_PARTS.get(part, part) for part in parts if part not in law.parts))


# ---- what the law reads of it


def _row(law: Law, trained: _Named, after: Recipe | None) -> dict[str, Any]:
    """A choice as a row of the run table."""
    parts = {f.name: getattr(trained.scheme, f.name) for f in fields(Scheme)}
    if trained.of_all is not None:
        parts |= {"grad_a" if part == "grad" else part: trained.of_all for part in law.parts}
    parts["grad"] = parts.pop("grad_a")
    row: dict[str, Any] = {}
    for part, recipe in {**parts, "post": after or FULL}.items():
        if recipe.quantized:
            row[f"{part}_format"] = recipe.format.name
            block = getattr(recipe.format, "block", None) or recipe.size
            if block and part in ("w", "a", "post"):
                row |= {f"{part}_group": block, f"{part}_granularity": "group"}
    for column, known in law.spec.labels:
        if column in row and row[column] not in known:
            raise ConfigError(
                f"{law.name} has no constants for {column} {row[column]}; it has {', '.join(known)}"
            )
    return row


def read_by(law: Law, formats: Mapping[str, str]) -> dict[str, Any]:
    """What a law reads of formats of parts, as `Law.predict` takes it.

    Args:
        law: the law that will read them.
        formats: recipes by part, "post" being the weights after training, like {"w": "int4 group128"}.

    Raises:
        ConfigError: a part that the law does not read, or a format that it has no constants for.

    >>> from bitlaw.laws import kumar
    >>> read_by(kumar, {"w": "int4", "post": "int3"})
    {'w_bits': 4.0, 'post_bits': 3.0}
    """
    inputs: dict[str, Any] = {}
    for part in formats:
        if not any(item.column.startswith(f"{part}_") for item in law.inputs):
            raise ConfigError(
                f"{law.name} does not read the format of {part}; leave it out, or take another law"
            )
    trained = Scheme.from_parts({part: _canonical(text) for part, text in formats.items() if part != "post"})
    after = _recipe(formats["post"], "channel") if "post" in formats else None
    row = _row(law, _Named(trained.name, trained), after)
    (columns,) = _columns(law, [row])
    for item in law.inputs:
        if item.column.partition("_")[0] in formats:
            # Of a label its name is given, not whether it is each of them.
            named = item.column.partition("=")[0]
            inputs[named] = columns[item.column] if item.label is None else row.get(named, "bf16")
    return inputs


@lru_cache(maxsize=64)
def _plain(law: Law) -> dict[str, float]:
    """What a law reads where no format is told; kept, as frontiers ask it at every budget."""
    (columns,) = _columns(law, [{}])
    return columns


def _columns(law: Law, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """What a law reads of each of some rows that tell formats; what they do not tell is as by default."""
    table = Runs.from_rows([{"params": 1.0, "tokens": 1.0, "loss": 1.0, **row} for row in rows])
    columns: dict[str, list[float]] = {}
    for item in law.inputs:
        if item.column in SIZES:
            continue
        try:
            found = table.quantity(item.column).fill_null(math.nan).to_list()
        except DataError:
            found = [math.nan] * len(rows)
        part = item.column.partition("=")[0].rpartition("_")[0]
        for k, value in enumerate(found):
            if math.isnan(value):
                name = rows[k].get(f"{part}_format") if item.column.endswith(GRID) else None
                if item.default is None or name is not None:
                    fitting = "e4m3" if item.column.endswith(("exponent", "mantissa")) else name
                    raise ConfigError(
                        f"{law.name} reads {item.column}, which {name or 'a plan'} does not tell; name a format that "
                        f"does, like '{fitting} group128'"
                    )
                found[k] = item.default
        columns[item.column] = found
    return [{name: values[k] for name, values in columns.items()} for k in range(len(rows))]
