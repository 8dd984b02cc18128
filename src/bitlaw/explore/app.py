"""The application: a fixed list of addresses, each answered from what was read, fitted or compared."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ..errors import BitlawError, ConfigError
from ..laws import LAWS
from ..laws.javascript import runtime
from ..runs import Runs
from ..runs.export import used
from ..runs.where import Condition, matching, parse_where
from . import answers, table, watch
from .command import command
from .guard import Guard
from .jobs import Job, Jobs
from .source import Live, Snapshot

LANES = ("look", "fit", "compare")
CONDITIONS = 60
FAR = 10**9
SHARED = ("page.css", "numbers.js", "planner.js", "charts.js", "panel.js")
OWN = (
    *("explore.css", "main.js", "api.js", "dom.js", "state.js", "filters.js", "table.js", "detail.js"),
    *("tabs.js", "fit.js", "residuals.js", "compare.js", "plan.js", "sweep.js", "export.js"),
)
#: What is sent by name: (package, folder, file). No name of a file is ever taken from a request.
ASSETS = {
    **{name: ("bitlaw.report", "assets", name) for name in SHARED},
    **{name: ("bitlaw.explore", "assets", name) for name in OWN},
}
KINDS = {"css": "text/css", "js": "text/javascript", "html": "text/html"}


def application(live: Live, token: str, port: int, goal: watch.Goal | None = None) -> ASGIApp:
    """The explorer of some runs.

    Args:
        live: the runs.
        token: the first part of every address.
        port: where it is listened.
        goal: what a sweep is to reach, where its plan is known.
    """
    pages = _Pages(live, Jobs(LANES), goal)
    routes = [
        Route("/", pages.index),
        Route("/assets/{name}", pages.asset),
        *(
            Route(f"/{f.__name__}", f)
            for f in (pages.state, pages.rows, pages.run, pages.facets, pages.selection)
        ),
        *(Route(f"/{f.__name__}", f) for f in (pages.laws, pages.fit, pages.compare, pages.job, pages.part)),
        Route("/runs.csv", pages.csv),
    ]
    app = Starlette(routes=routes, exception_handlers={BitlawError: _refused, 404: _absent, 405: _absent})
    app.router.redirect_slashes = False
    return Guard(app, token, port)


class _Pages:
    """What is behind each address."""

    def __init__(self, live: Live, jobs: Jobs, goal: watch.Goal | None) -> None:
        self.live, self.jobs, self.goal = live, jobs, goal
        self._reached: tuple[str, Mapping[str, Any] | None] = ("", None)

    def index(self, request: Request) -> Response:
        text = _file("bitlaw.explore", "assets", "index.html")
        return Response(text, media_type="text/html", headers={"cache-control": "no-store"})

    def asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        return _sent(name) or _absent(request, None)

    def state(self, request: Request) -> Response:
        """How the runs stand; 304 where nothing has changed since it was last asked."""
        read(request)
        found = self.live.look()
        data = {"source": self.live.name, "live": self.live.is_store, **watch.state(found, self._goal(found))}
        body = answers.encoded(data)
        tag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
        headers = {"etag": tag, "cache-control": "no-store"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type="application/json", headers=headers)

    def _goal(self, found: Snapshot) -> Mapping[str, Any] | None:
        """Where the sweep is on its way; asked again when rows or workers have changed."""
        mark = f"{found.version} {len(found.leases)}"
        if self.goal and self._reached[0] != mark:
            self._reached = mark, self.goal()
        return self._reached[1]

    def rows(self, request: Request) -> Response:
        asked = read(request, "columns", "sort", "down", "offset", "limit")
        runs = matching(self.live.look().runs, asked.conditions)
        columns = [name for name in asked.text("columns").split(",") if name]
        window = asked.whole("offset", 0, 0, FAR), asked.whole("limit", 50, 1, table.PAGE)
        return _json(table.page(runs, columns, asked.text("sort"), asked.text("down") == "1", *window))

    def selection(self, request: Request) -> Response:
        """How many rows are chosen, and the commands that choose them."""
        asked = read(request, "law", "interval", "what")
        runs = matching(self.live.look().runs, asked.conditions)
        law, interval = known(asked.text("law", "kumar")), asked.share("interval", 0.9)
        commands = self._commands(asked.conditions, law, interval, asked.one_of("what", "loss", "gap"))
        return _json({"chosen": len(runs), "mark": answers.mark(runs), "commands": commands})

    def facets(self, request: Request) -> Response:
        read(request)
        return _json(table.facets(self.live.look().runs))

    def run(self, request: Request) -> Response:
        found = table.detail(self.live.look().runs, read(request, "id").text("id"))
        return _json(found) if found else _json({"error": "there is no such run, or no longer"}, 404)

    def csv(self, request: Request) -> Response:
        """The chosen rows as a file; `bitlaw runs convert` writes the same."""
        runs = matching(self.live.look().runs, read(request).conditions)
        out = io.BytesIO()
        used(runs).write_csv(out)
        headers = {"content-disposition": 'attachment; filename="runs.csv"', "cache-control": "no-store"}
        return Response(out.getvalue(), media_type="text/csv", headers=headers)

    def laws(self, request: Request) -> Response:
        runs, key = self._chosen(read(request))
        return self._begun("look", f"laws {key}", lambda report: answers.carried(runs, report))

    def fit(self, request: Request) -> Response:
        asked = read(request, "law", "interval")
        law, interval = known(asked.text("law", "kumar")), asked.share("interval", 0.9)
        runs, key = self._chosen(asked)
        commands = self._commands(asked.conditions, law, interval)
        return self._begun(
            "fit",
            f"fit {law} {interval} {key} {commands['fit']}",
            lambda report: answers.fitted(runs, law, interval, commands, report),
        )

    def compare(self, request: Request) -> Response:
        asked = read(request, "what")
        what = asked.one_of("what", "loss", "gap")
        gaps, said = what == "gap", self._commands(asked.conditions, what=what)["compare"]
        runs, key = self._chosen(asked)
        return self._begun(
            "compare",
            f"compare {gaps} {key} {said}",
            lambda report: answers.ranked(runs, gaps, {"compare": said}, report),
        )

    def job(self, request: Request) -> Response:
        job = self.jobs.find(read(request, "key").text("key"))
        return _json(job.as_json()) if job else _json({"error": "given up, or long ago; ask again"}, 404)

    def part(self, request: Request) -> Response:
        """What came of a job: a part of it, as it was made."""
        asked = read(request, "key", "name")
        job, name = self.jobs.find(asked.text("key")), asked.text("name")
        body = job.parts.get(name) if job and job.state == "done" else None
        if body is None:
            return _json({"error": "there is no such part of an answer, or no longer"}, 404)
        kind = "text/javascript" if name == "law" else "application/json"
        return Response(body, media_type=kind, headers={"cache-control": "no-store"})

    def _chosen(self, asked: _Asked) -> tuple[Runs, str]:
        """The chosen rows, and a name for them that changes with them."""
        runs = matching(self.live.look().runs, asked.conditions)
        if not len(runs):
            raise ConfigError("no run is chosen; loosen the conditions, or tick some runs")
        return runs, answers.digest(runs)

    def _begun(self, lane: str, name: str, work: Callable[..., dict[str, bytes]]) -> Response:
        job: Job = self.jobs.begin(lane, hashlib.sha256(name.encode()).hexdigest()[:24], work)
        return _json(job.as_json())

    def _commands(
        self, conditions: list[Condition], law: str = "kumar", interval: float = 0.9, what: str = "loss"
    ) -> dict[str, str]:
        level = [] if interval == 0.9 else ["--interval", f"{interval:g}"]
        gaps = ["--gaps"] if what == "gap" else []
        source = self.live.name
        return {
            "fit": command("fit", source, conditions, "--law", law, *level, "--save", answers.SAVED),
            "compare": command("compare", source, conditions, *gaps),
            "report": command("report", source, conditions, "--law", law, *level),
        }


class _Asked:
    """The question of a request, each part checked."""

    def __init__(self, values: dict[str, str], conditions: list[Condition]) -> None:
        self.values, self.conditions = values, conditions

    def text(self, name: str, usual: str = "") -> str:
        return self.values.get(name, usual)

    def one_of(self, name: str, *choices: str) -> str:
        value = self.text(name, choices[0])
        if value not in choices:
            raise ConfigError(f"{name} is one of {', '.join(choices)}, not {value[:40]!r}")
        return value

    def whole(self, name: str, usual: int, low: int, high: int) -> int:
        value = self.text(name, str(usual))
        if not re.fullmatch(r"[0-9]{1,10}", value) or not low <= int(value) <= high:
            raise ConfigError(f"{name} is a whole number from {low} to {high}, not {value[:40]!r}")
        return int(value)

    def share(self, name: str, usual: float) -> float:
        value = self.text(name, str(usual))
        if not re.fullmatch(r"0?\.[0-9]{1,6}", value) or not float(value):
            raise ConfigError(f"{name} is a share between 0 and 1, like 0.9, not {value[:40]!r}")
        return float(value)


def read(request: Request, *names: str) -> _Asked:
    """The parts of a question, `where` as often as one likes and the others once.

    Raises:
        ConfigError: a part that does not belong to it, or a condition that cannot be read.
    """
    values: dict[str, str] = {}
    conditions: list[Condition] = []
    for name, value in request.query_params.multi_items():
        if name == "where":
            if len(conditions) == CONDITIONS:
                raise ConfigError(
                    f"a question takes at most {CONDITIONS} conditions; join some, like id in a,b"
                )
            conditions.append(parse_where(value))
        elif name not in names or name in values:
            raise ConfigError(f"a question takes {', '.join(('where', *names))}, not {name[:40]!r} here")
        else:
            values[name] = value
    return _Asked(values, conditions)


def known(law: str) -> str:
    """The name of a law of the catalogue; no file is read because of a request.

    Raises:
        ConfigError: another name.
    """
    if law not in LAWS:
        raise ConfigError(f"there is no law {law[:40]!r} in the catalogue; `bitlaw laws list` lists them")
    return law


def _json(data: Any, status: int = 200) -> Response:
    return Response(answers.encoded(data), status, {"cache-control": "no-store"}, "application/json")


def _refused(request: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, 400)


def _absent(request: Request, error: Exception | None) -> Response:
    return _json({"error": "not found"}, 404)


@cache
def _sent(name: str) -> Response | None:
    if name == "plotly.js":
        from plotly.offline import get_plotlyjs

        body = get_plotlyjs()
    elif name == "runtime.js":
        body = runtime()
    elif name in ASSETS:
        body = _file(*ASSETS[name])
    else:
        return None
    headers = {"cache-control": "private, max-age=86400"}
    return Response(body, media_type=KINDS[name.rsplit(".", 1)[1]], headers=headers)


def _file(package: str, folder: str, name: str) -> str:
    return files(package).joinpath(folder, name).read_text(encoding="utf-8")
