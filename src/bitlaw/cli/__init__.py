"""The command line: one verb a stage.

Results go to standard output, progress and errors to standard error. Exit codes are those of `bitlaw.errors`.
"""

from .main import main

__all__ = ["main"]
