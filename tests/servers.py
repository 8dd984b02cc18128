"""A PostgreSQL server of the tests' own, in a temporary folder, reached through a socket there."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path


def programs() -> Path | None:
    """The folder of PostgreSQL's programs; Debian keeps the server's out of the way."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "pg_ctl").exists()), None)


class Server:
    """A server that can be stopped and started."""

    def __init__(self) -> None:
        self.bin = programs()
        if self.bin is None:
            raise RuntimeError("needs PostgreSQL's server: apt-get install postgresql")
        # As root it must run as another user, and that user must reach its folder: not below pytest's.
        self.user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        if os.geteuid() != 0:
            self.user = []
        self.folder = Path(tempfile.mkdtemp(prefix="pg"))
        if self.user:
            shutil.chown(self.folder, "postgres", "postgres")
        self._call("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8")
        self.start()

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    def _call(self, program: str, *arguments: str) -> None:
        command = [*self.user, str(self.bin / program), *arguments]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/"
        )
        assert done.returncode == 0, done.stdout.decode()

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.folder}'"
        self._call("pg_ctl", "-D", self.data, "-w", "-l", f"{self.folder}/log", "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it: `fast` ends sessions, `immediate` is a crash."""
        self._call("pg_ctl", "-D", self.data, "-w", "-m", mode, "stop")

    def address(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def database(self, name: str) -> str:
        """Make a database and return its address."""
        import psycopg

        with psycopg.connect(self.address(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.address(name)

    def remove(self) -> None:
        self.stop("immediate")
        shutil.rmtree(self.folder)
