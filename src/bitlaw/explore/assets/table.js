// The table of runs: a page of it at a time, sorted by the server, with a box before each run that is chosen.
import { ask } from "./api.js";
import { cell, count, el, find } from "./dom.js";
import { showDetail } from "./detail.js";
import { changed, choose, isChosen, onChange, shown, state } from "./state.js";

const ROWS = 50;
let asking = null, last = null;
const NAMES = { params: "size", w_format: "w", a_format: "a", kv_format: "kv", post_format: "after", gap_se: "± gap" };

function heading(column) {
  const sorted = state.sort === column.name, way = state.down ? "descending" : "ascending";
  const turn = () => {
    state.down = sorted ? !state.down : false;
    state.sort = column.name;
    state.offset = 0;
    changed("table");
    find(`sort-${column.name}`)?.focus();
  };
  const button = el("button", { type: "button", id: `sort-${column.name}`, onclick: turn, title: column.name + (column.unit ? `, ${column.unit}` : "") },
    NAMES[column.name] || column.name.replaceAll("_", " "));
  if (sorted) button.append(el("span", { "aria-hidden": "true" }, state.down ? " ↓" : " ↑"));
  return el("th", { scope: "col", align: right(column), "aria-sort": sorted ? way : null }, button);
}

const right = ({ kind }) => (kind === "number" || kind === "integer" ? "right" : null);

function row(data, values, k) {
  const id = data.ids[k];
  const box = el("input", { type: "checkbox", "aria-label": `Choose ${id}` });
  box.checked = isChosen(id);
  box.addEventListener("change", () => choose(id, box.checked));
  const cells = values.map((value, j) => {
    const column = data.columns[j];
    if (column.name === "id")
      return el("th", { scope: "row" }, el("button", { type: "button", class: "link", title: id, onclick: () => showDetail(id) }, value));
    const shape = { align: right(column), class: column.name === "status" && value !== "ok" ? "bad" : null };
    return el("td", shape, cell(value, column));
  });
  return el("tr", {}, el("td", {}, box), ...cells);
}

function pages(data) {
  const end = Math.min(data.shown, data.offset + ROWS), go = (offset) => ((state.offset = offset), changed("table"));
  const button = (id, label, sign, offset, possible) =>
    el("button", { type: "button", id, "aria-label": label, disabled: !possible, onclick: () => go(offset) }, sign);
  const lastPage = Math.max(0, ROWS * Math.floor((data.shown - 1) / ROWS));
  return el("nav", { class: "pages", "aria-label": "Pages of runs" },
    button("page-first", "First page", "«", 0, data.offset > 0),
    button("page-before", "Page before", "‹", Math.max(0, data.offset - ROWS), data.offset > 0),
    el("span", {}, data.shown ? `${count(data.offset + 1)} to ${count(end)} of ${count(data.shown)}` : "none"),
    button("page-next", "Next page", "›", data.offset + ROWS, end < data.shown),
    button("page-last", "Last page", "»", lastPage, end < data.shown));
}

function columns(data) {
  const picked = new Set(data.columns.map((c) => c.name)), boxes = data.used.filter((name) => name !== "id").map((name) => {
    const box = el("input", { type: "checkbox", id: `column-${name}` });
    box.checked = picked.has(name);
    box.addEventListener("change", () => {
      box.checked ? picked.add(name) : picked.delete(name);
      state.columns = ["id", ...data.used.filter((other) => other !== "id" && picked.has(other))];
      changed("table");
    });
    return el("span", { class: "box" }, box, el("label", { for: box.id }, name));
  });
  return el("details", { class: "columns", id: "columns", open: Boolean(find("columns")?.open) },
    el("summary", {}, "Columns"), el("div", { class: "boxes" }, ...boxes));
}

function draw(data) {
  const focus = document.activeElement?.id, place = find("view-runs"), along = place.querySelector(".scroll")?.scrollLeft || 0;
  const table = el("table", { class: "runs" }, el("caption", { class: "hidden" }, "Runs that are shown"),
    el("thead", {}, el("tr", {}, el("td", {}, el("span", { class: "hidden" }, "chosen")), ...data.columns.map(heading))),
    el("tbody", {}, ...data.rows.map((values, k) => row(data, values, k))));
  const box = el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table of runs" }, table);
  const empty = el("p", {}, "No run meets these conditions.");
  place.replaceChildren(data.shown ? box : empty, el("div", { class: "below" }, pages(data), columns(data)));
  box.scrollLeft = along;
  if (focus) find(focus)?.focus();
}

export async function renewTable() {
  asking?.abort();
  asking = new AbortController();
  const values = { where: shown(), sort: state.sort, down: state.down ? "1" : "0", offset: state.offset, limit: ROWS,
    columns: state.columns.join(",") };
  try {
    last = await ask("rows", values, { signal: asking.signal });
    find("problem").hidden = true;
    draw(last);
  } catch (error) {
    if (error.name === "AbortError") return;
    find("problem").textContent = error.message;
    find("problem").hidden = false;
  }
}

export function mountTable() {
  onChange((what) => {
    if (what === "filters" || what === "table") renewTable();
    if (what === "pick" && last) for (const [k, box] of find("view-runs").querySelectorAll("tbody input").entries())
      box.checked = isChosen(last.ids[k]);
  });
}
