"""Number formats as data, without torch: what a value may be, and how many bits it costs.

`parse_format` reads a name and gives a grid; a `Recipe` says how a tensor is put onto it; a `Scheme` says which
recipe each part of a model has. The lab puts tensors onto these grids; the laws read the bits.
"""

from .catalogue import FAMILIES, KUMAR_FLOATS, NAMED, UNQUANTIZED, law_bits, layout, parse_format
from .grid import Codebook, Float, Format, Grid, Microscaled, Native, Uniform
from .recipe import Granularity, Recipe, Rounding
from .scheme import Scheme

__all__ = [
    "FAMILIES",
    "KUMAR_FLOATS",
    "NAMED",
    "UNQUANTIZED",
    "Codebook",
    "Float",
    "Format",
    "Granularity",
    "Grid",
    "Microscaled",
    "Native",
    "Recipe",
    "Rounding",
    "Scheme",
    "Uniform",
    "law_bits",
    "layout",
    "parse_format",
]
