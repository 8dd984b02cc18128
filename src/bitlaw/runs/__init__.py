"""The one table where the two halves meet: its columns, its store, and its ways in and out."""

from .exchange import read_runs, write_runs
from .schema import COLUMN, COLUMNS, OVERVIEW, Column
from .store import Store
from .table import Count, Runs

__all__ = ["COLUMN", "COLUMNS", "OVERVIEW", "Column", "Count", "Runs", "Store", "read_runs", "write_runs"]
