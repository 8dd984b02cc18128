"""Where rows come from: one small reader a source, each giving flat records with their places, none believing any."""

from .opening import KINDS, open_source

__all__ = ["KINDS", "open_source"]
