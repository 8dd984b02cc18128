// A sweep as it runs: how far it is, who is at work, what came last and what failed.
import { cell, count, el, fill, find, grid } from "./dom.js";
import { showDetail } from "./detail.js";

const UNITS = { params: "parameters", tokens: "tokens", loss: "nats/token" };
const COLUMNS = ["id", "status", "params", "tokens", "w_format", "a_format", "kv_format", "post_format", "loss"];
const TITLES = ["run", "status", "size", "tokens", "w", "a", "kv", "after", "loss"];

function time(seconds) {
  if (seconds < 90) return `${seconds} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

const link = (id) => el("button", { type: "button", class: "link", onclick: () => showDetail(id) }, id);

// Of a sweep whose plan is known its cells, else the rows that there are.
function bar({ status: of, rows, goal }) {
  const status = goal ? goal.status : of, whole = Math.max(1, goal ? goal.cells : rows);
  const pieces = Object.entries(status).filter(([, n]) => n).map(([name, n]) => {
    const piece = el("span", { class: `piece ${name}` });
    piece.style.width = `${(100 * n) / whole}%`;
    return piece;
  });
  return el("div", { class: "bar", role: "img", "aria-label": Object.entries(status).map(([k, n]) => `${n} ${k}`).join(", ") }, ...pieces);
}

function facts(now) {
  const { status, goal } = now, found = [["ok", count(status.ok)], ["diverged", count(status.diverged)], ["failed", count(status.failed)]];
  found.push(["rows in the last hour", count(now.last_hour)]);
  if (goal) found.push(["cells left", `${count(goal.left)} of ${count(goal.cells)}`]);
  if (goal?.seconds_left !== null && goal?.left) found.push(["time left, about", time(goal.seconds_left)]);
  return el("dl", { class: "facts" }, ...found.map(([name, value]) =>
    el("div", {}, el("dt", {}, name), el("dd", { "data-name": name }, value))));
}

export function drawSweep(now) {
  const place = find("view-sweep"), focus = place.contains(document.activeElement);
  if (focus && document.activeElement.tagName === "BUTTON") return; // a button that is about to be pressed stays
  const hint = now.goal ? null : el("p", { class: "soft" }, "Start it with --sweep and the sweep's TOML file to see what is left and how long that takes.");
  const workers = now.workers.length
    ? grid("Workers", ["worker", "at", "attempt"], now.workers.map((w) => [w.worker, w.work, String(w.attempts)]), [2])
    : el("p", { class: "soft" }, "Nobody is at work.");
  const newest = grid("Newest runs", TITLES, now.newest.map((run) => COLUMNS.map((name) =>
    name === "id" ? link(run.id) : cell(run[name], { name, unit: UNITS[name] }))), [2, 3, 8]);
  const lost = now.failures.length
    ? [el("h3", {}, "Without a loss, and why"), grid("Failures", ["run", "status", "reason"],
      now.failures.map((run) => [link(run.id), run.status, run.reason || ""]))]
    : [];
  fill(place,
    el("p", { role: "status", "aria-live": "polite", id: "sweep-said" }, `${count(now.rows)} runs, ${now.workers.length} at work`),
    bar(now), facts(now), hint,
    el("div", { class: "halves" }, el("div", {}, el("h3", {}, "Newest"), newest),
      el("div", {}, el("h3", {}, "At work"), workers, ...lost)));
}
