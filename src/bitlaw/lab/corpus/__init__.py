"""From text on this machine to batches of bytes."""

from .batches import batch, eval_windows
from .sources import Corpus, read_corpus

__all__ = ["Corpus", "batch", "eval_windows", "read_corpus"]
