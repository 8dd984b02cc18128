"""What the loss should be: laws as values, made of symbolic expressions.

A base law says how loss falls with parameters and tokens. A precision term says what low-bit training does
to N and D. A gap adds what quantising after training costs. They compose:

    chinchilla.with_precision(w="kumar", a="kumar", kv="kumar").with_gap("kumar")

`chain` puts a link, like error on tasks from loss, after a law of the loss. What follows from single laws
stands beside them: `trajectory` (steps and tokens to a loss at a batch), `floating` (bits of exponent and
mantissa), `downstream` (bits a byte) and `rules`.
"""

from ..errors import ConfigError, nearest
from . import downstream, floating, rules, trajectory
from .base import broken, chinchilla, data_constrained, kaplan, outer, overtraining, saturating
from .catalogue import LAWS, compatible, kumar, kumar_unified
from .chain import chain
from .law import Law, LawSpec, from_spec
from .own import law_from_data, read_law
from .published import PUBLISHED, Published, published
from .terms import Condition, Input, Parameter, Source


def get(name: str) -> Law:
    """Return a law by name, or a law of one's own from a file whose name ends in .toml.

    Raises:
        ConfigError: no such law, or a file that describes none.

    >>> get("kumar").name
    'kumar'
    """
    if name.endswith(".toml"):
        return read_law(name)
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
    "broken",
    "chain",
    "chinchilla",
    "compatible",
    "data_constrained",
    "downstream",
    "floating",
    "from_spec",
    "get",
    "kaplan",
    "kumar",
    "kumar_unified",
    "law_from_data",
    "outer",
    "overtraining",
    "published",
    "read_law",
    "rules",
    "saturating",
    "trajectory",
]
