"""What the loss should be: laws as values, made of symbolic expressions.

A base law says how loss falls with parameters and tokens. A precision term turns N into effective
parameters. A gap adds what quantising after training costs. They compose:

    chinchilla.with_precision(w="kumar", a="kumar", kv="kumar").with_gap("kumar")
"""

from .base import chinchilla
from .gap import kumar, kumar_unified
from .law import Condition, Input, Law, LawSpec, Parameter, Source, from_spec
from .published import PUBLISHED, Published, published

#: Laws that can be fitted by name.
LAWS: dict[str, Law] = {law.name: law for law in (chinchilla, kumar, kumar_unified)}


def get(name: str) -> Law:
    """Return a law by name.

    Raises:
        ConfigError: no such law.

    >>> get("kumar").name
    'kumar'
    """
    from ..errors import ConfigError, nearest

    if name not in LAWS:
        raise ConfigError(f"there is no law {name!r}; {nearest(name, LAWS)}")
    return LAWS[name]


__all__ = [
    "LAWS",
    "PUBLISHED",
    "Condition",
    "Input",
    "Law",
    "LawSpec",
    "Parameter",
    "Published",
    "Source",
    "chinchilla",
    "from_spec",
    "get",
    "kumar",
    "kumar_unified",
    "published",
]
