"""The code blocks of a Markdown page, and running them as a reader would."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^(?P<in> *)```(?P<language>\w*)(?P<rest>[^\n]*)\n(?P<text>.*?)^(?P=in)```$", re.S | re.M)
NUMBER = re.compile(r"\d[\d,]*\.?\d*(?:e[+-]?\d+)?")
FURNITURE = re.compile(r"[\s━─┏┳┓┡╇┩└┴┘├┼┤]+")  # of tables: as wide as what stands in them
NOT_RUN = "not run by the tests: "
REFUSED, UNTIL, PRINTS = "refused", "until Ctrl-C", "prints"  # titles that are no file's name
AS_PRINTED = 0.02  # how far a printed number may be from the page's, relative


@dataclass(frozen=True)
class Block:
    """A fence: its language, its title, and what is in it.

    A title is shown above the block. `not run by the tests: REASON` explains itself, `refused` says that the block ends
    with an error, `until Ctrl-C` that it runs on, `prints` that the block before prints this, and the name of a file
    that the block is that file.
    """

    language: str
    title: str
    text: str

    @property
    def reason(self) -> str:
        """Why it is not run; empty if it is."""
        return self.title.removeprefix(NOT_RUN) if self.title.startswith(NOT_RUN) else ""


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    found = []
    for fence in FENCE.finditer(page.read_text()):
        title = re.search(r'title="([^"]*)"', fence["rest"])
        text = re.sub(rf"^{fence['in']}", "", fence["text"], flags=re.M)
        found.append(Block(fence["language"], title[1] if title else "", text))
    return found


def folder_like_a_clone(folder: Path) -> Path:
    """A folder in which `bitlaw` and `python` are this Python's, and the repository's tables lie where they do."""
    (folder / "bin").mkdir()
    for name, arguments in {"bitlaw": "-m bitlaw", "python": "-W error"}.items():
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        script.chmod(0o755)
    for name in ("studies", "examples", "src"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def run(block: Block, folder: Path) -> str:
    """What a block prints. It must end well, be refused where it says so, or end quietly at Ctrl-C."""
    program = ["bash", "-euo", "pipefail"] if block.language == "sh" else [str(folder / "bin" / "python")]
    started = subprocess.Popen(
        [*program, "-c", block.text],
        cwd=folder,
        env=os.environ | {"PATH": f"{folder}/bin:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert started.stdout
    if block.title != UNTIL:
        printed = started.communicate()[0]
        assert (started.returncode == 0) == (block.title != REFUSED), f"{block.text}\n{printed}"
        return printed
    printed = started.stdout.readline()
    os.killpg(started.pid, signal.SIGINT)
    printed += started.communicate(timeout=30)[0]
    assert "Traceback" not in printed
    return printed


def same(shown: str, printed: str) -> bool:
    """Whether two lines are the same but for the last digits of numbers and the width of tables."""
    words = [FURNITURE.sub(" ", NUMBER.sub("0", line)).strip() for line in (shown, printed)]
    numbers = [[float(n.replace(",", "")) for n in NUMBER.findall(line)] for line in (shown, printed)]
    return words[0] == words[1] and all(
        abs(a - b) <= AS_PRINTED * abs(a) for a, b in zip(*numbers, strict=True)
    )


def absent(shown: str, printed: str) -> list[str]:
    """Lines of a page that were not printed, in this order; `...` stands for any lines."""
    missing = []
    left = printed.splitlines()
    for line in shown.splitlines():
        if line.strip() in ("", "..."):
            continue
        place = next((i for i, other in enumerate(left) if same(line, other)), None)
        if place is None:
            missing.append(line)
        else:
            left = left[place + 1 :]
    return missing


def follow(page: Path, folder: Path) -> None:
    """Do what a page says, block by block, and see what it says is printed."""
    printed = ""
    for block in blocks(page):
        if block.title == PRINTS:
            missing = absent(block.text, printed)
            assert not missing, (
                f"{page.name} shows\n" + "\n".join(missing) + f"\nbut this is printed:\n{printed}"
            )
        elif block.language in ("sh", "python") and block.title in ("", REFUSED, UNTIL):
            printed = run(block, folder)
        elif block.title and not block.reason:
            (folder / block.title).write_text(block.text)
