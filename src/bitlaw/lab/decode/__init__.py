"""Text from a model, token by token: reading on with a cache, and drawing what comes next.

Arithmetic in low precision is emulated here as in all of the lab: numbers lie on their grids and are multiplied as
floats. What comes out is what hardware of these formats would say; how fast, it does not tell.
"""

from .decoder import Decoder, Reading, Session, Source, limit_of, same_tokens
from .generate import Continuation, check, generate, stream
from .sampling import Sampling, draw
from .words import Spelling, encode, ends_of, number_of

__all__ = [
    "Continuation",
    "Decoder",
    "Reading",
    "Sampling",
    "Session",
    "Source",
    "Spelling",
    "check",
    "draw",
    "encode",
    "ends_of",
    "generate",
    "limit_of",
    "number_of",
    "same_tokens",
    "stream",
]
