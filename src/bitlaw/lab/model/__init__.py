"""One readable transformer, and models as folders."""

from .cache import KVCache
from .folder import Loaded, load_model, save_model
from .transformer import Transformer

__all__ = ["KVCache", "Loaded", "Transformer", "load_model", "save_model"]
