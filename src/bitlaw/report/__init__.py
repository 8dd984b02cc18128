"""What people look at before they read: figures, and one page that says what was found."""

from .write import write_report

__all__ = ["write_report"]
