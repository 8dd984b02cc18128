"""How wide text may be: as wide as reads well, or as the terminal that it is printed to."""

from __future__ import annotations

import shutil
import sys

WIDTH = 110


def text_width() -> int:
    """Columns for tables in text: 110, or those of a narrower terminal; files and pipes always get the same."""
    if sys.stdout is None or not sys.stdout.isatty():
        return WIDTH
    return min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
