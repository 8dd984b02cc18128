"""Servers of the tests' own, in temporary folders: PostgreSQL, reached through a socket there, Slurm, nodes of Ray."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
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


class Slurm:
    """slurmctld and one slurmd of the tests' own; munged vouches for who asks. Needs root, as slurmd does."""

    PROGRAMS = ("munged", "slurmctld", "slurmd")

    def __init__(self, cpus: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm"))
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        host = socket.gethostname().split(".")[0]
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        (self.folder / "key").write_bytes(os.urandom(128))
        (self.folder / "key").chmod(0o600)
        self.folder.chmod(0o755)  # munged wants to be reached by everybody
        (self.folder / "slurm.conf").write_text(
            f"""ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={free_port()}
SlurmdPort={free_port()}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={self.folder}/munge
CredType=cred/munge
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
"""
        )
        at = self.folder
        self.daemons = [
            self._start("munged", "-F", "--force", f"--key-file={at}/key", f"--socket={at}/munge")
            if name == "munged"
            else self._start(name, "-D")
            for name in self.PROGRAMS
        ]
        deadline = time.monotonic() + 60
        while "idle" not in self.call("sinfo", "-h", "-o", "%T", check=False):
            if time.monotonic() > deadline or any(d.poll() is not None for d in self.daemons):
                logs = "\n".join(log.read_text()[-2000:] for log in sorted(at.glob("*.log")))
                self.remove()
                raise RuntimeError(f"Slurm does not start here:\n{logs}")
            time.sleep(0.5)

    def _start(self, program: str, *arguments: str) -> subprocess.Popen:
        if program == "munged":
            for name in ("pid", "log", "seed"):
                arguments += (f"--{name}-file={self.folder}/munged.{name}",)
        with (self.folder / f"{program}.log").open("w") as log:
            environment = {**os.environ, **self.environment}
            return subprocess.Popen([program, *arguments], stdout=log, stderr=log, env=environment)

    def call(self, *command: str, check: bool = True, **variables: str) -> str:
        """Run one of Slurm's commands and return what it prints."""
        environment = {**os.environ, **self.environment, **variables}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout

    def remove(self) -> None:
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class RayNode:
    """A node of a Ray cluster on this machine: the first of one, or one that joins another.

    Args:
        head: of the cluster to join; None begins a cluster.
        options: of `ray start`.
    """

    def __init__(self, head: RayNode | None, *options: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray")) if head is None else head.folder
        self.port = free_port() if head is None else head.port
        client = free_port() if head is None else 0
        self.client = f"ray://127.0.0.1:{client}"
        begin = [
            "--head",
            f"--port={self.port}",
            f"--ray-client-server-port={client}",
            "--include-dashboard=false",
        ]
        options += tuple(
            [*begin, f"--temp-dir={self.folder}"] if head is None else [f"--address={head.address}"]
        )
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
        self.log = self.folder / f"node{free_port()}.log"
        environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--object-store-memory=100000000", *options],
                stdout=log,
                stderr=log,
                env=environment,
            )
        deadline = time.monotonic() + 90
        while "runtime started" not in self.log.read_text() or self.raylet is None:
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.kill()
                raise RuntimeError(f"Ray does not start here: {self.log.read_text()[-2000:]}")
            time.sleep(0.2)

    @property
    def address(self) -> str:
        """Of the cluster; Ray takes no loopback address for a node's."""
        return f"{socket.gethostbyname(socket.gethostname())}:{self.port}"

    @property
    def raylet(self) -> int | None:
        """The process that starts the node's workers."""
        return next((pid for pid, name in children(self.process.pid).items() if "/raylet" in name), None)

    def kill(self) -> None:
        """End it at once, as if it lost power."""
        processes = [self.process.pid, *children(self.process.pid)]
        for raylet in list(processes):
            processes += children(raylet)
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def children(parent: int) -> dict[int, str]:
    """Processes that a process has started, and their command lines."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it may have ended meanwhile
            if int((path / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
