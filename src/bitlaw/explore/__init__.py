"""A local page over runs as they come in: filter, fit, compare, plan, and watch a sweep."""

from .app import application
from .server import HOST, listen, new_token, server
from .source import Live, found_here

__all__ = ["HOST", "Live", "application", "found_here", "listen", "new_token", "server"]
