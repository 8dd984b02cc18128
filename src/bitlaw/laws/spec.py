"""How a law is written down as plain data, and made again from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .chain import chain
from .terms import look_up

if TYPE_CHECKING:
    from .law import Law


@dataclass(frozen=True)
class LawSpec:
    """How a law was put together; enough to make it again, and safe to read from a file.

    `link` is the law that reads the loss of this one. `labels` lists, for parameters that have one value
    per label, the labels of each column. `own` is a user's own law in full, as JSON text, in place of a base.
    """

    base: str
    precision: tuple[tuple[str, str], ...] = ()
    gap: str | None = None
    link: str | None = None
    ties: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, tuple[str, ...]], ...] = ()
    own: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        return {
            "base": self.base,
            "precision": dict(self.precision),
            "gap": self.gap,
            "link": self.link,
            "ties": dict(self.ties),
            "labels": {column: list(labels) for column, labels in self.labels},
            "own": json.loads(self.own) if self.own else None,
        }


MOST_LABELS = 500  # of a column in a file; each is a parameter
LONGEST = 500
BASE: dict[str, Law] = {}
#: How a law that a spec holds in full is read; `own` puts its strict reader here.
READERS: dict[str, Callable[[Mapping[str, Any]], Law]] = {}


def from_spec(spec: Mapping[str, Any]) -> Law:
    """Make a law from the plain data of `LawSpec.as_json`; names are looked up, nothing is evaluated.

    Args:
        spec: what `law.spec.as_json()` gave; it may come from a stranger's file.

    Returns:
        The law.

    Raises:
        ConfigError: a name that is not known, or data of the wrong shape.

    >>> from bitlaw.laws import kumar
    >>> from_spec(kumar.spec.as_json()).loss == kumar.loss
    True
    """
    try:
        own = spec.get("own")
        law: Law = look_up(BASE, spec["base"], "base law") if own is None else READERS["own"](own)
        if spec["precision"]:
            law = law.with_precision(**spec["precision"])
        if spec["gap"] is not None:
            law = law.with_gap(spec["gap"])
        if spec.get("link") is not None:
            law = chain(look_up(BASE, spec["link"], "link"), law)
        if spec["ties"]:
            law = law.tie(**spec["ties"])
        labels = {str(column): _labels(names) for column, names in spec["labels"].items()}
        return law.for_labels(labels) if labels else law
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"this is not the description of a law ({error}); it may be of another version"
        ) from error


def reduced(law: Law, parts: Collection[str], gap: bool = True) -> Law:
    """The same law with the precision of some parts alone, with or without its gap; ties between what is left stay.

    >>> from bitlaw.laws import chinchilla
    >>> law = chinchilla.with_precision(w="kumar", a="kumar").tie(gamma_a="gamma_w")
    >>> reduced(law, {"a"}).names
    ('E', 'A', 'B', 'alpha', 'beta', 'gamma_a', 'n_a')
    """
    spec = law.spec.as_json()
    precision = {part: form for part, form in spec["precision"].items() if part in parts}
    spec |= {"precision": precision, "gap": spec["gap"] if gap else None}
    left = set(from_spec(spec | {"ties": {}, "labels": {}}).names)
    ties: dict[str, str] = {}
    for target in dict.fromkeys(spec["ties"].values()):
        equal = [
            name for name in (target, *(n for n, t in spec["ties"].items() if t == target)) if name in left
        ]
        ties |= dict.fromkeys(equal[1:], equal[0] if equal else "")  # the first that is left stands for all
    return from_spec(spec | {"ties": ties}).named(law.name, law.source)


def _labels(names: Any) -> tuple[str, ...]:
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise TypeError("labels are a list of text")
    if len(names) > MOST_LABELS or not all(name.isprintable() and len(name) <= LONGEST for name in names):
        raise ValueError(f"labels are at most {MOST_LABELS}, of at most {LONGEST} printable characters")
    if len(set(names)) < len(names):
        raise ValueError("a label stands twice")
    return tuple(names)
