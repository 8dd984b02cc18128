// A law on the chosen runs: constants with intervals, what is not known, and charts.
import { part, work } from "./api.js";
import { commandLine, el, fill, find, grid, plural } from "./dom.js";
import { drawResiduals } from "./residuals.js";
import { chosen, onChange, state } from "./state.js";

const seen = [];
let looking = null, wanted = "";

export const onFit = (listener) => seen.push(listener);

function options(laws, out) {
  const one = (name) => el("option", { value: name, selected: name === state.law }, name);
  const left = Object.keys(out).filter((name) => !laws.includes(name));
  return [...laws.map(one), ...(left.length ? [el("optgroup", { label: "Not for these runs" },
    ...left.map((name) => el("option", { value: name, disabled: true, title: out[name] }, name)))] : [])];
}

// Which laws the chosen runs can carry is looked up when somebody is about to choose one.
async function renewLaws() {
  const where = chosen(), text = JSON.stringify(where), note = find("law-note");
  if (text === wanted) return;
  wanted = text;
  looking?.abort();
  looking = new AbortController();
  note.textContent = "finding which laws these runs can carry …";
  try {
    const job = await work("laws", { where }, () => {}, looking.signal);
    const { laws, left_out: out } = await part(job, "laws");
    if (!laws.includes(state.law) && laws.length) state.law = laws[0];
    find("law").replaceChildren(...options(laws, out));
    note.textContent = `${plural(laws.length, "law")} can be fitted to these runs`;
  } catch (error) {
    if (error.name === "AbortError") return;
    wanted = "";
    note.textContent = error.message;
  }
}

export function progress(place, label) {
  const bar = el("progress", { max: 1, "aria-label": label }), said = el("span", { class: "soft" });
  place.replaceChildren(el("p", { class: "waiting" }, bar, " ", said));
  return (job) => {
    if (job.share) bar.value = job.share;
    said.textContent = job.state === "waiting" ? "waiting for other work" : job.doing || label;
  };
}

export function figure(chart) {
  const id = `chart-${chart.name}`, text = JSON.stringify({ data: chart.data, layout: chart.layout });
  const made = el("figure", { "data-chart": `${id}-data` },
    el("header", {}, el("h3", {}, chart.title), el("div", { class: "scales" })),
    el("div", { class: "canvas", id, role: "img", "aria-label": chart.title, "aria-describedby": `${id}-caption` }),
    el("figcaption", { id: `${id}-caption` }, chart.caption),
    el("script", { type: "application/json", id: `${id}-data` }, text));
  return made;
}

async function run() {
  const place = find("fit-result"), where = chosen(), law = find("law").value, interval = find("level").value;
  const go = find("fit-go");
  go.disabled = true;
  try {
    const job = await work("fit", { where, law, interval }, progress(place, `fitting ${law}`));
    const [data, charts, residuals] = await Promise.all(["fit", "charts", "residuals"].map((name) => part(job, name)));
    draw(place, data, charts, residuals);
    for (const listener of seen) listener(job, data);
  } catch (error) {
    place.replaceChildren(el("p", { class: "outside", role: "alert" }, error.message));
  }
  go.disabled = false;
}

function draw(place, data, charts, residuals) {
  const rows = Object.entries(data.rows).map(([kind, n]) => `${n.toLocaleString("en")} ${kind === "loss" ? "losses" : "gaps"}`);
  const figures = charts.map(figure), rest = el("section", {});
  fill(place,
    staleNote("fit-stale", data.mark, "this fit", el("button", { type: "button", onclick: run }, "Fit again")),
    el("h2", {}, `${data.law.name}: ${rows.join(" and ")}`),
    el("p", { class: "soft" }, `${data.source}. ${plural(data.clusters, "independent cluster")}; N counted as ${data.count}.`),
    el("dl", { class: "equations" }, ...Object.entries(data.equations).map(([name, text]) =>
      el("div", {}, el("dt", {}, name), el("dd", {}, el("code", {}, text))))),
    grid("Constants of the law", ["constant", "estimate", `${Math.round(100 * data.interval.level)} % interval`, "status", "meaning"],
      data.table.map((e) => [e.name, e.value, e.interval, e.status, e.meaning + (e.unit ? ` [${e.unit}]` : "")]), [1]),
    ...data.said.map((sentence) => el("p", { class: "soft" }, sentence)),
    data.notes.length ? el("ul", { class: "notes" }, ...data.notes.map((note) => el("li", {}, `${note}.`))) : null,
    rest, el("div", { class: "figures" }, ...figures), el("h3", {}, "The same on a terminal"), commandLine(data.commands.fit));
  for (const each of figures) bitlaw.charts.mount(each);
  drawResiduals(rest, residuals);
}

// Says, once it is so, that the chosen rows are no longer those of a result.
export function staleNote(id, mark, what, ...more) {
  const hidden = state.mark === mark;
  return el("p", { class: "outside stale", id, hidden, "data-mark": mark }, `The chosen runs have changed since ${what}. `, ...more);
}

function stale() {
  for (const note of document.querySelectorAll(".stale")) note.hidden = note.dataset.mark === state.mark;
}

export function mountFit() {
  find("view-fit").append(
    el("form", { class: "line", onsubmit: (event) => (event.preventDefault(), run()) },
      el("label", { for: "law" }, "Law"), el("select", { id: "law", onchange: (event) => (state.law = event.target.value) },
        el("option", { value: state.law }, state.law)),
      el("label", { for: "level" }, "Intervals"), el("select", { id: "level" }, ...[["0.8", "80 %"], ["0.9", "90 %"], ["0.95", "95 %"]]
        .map(([value, name]) => el("option", { value, selected: value === "0.9" }, name))),
      el("button", { type: "submit", class: "go", id: "fit-go" }, "Fit the chosen runs"),
      el("span", { class: "soft", id: "law-note", role: "status" })),
    el("div", { id: "fit-result", "aria-live": "polite" }));
  onChange((what) => {
    if (what === "rows") wanted = "";
    if (what === "mark") stale();
    if (state.tab === "fit") renewLaws();
  });
}
