"""The one table where the two halves meet: its columns, its store, and its ways in and out."""

from .exchange import read_runs, write_runs
from .importing import BadRows, Imported, carry_out, import_runs, read_raw, write_problems
from .leases import LEASE_SECONDS, Lease, Leases, running
from .mapping import as_toml, read_mapping
from .proposal import Proposal, propose
from .schema import COLUMN, COLUMNS, OVERVIEW, Column
from .store import Store, is_address
from .table import Count, Runs
from .where import where

__all__ = [
    "BadRows",
    "Imported",
    "Proposal",
    "as_toml",
    "carry_out",
    "import_runs",
    "propose",
    "read_mapping",
    "read_raw",
    "write_problems",
    "COLUMN",
    "COLUMNS",
    "LEASE_SECONDS",
    "OVERVIEW",
    "Column",
    "Count",
    "Lease",
    "Leases",
    "Runs",
    "Store",
    "is_address",
    "read_runs",
    "running",
    "where",
    "write_runs",
]
