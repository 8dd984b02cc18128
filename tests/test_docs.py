"""What the README and the pages of docs/ say can be done, can be done."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import typer
from blocks import absent, blocks, folder_like_a_clone, follow
from conftest import synthetic_sweep

from bitlaw import Scheme, Store, write_runs
from bitlaw.cli.main import app
from bitlaw.lab.model import Loaded, Transformer, save_model
from bitlaw.shapes import Shape

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted(
    str(path.relative_to(ROOT / "docs"))
    for path in ROOT.glob("docs/**/*.md")
    if "```" in path.read_text() and "Made by docs/generate.py" not in path.read_text()
)
NOT_RUN = {  # reason: how many blocks
    "fetches packages": 1,
    "installs": 1,
    "needs a Kubernetes cluster": 1,
    "needs a PostgreSQL server": 1,
    "needs a Ray cluster": 1,
    "needs a Slurm cluster": 1,
    "needs a model of yours": 5,
    "needs a sweep that runs": 1,
    "needs runs of your own": 3,
    "needs two machines": 1,
    "opens a browser": 1,
    "trains for minutes": 2,
}


def fenced(language):
    """Blocks of the README in one language; fences are paired in order, whatever their language."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.S | re.M)
    return [text for name, text in blocks if name == language]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    runs = synthetic_sweep(0, paired=True, post_of_low=False)
    write_runs(runs, folder / "wandb-export.csv")
    model = Transformer(Shape(width=32, depth=1, heads=2, ffn=48))
    save_model(
        Loaded("model", "", model, None, 256, 64, Scheme(), {"tokens": 1e6}), folder / "path" / "to" / "model"
    )
    Store(folder / "study-quick" / "runs.sqlite").add(runs.frame.to_dicts())
    return folder


@pytest.mark.slow
def test_the_readmes_shell_commands_run(workshop):
    lines = [line for block in fenced("") for line in block.splitlines() if line.startswith("bitlaw ")]
    ran = []
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[1] != "study":  # which is tested elsewhere
            out = subprocess.run([sys.executable, "-m", *words], cwd=workshop, capture_output=True, text=True)
            assert out.returncode == 0, (line, out.stderr)
            ran.append(words[1])
    assert " ".join(ran) == "runs fit plan report plan plan quantize quantize"


def test_the_readmes_python_runs(workshop):
    printed = ""
    for block in fenced("python"):
        out = subprocess.run(
            [sys.executable, "-W", "error", "-c", block], cwd=workshop, capture_output=True, text=True
        )
        assert out.returncode == 0, out.stderr
        printed += out.stdout
    assert "90% interval" in printed


def test_links_and_paths_in_the_docs_exist():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
    for path in re.findall(r"`((?:src|docs)/[^`*]+)`", README):
        assert (ROOT / path).exists(), path


def test_make_targets_in_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)$", README, re.M):
        assert f"\n{target}:" in makefile


def generated():
    """The pages that the code makes, by their path."""
    return runpy.run_path(str(ROOT / "docs" / "generate.py"))["pages"]()


def test_generated_pages_are_what_the_code_says():
    made = generated()
    old = [page for page, text in made.items() if (ROOT / "docs" / page).read_text() != text]
    assert old == [], "run: python docs/generate.py"
    assert {f"api/{path.name}" for path in ROOT.glob("docs/api/*.md")} == {
        p for p in made if p.startswith("api/")
    }


# ---- blocks


def test_every_block_is_run_or_says_why_not():
    """What is neither run nor a file nor shown as printed is here, and why."""
    left, unknown = Counter(), []
    for page in PAGES:
        for block in blocks(ROOT / "docs" / page):
            if block.reason:
                left[block.reason] += 1
            elif block.language not in ("sh", "python") and not block.title:
                unknown.append((page, block.text))
    assert not unknown
    assert left == NOT_RUN


def spelt(line):
    """Whether a command of bitlaw has its verbs and options; the files that it names are not looked at."""
    words = shlex.split(line, comments=True)[1:]
    command = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
    return not hasattr(command, "commands") and {w for w in words if re.match("--?[a-z]", w)} <= known


def test_commands_that_are_not_run_are_spelt_right():
    texts = [block.text for page in PAGES for block in blocks(ROOT / "docs" / page) if block.reason]
    lines = [line.strip() for text in (*texts, *fenced("")) for line in text.splitlines()]
    ours = [line for line in lines if line.startswith("bitlaw ")]
    assert len(ours) > 30
    assert [line for line in ours if not spelt(line)] == []
    assert not spelt("bitlaw plan --bugdet 1e22") and not spelt("bitlaw runs improt x.csv")
    for path in re.findall(r"examples/[\w./]+", "\n".join(texts)):
        assert (ROOT / path).exists(), path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(page, tmp_path):
    follow(ROOT / "docs" / page, folder_like_a_clone(tmp_path))


def test_lines_are_compared_but_for_last_digits():
    printed = "┃ a ┃ 1,203 ┃\n┏━━━━┓\nNote: 3.01% of B\n"
    assert not absent("┃ a  ┃ 1,200 ┃\n...\nNote: 3.00% of B", printed)
    assert absent("Note: 3.2% of B", printed) and absent("Note: 3.01% of C", printed)
    assert absent("Note: 3.01% of B\n┃ a ┃ 1,203 ┃", printed)


# ---- how good is it


def numbers(text):
    """Numbers as they are written, without leading zeros and thousands' commas."""
    return {
        n.replace(",", "").lstrip("0")
        for n in re.findall(r"(?<![\w.])\.?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", text)
    }


def test_every_number_of_how_good_it_is_stands_in_its_sources():
    """In the tables of coverage and regret or in the log; there also as a share, where the page has a percentage."""
    sources = numbers(
        "".join((ROOT / "docs" / f"{name}.md").read_text() for name in ("coverage", "regret", "log"))
    )
    page = (ROOT / "docs" / "how-good.md").read_text()
    assert len(numbers(page)) > 100
    found = {n for n in numbers(page) if {n, f"{float(n or 0) / 100:.3f}".lstrip("0")} & sources}
    assert numbers(page) - found == set()


def cells(page, first):
    """Rows of all tables whose first cell begins with some words, by that cell; spaces before % are left out."""
    rows = [line.strip("| ").split("|") for line in page.splitlines() if line.startswith(f"| {first}")]
    return [
        [cell.strip().replace(" %", "%").replace("%", "").removesuffix(" noise") for cell in row]
        for row in rows
    ]


@pytest.mark.parametrize("study", ["kumar", "chinchilla", "outer", "cost of bits", "capacity, by"])
def test_regrets_of_how_good_it_is_are_those_of_the_benchmark(study):
    """Cell by cell: share within 1 %, median, worst, and the share of the hedge."""
    page, table = ((ROOT / "docs" / f"{name}.md").read_text() for name in ("how-good", "regret"))
    measured = {row[0]: row for row in cells(table, study) if len(row) == 10}
    told = [row for row in cells(page, study) if len(row) in (5, 6)]
    assert told and {row[0] for row in told} == measured.keys()
    for row in told:
        name, within, median, worst, *rest = row
        _, _, share, middle, _, most, _, hedged, *_ = measured[name]
        assert (within, median, worst) == (share, middle, most), name
        if len(rest) == 1:
            assert rest[0] == hedged.split(" (")[0], name


@pytest.mark.parametrize("noise", ["uniform", "small models noisier", "2 % outliers"])
def test_coverage_of_how_good_it_is_is_that_of_the_benchmark(noise):
    page, table = ((ROOT / "docs" / f"{name}.md").read_text() for name in ("how-good", "coverage"))
    section = table.split(f"## Noise: {noise}")[1].split("## ")[0]
    (row,) = [row for row in cells(page, noise) if " of 60" in row[1]]
    inside = row[1].partition(" ")[0]
    low, high = re.findall(r"([\d.]+) at nominal", row[2])
    assert f"{inside} of the 60 counts of the default lie in the band" in section
    assert f"{low}% at nominal" in section and f"{high}% at nominal" in section
