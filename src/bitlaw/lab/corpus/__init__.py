"""From documents to batches of tokens."""

from .batches import Windows, batch, distinct_tokens, spread_windows
from .sources import Corpus, read_corpus
from .text import Text
from .tokenizer import parse_tokenizer

__all__ = [
    "Corpus",
    "Text",
    "Windows",
    "batch",
    "distinct_tokens",
    "parse_tokenizer",
    "read_corpus",
    "spread_windows",
]
