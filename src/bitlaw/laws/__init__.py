"""What the loss should be: laws as values, made of symbolic expressions.

A base law says how loss falls with parameters and tokens. A precision term says what low-bit training does
to N and D. A gap adds what quantising after training costs. They compose:

    chinchilla.with_precision(w="kumar", a="kumar", kv="kumar").with_gap("kumar")
"""

from ..errors import ConfigError, nearest
from .base import chinchilla, data_constrained, kaplan, outer, overtraining, saturating
from .catalogue import LAWS, kumar, kumar_unified
from .law import Law, LawSpec, from_spec
from .published import PUBLISHED, Published, published
from .terms import Condition, Input, Parameter, Source


def get(name: str) -> Law:
    """Return a law by name.

    Raises:
        ConfigError: no such law.

    >>> get("kumar").name
    'kumar'
    """
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
    "data_constrained",
    "from_spec",
    "get",
    "kaplan",
    "kumar",
    "kumar_unified",
    "outer",
    "overtraining",
    "published",
    "saturating",
]
