"""From text on this machine to batches of bytes."""

from .batches import Windows, batch, spread_windows
from .sources import Corpus, Text, read_corpus

__all__ = ["Corpus", "Text", "Windows", "batch", "read_corpus", "spread_windows"]
