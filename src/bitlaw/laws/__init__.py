"""What the loss should be: laws as values, made of symbolic expressions.

A base law says how loss falls with parameters and tokens. A precision term says what low-bit training does
to N and D. A gap adds what quantising after training costs. They compose:

    chinchilla.with_precision(w="kumar", a="kumar", kv="kumar").with_gap("kumar")

`chain` puts a link, like error on tasks from loss, after a law of the loss. What follows from single laws
stands beside them: `trajectory` (steps and tokens to a loss at a batch), `floating` (bits of exponent and
mantissa), `downstream` (bits per byte) and `rules`.
"""

from ..errors import ConfigError, nearest
from . import downstream, floating, rules, trajectory
from .base import broken, broken_size, chinchilla, data_constrained, kaplan, outer, overtraining, saturating
from .catalogue import LAWS, compatible, kumar, kumar_unified
from .chain import chain
from .incomplete import INCOMPLETE, Incomplete
from .law import Law
from .own import law_from_data, read_law
from .published import PUBLISHED, Published, published
from .spec import LawSpec, from_spec, reduced
from .terms import Condition, Input, Parameter, Source


def get(name: str) -> Law:
    """Return a law by name, or a law of one's own from a file whose name ends in .toml.

    Args:
        name: in small or capital letters, or the path of a file.

    Returns:
        The law.

    Raises:
        ConfigError: no such law, or a file that describes none.

    >>> get("kumar").name
    'kumar'
    """
    if not isinstance(name, str):
        raise ConfigError(f"a law is named by text, as 'kumar' is, not by {ascii(name)[:60]}")
    if name.endswith(".toml"):
        return read_law(name)
    folded = name.lower()
    if folded in LAWS:
        return LAWS[folded]
    if folded in PUBLISHED:
        raise ConfigError(
            f"{folded!r} names published constants; plan with them, or name a law, which `bitlaw laws list` lists"
        )
    raise ConfigError(f"there is no law {name!r}; {nearest(folded, [*LAWS, *PUBLISHED])}")


#: Answers and closed forms beside the laws, in the order they are listed.
BESIDE = (
    trajectory.critical_batch,
    trajectory.least_steps,
    trajectory.least_tokens,
    trajectory.steps_to,
    trajectory.tokens_to,
    floating.best_layout,
    floating.critical_tokens,
    floating.best_bits,
    downstream.bits_per_byte,
    rules.qat_fraction,
)
__all__ = [
    "BESIDE",
    "INCOMPLETE",
    "LAWS",
    "PUBLISHED",
    "Condition",
    "Incomplete",
    "Input",
    "Law",
    "LawSpec",
    "Parameter",
    "Published",
    "Source",
    "broken",
    "broken_size",
    "chain",
    "chinchilla",
    "compatible",
    "data_constrained",
    "downstream",
    "floating",
    "from_spec",
    "reduced",
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
