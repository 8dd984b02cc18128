"""Progress with the time left: a live bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ..study import Progress as StudyProgress

LINE_SECONDS = 15.0


class Reporter:
    """Shows a study's progress on standard error."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task = self._live.add_task("starting", total=1.0, left="")
        self._began, self._spoken, self._doing = time.monotonic(), 0.0, ""

    def __enter__(self) -> Reporter:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop drawing."""
        self._live.stop()

    def __call__(self, progress: StudyProgress) -> None:
        """Show where the study is."""
        elapsed = time.monotonic() - self._began
        share = progress.done / progress.total if progress.total else 1.0
        left = ""
        if 0.01 < share < 1 and elapsed > 3:
            left = f"about {_minutes(elapsed * (1 - share) / share)} left"
        self._live.update(self._task, completed=min(share, 1.0), description=progress.doing, left=left)
        if self._console.is_terminal:
            return
        stage = progress.doing.split(":")[0]
        if stage != self._doing or time.monotonic() - self._spoken > LINE_SECONDS:
            self._doing, self._spoken = stage, time.monotonic()
            print(
                f"[{elapsed:4.0f} s] {progress.doing} ({share:.0%}) {left}".rstrip(),
                file=sys.stderr,
                flush=True,
            )


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
