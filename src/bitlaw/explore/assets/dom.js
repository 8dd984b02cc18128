// Elements made from script. Whatever comes from a table is text here: nothing is ever read as HTML.

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// Put children into a place, in the stead of what was there.
export function fill(place, ...children) {
  place.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
}

export const find = (id) => document.getElementById(id);

export const count = (value) => value.toLocaleString("en");

export const plural = (value, word) => `${count(value)} ${word}${value === 1 ? "" : "s"}`;

// A cell as people read it: sizes with a prefix, losses with four decimals, absent as nothing.
export function cell(value, { name, unit }) {
  if (value === null) return "";
  if (typeof value !== "number") return value;
  if (unit === "nats/token") return value.toFixed(4);
  if (["parameters", "tokens", "flops"].includes(unit) && value >= 1000) return bitlaw.numbers.quantity(value);
  if (unit === "bytes") return bitlaw.numbers.quantity(value, "bytes");
  if (name === "seed" || Number.isInteger(value)) return String(value);
  return String(Number(value.toPrecision(4)));
}

// A table in a box that scrolls by itself; `numbers` are places of columns of numbers.
export function grid(caption, header, rows, numbers = []) {
  const at = (k) => (numbers.includes(k) ? "right" : null);
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    el("table", {}, el("caption", { class: "hidden" }, caption),
      el("thead", {}, el("tr", {}, ...header.map((name, k) => el("th", { scope: "col", align: at(k) }, name)))),
      el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((value, k) =>
        k === 0 ? el("th", { scope: "row" }, value) : el("td", { align: at(k) }, value)))))));
}

// A command with a button that copies it.
export function commandLine(text) {
  const button = el("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return el("div", { class: "command" }, el("code", { tabindex: 0 }, text), button);
}
