"""What people look at before they read: figures, and one page that says what was found."""

from .page import write_report

__all__ = ["write_report"]
