"""The house keeps its shape: who imports whom, what stays unloaded, how long a file may be."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bitlaw

ROOT = Path(bitlaw.__file__).parent
LAW_HALF = {
    "errors": set(),
    "files": {"errors"},
    "html": set(),
    "shell": set(),
    "terminal": set(),
    "units": {"errors"},
    "formats": {"errors", "units"},
    "shapes": {"errors", "units", "formats"},
    "runs": {"errors", "files", "html", "shell", "units", "formats", "shapes"},
    "datasets": {"errors", "runs"},
    "laws": {"errors", "files", "html", "units", "formats", "shapes"},
    "fitting": {"errors", "files", "html", "shell", "terminal", "units", "formats", "shapes", "runs", "laws"},
    "planning": {
        "errors",
        "files",
        "html",
        "terminal",
        "units",
        "formats",
        "shapes",
        "runs",
        "laws",
        "fitting",
    },
    "calibration": {"errors"},
    "report": {
        "errors",
        "files",
        "html",
        "units",
        "formats",
        "shapes",
        "runs",
        "laws",
        "fitting",
        "planning",
    },
    "explore": {"errors", "shell", "units", "formats", "runs", "laws", "fitting", "planning", "report"},
}
LAB_OUTSIDE = {"errors", "files", "units", "formats", "shapes", "calibration"}
LAB = {
    "precision": set(),
    "corpus": set(),
    "model": {"precision", "corpus"},
    "train": {"precision", "corpus", "model"},
    "quantize": {"precision", "corpus", "model", "train"},
    "decode": {"precision", "corpus", "model", "train", "quantize"},
    "tasks": {"precision", "corpus", "model", "train", "quantize", "decode"},
    "dynamics": {"precision", "corpus", "model", "train"},
    "sweep": {"precision", "corpus", "model", "train", "quantize", "decode", "tasks", "dynamics"},
}


def modules() -> dict[str, Path]:
    out = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        out[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return out


def imports(name: str, path: Path) -> set[str]:
    """Modules of bitlaw that a file imports, wherever in the file; imports for type checking apart."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return {f for f in found if f.split(".")[0] == "bitlaw"} & set(modules()) - {name}


GRAPH = {name: imports(name, path) for name, path in modules().items()}


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def test_the_law_half_imports_only_what_lies_before_it():
    for name, targets in GRAPH.items():
        if room(name) in LAW_HALF:
            for target in targets - {"bitlaw"}:
                allowed = LAW_HALF[room(name)] | {room(name)}
                assert room(target) in allowed, f"{name} imports {target}"


def test_the_lab_imports_only_what_lies_before_it():
    for name, targets in GRAPH.items():
        if room(name) != "lab" or name == "bitlaw.lab":
            continue
        part = name.split(".")[2]
        for target in targets - {"bitlaw", "bitlaw.lab"}:
            if room(target) == "lab":
                assert target.split(".")[2] in LAB[part] | {part}, f"{name} imports {target}"
            else:
                allowed = LAB_OUTSIDE | ({"runs"} if part == "sweep" else set())
                assert room(target) in allowed, f"{name} imports {target}"


def test_nothing_imports_the_command_line_but_itself():
    for name, targets in GRAPH.items():
        if room(name) != "cli" and name != "bitlaw.__main__":
            assert not [t for t in targets if room(t) == "cli"], name


def test_there_are_no_import_circles():
    """A package and its own submodules count as one place only for the package's re-exports."""
    graph = {
        name: {t for t in targets if not name.startswith(f"{t}.") and not t.startswith(f"{name}.")}
        for name, targets in GRAPH.items()
    }
    state: dict[str, int] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert state.get(name) != 1, " -> ".join((*path, name))
        if name in state:
            return
        state[name] = 1
        for target in graph[name]:
            visit(target, (*path, name))
        state[name] = 2

    for name in graph:
        visit(name, ())


def test_files_stay_under_four_hundred_lines():
    for name, path in modules().items():
        assert len(path.read_text().splitlines()) <= 400, name


def runs_text(code):
    """What in a file could make code of data: modules that unpickle, functions that evaluate, `torch.load`."""
    found, made = set(), {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] in made}
        elif isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            found |= names & {"sympify", "parse_expr", "S"} | ({node.module} & made)
            found |= {"torch.load"} if node.module == "torch" and "load" in names else set()
        elif isinstance(node, ast.Call):
            whole = ast.unparse(node.func)
            last = whole.rsplit(".", 1)[-1]
            called = isinstance(node.func, ast.Name) or whole.startswith("builtins.")
            found |= {last} & {"sympify", "parse_expr"} | ({last} & {"eval", "exec"} if called else set())
            found |= {whole} & {"torch.load", "sp.S", "sympy.S"}
            found |= {word.arg for word in node.keywords if word.arg == "allow_pickle"}
    return found


def test_no_file_unpickles_or_evaluates_text():
    for name, path in modules().items():
        assert not runs_text(path.read_text()), name


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib",
        "import marshal",
        "eval(text)",
        "import builtins; builtins.exec(text)",
        "import sympy; sympy.sympify(text)",
        "from sympy import sympify as s; s(text)",
        "import sympy.parsing.sympy_parser as p; p.parse_expr(text)",
        "import sympy as sp; sp.S(text)",
        "import torch; torch.load(path)",
        "from torch import load",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_what_would_run_text_is_seen(code):
    assert runs_text(code)


HEAVY = ("torch", "sympy", "matplotlib", "polars", "sqlalchemy", "scipy", "pydantic", "typer")


def test_importing_bitlaw_is_fast_and_loads_nothing_heavy():
    code = f"import sys, bitlaw; print([m for m in {HEAVY!r} if m in sys.modules])"
    times = []
    for _ in range(3):
        began = time.perf_counter()
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        times.append(time.perf_counter() - began)
        assert out.stdout.strip() == "[]"
    assert min(times) < 0.5


def test_calibration_loads_numpy_alone_until_it_is_used():
    code = f"import sys, bitlaw.calibration; print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_law_half_never_imports_torch():
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"  # an import of torch would now fail
        "import bitlaw as bl\n"
        "for name in bl.__all__: getattr(bl, name)\n"
        "import bitlaw.cli, bitlaw.study\n"
        "print(bl.plan('kumar-2024', budget=1e22)['bits'].value)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert out.stdout.startswith("7.00")


def test_the_lab_without_torch_says_what_to_install():
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['bitlaw', 'study', 'quick']\n"
        "from bitlaw.cli import main; main()"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 7
    assert out.stderr.strip() == 'bitlaw: the lab needs torch; install it with: pip install "bitlaw[lab]"'


@pytest.mark.slow
@pytest.mark.parametrize("order", ["before", "after"])
def test_public_names_survive_their_submodules(order):
    """`bitlaw.fit` stays a function when every submodule has been imported, and when it is asked for twice."""
    code = (
        "import importlib, pkgutil, types, bitlaw as bl\n"
        "def load():\n"
        "    for m in pkgutil.walk_packages(bl.__path__, 'bitlaw.'):\n"
        "        if m.name != 'bitlaw.__main__': importlib.import_module(m.name)\n"
        + ("load()\n" if order == "before" else "first = [getattr(bl, n) for n in bl.__all__]; load()\n")
        + "for _ in range(2):\n"
        "    assert callable(bl.fit) and callable(bl.plan) and callable(bl.compare)\n"
        "    assert isinstance(bl.laws, types.ModuleType) and callable(bl.laws.get)\n"
        "    assert round(bl.plan('kumar-2024', budget=1e20)['bits'].value, 2) == 7.0\n"
    )
    out = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr


def test_no_submodule_bears_the_name_of_a_public_function():
    rooms = {m.name for m in pkgutil.iter_modules(bitlaw.__path__)}
    functions = {n for n in bitlaw.__all__ if not isinstance(getattr(bitlaw, n), type(importlib))}
    assert not rooms & functions


def test_the_list_of_public_names_is_what_it_was():
    assert " ".join(bitlaw.__all__) == (
        "BitlawError Comparison ConfigError DataError Fit FitError Imported LabError Law LawError Plan Runs "
        "Scheme Store StoreError backtest calibration compare datasets downstream fit forecast formats import_runs "
        "isoflop largest laws load_fit longest lowest_bits next_runs parse_format plan protocol published read_runs "
        "shift write_report write_runs"
    )
