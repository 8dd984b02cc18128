"""One readable transformer, and models as folders."""

from .folder import Loaded, load_model, save_model
from .transformer import Transformer

__all__ = ["Loaded", "Transformer", "load_model", "save_model"]
