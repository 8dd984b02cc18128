// One run, whole: every column that it has, with unit and meaning, and its configuration.
import { ask } from "./api.js";
import { cell, el, find } from "./dom.js";
import { isChosen, toggle } from "./state.js";

export async function showDetail(id) {
  const box = find("detail"), run = await ask("run", { id });
  const close = el("button", { type: "button", onclick: () => box.close() }, "Close");
  const leave = el("button", { type: "button" });
  const tell = () => (leave.textContent = isChosen(id) ? "Leave out" : "Take in");
  leave.addEventListener("click", () => (toggle(id), tell()));
  tell();
  const rows = run.facts.map(({ column, value, unit, meaning }) => el("tr", {}, el("th", { scope: "row" }, column),
    el("td", {}, cell(value, { name: column, unit }), unit ? el("span", { class: "unit" }, ` ${unit}`) : ""),
    el("td", { class: "soft" }, meaning)));
  const kin = run.children.length
    ? [el("h3", {}, "Made from it"), el("p", {}, ...run.children.flatMap((child) =>
      [el("button", { type: "button", class: "link", onclick: () => showDetail(child) }, child), " "]))]
    : [];
  const long = Object.entries(run.long).map(([name, text]) =>
    el("details", {}, el("summary", {}, name), el("pre", { tabindex: 0 }, text)));
  box.replaceChildren(
    el("header", {}, el("h2", { id: "detail-title" }, id), el("div", { class: "buttons" }, leave, close)),
    el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Columns of the run" },
      el("table", {}, el("caption", { class: "hidden" }, "Columns of the run"), el("tbody", {}, ...rows))),
    ...kin, ...long);
  if (!box.open) box.showModal();
  box.scrollTop = 0;
}
