"""Number formats as data, without torch: what a value may be, and how many bits it costs.

`parse_format` reads a name; a `Format` knows its bits and, for integers, its grid; a `Scheme` says which
format each part of a model has. The lab puts tensors onto these grids; the laws read the bits.
"""

from .format import (
    UNQUANTIZED,
    Format,
    Granularity,
    Integer,
    Native,
    bits_per_weight,
    law_bits,
    parse_format,
)
from .scheme import Scheme

__all__ = [
    "UNQUANTIZED",
    "Format",
    "Granularity",
    "Integer",
    "Native",
    "Scheme",
    "bits_per_weight",
    "law_bits",
    "parse_format",
]
