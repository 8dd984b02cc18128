// The form that says which runs are shown. It is made anew when the rows have other values to choose among.
import { ask } from "./api.js";
import { count, el, find } from "./dom.js";
import { changed, clearFilters, onChange, shown, state } from "./state.js";

const WAIT = 250;
const PART = { w: "weights", a: "activations", kv: "keys and values", q: "queries", emb: "embeddings", head: "output head",
  grad: "gradients", grad_w: "gradients of weights", post: "weights, after training" };
let waiting = 0, known = "", made = null;

function soon(wait = WAIT) {
  clearTimeout(waiting);
  waiting = setTimeout(() => changed("filters"), wait);
}

function text(id, label, hint, read, write, attributes = {}) {
  const input = el("input", { type: "text", id, placeholder: hint, autocomplete: "off", spellcheck: "false", ...attributes });
  input.value = read();
  input.addEventListener("input", () => (write(input.value), soon()));
  return el("p", { class: "field" }, el("label", { for: id }, label), input);
}

function between(column, label) {
  const place = (k) => {
    const input = el("input", { type: "text", inputmode: "decimal", autocomplete: "off", id: `${column}-${k}`,
      placeholder: ["from", "to"][k], "aria-label": `${label}, ${["from", "to"][k]}` });
    input.value = state.filters[column][k];
    input.addEventListener("input", () => ((state.filters[column][k] = input.value), soon()));
    return input;
  };
  return el("fieldset", {}, el("legend", {}, label), el("div", { class: "pair" }, place(0), place(1)));
}

function boxes(name, label, values, picked, write) {
  return el("fieldset", {}, el("legend", {}, label), ...values.map(([value, number], k) => {
    const box = el("input", { type: "checkbox", id: `${name}-${k}` });
    box.checked = picked().includes(value);
    box.addEventListener("change", () => {
      write(box.checked ? [...picked(), value] : picked().filter((other) => other !== value));
      soon(0); // with what was typed a moment ago
    });
    return el("p", { class: "box" }, box, el("label", { for: box.id }, value), el("span", { class: "number" }, count(number)));
  }));
}

function form(facets) {
  const more = el("textarea", { id: "more", rows: 3, spellcheck: "false", placeholder: "seed in 0,1\nloss < 3.2" });
  more.value = state.filters.more;
  more.addEventListener("input", () => ((state.filters.more = more.value), soon()));
  return [
    text("search", "Search", "any text of a run", () => state.filters.search, (v) => (state.filters.search = v)),
    boxes("status", "Status", facets.status, () => state.filters.status, (v) => (state.filters.status = v)),
    between("params", "Parameters"),
    between("tokens", "Tokens"),
    ...Object.entries(facets.formats).map(([column, values]) =>
      boxes(column, `Format of ${PART[column.replace("_format", "")]}`, values, () => state.filters.formats[column] || [],
        (v) => (state.filters.formats[column] = v))),
    text("trunk", "Trunk", "name of a training run", () => state.filters.trunk, (v) => (state.filters.trunk = v), { list: "trunks" }),
    el("datalist", { id: "trunks" }, ...facets.trunks.map((name) => el("option", { value: name }))),
    el("p", { class: "field" }, el("label", { for: "more" }, "More conditions, one a line"), more),
    el("p", {}, el("button", { type: "button", id: "clear", onclick: clear }, "Clear the filter")),
  ];
}

function clear() {
  clearTimeout(waiting);
  clearFilters();
  find("filters").replaceChildren(...form(made));
  find("clear").focus();
}

export async function renewFilters() {
  const facets = await ask("facets"), text = JSON.stringify(facets), place = find("filters");
  if (text === known || place.contains(document.activeElement)) return;
  [known, made] = [text, facets];
  place.replaceChildren(...form(facets));
}

export function mountFilters() {
  const place = find("filters"), fold = find("filter");
  fold.open = matchMedia("(min-width: 60rem)").matches;
  place.addEventListener("submit", (event) => event.preventDefault());
  const tell = () => {
    const number = shown().length;
    find("active").textContent = number ? `(${number} condition${number === 1 ? "" : "s"})` : "";
  };
  onChange(tell);
  tell();
}
