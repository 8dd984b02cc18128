"""Text from a model, token by token: reading on with a cache, and drawing what comes next.

Arithmetic in low precision is emulated here as in all of the lab: numbers lie on their grids and are multiplied as
floats. What comes out is what hardware of these formats would say; how fast, it does not tell.
"""

from .allocation import Allocation, allocations, first_to_lose
from .decoder import Decoder, Reading, Session, Source, limit_of, same_tokens
from .emulation import Delta, Emulated, emulate
from .formats import in_formats
from .generate import Continuation, check, generate, stream
from .lookahead import Costs, Rehearsal, expected_tokens, rehearse
from .sampling import Sampling, draw
from .score import after_each, log_likelihoods
from .speculate import Round, Speculated, acceptance, residual, speculate, speculations
from .words import Spelling, encode, ends_of, number_of

__all__ = [
    "Allocation",
    "Continuation",
    "Costs",
    "Decoder",
    "Delta",
    "Emulated",
    "Reading",
    "Rehearsal",
    "Round",
    "Sampling",
    "Session",
    "Source",
    "Speculated",
    "Spelling",
    "acceptance",
    "after_each",
    "allocations",
    "check",
    "draw",
    "emulate",
    "encode",
    "ends_of",
    "expected_tokens",
    "first_to_lose",
    "generate",
    "in_formats",
    "limit_of",
    "log_likelihoods",
    "number_of",
    "rehearse",
    "residual",
    "same_tokens",
    "speculate",
    "speculations",
    "stream",
]
