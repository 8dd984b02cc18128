"""The command line: one verb a stage.

Results go to standard output, progress and errors to standard error. Exit codes: 0 done, 1 unexpected,
2 a wrong setting or flag, 3 bad data, 4 no fit, 5 outside a law's domain, 6 the store, 7 the lab, 130
stopped by Ctrl-C.
"""

from .main import main

__all__ = ["main"]
