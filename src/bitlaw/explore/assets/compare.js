// Laws ranked on the chosen runs by their error on runs held out.
import { part, work } from "./api.js";
import { commandLine, el, fill, find, grid, plural } from "./dom.js";
import { progress, staleNote } from "./fit.js";
import { chosen } from "./state.js";

const HEADER = ["law", "constants", "mean abs. error", "bias", "worse than the best by"];

async function run() {
  const place = find("compare-result"), where = chosen(), go = find("compare-go");
  go.disabled = true;
  try {
    const job = await work("compare", { where, what: find("what").value }, progress(place, "comparing laws"));
    draw(place, await part(job, "comparison"));
  } catch (error) {
    place.replaceChildren(el("p", { class: "outside", role: "alert" }, error.message));
  }
  go.disabled = false;
}

function ranking({ split, what, rows, clusters, laws, baselines, verdict, level }) {
  const of = `${rows.toLocaleString("en")} ${what === "loss" ? "losses" : "gaps"} in ${plural(clusters, "cluster")}`;
  return [
    el("h3", {}, `Held out: ${split}`),
    el("p", {}, verdict),
    grid(`Laws, held out ${split}`, HEADER, [...laws, ...baselines], [1, 2, 3, 4]),
    el("p", { class: "soft" }, `${of}. Intervals: ${Math.round(100 * level)} % confidence, Student's t over clusters; those of how much `
      + "laws are worse than the best hold for all laws of a ranking at once."),
  ];
}

function draw(place, data) {
  const out = Object.entries(data.left_out);
  fill(place,
    staleNote("compare-stale", data.mark, "this comparison"),
    ...data.rankings.flatMap(ranking),
    out.length ? el("details", {}, el("summary", {}, `Left out (${out.length})`),
      el("ul", {}, ...out.map(([name, why]) => el("li", {}, el("strong", {}, name), `: ${why}`)))) : null,
    el("h3", {}, "The same on a terminal"), commandLine(data.commands.compare));
}

export function mountCompare() {
  find("view-compare").append(
    el("form", { class: "line", onsubmit: (event) => (event.preventDefault(), run()) },
      el("label", { for: "what" }, "By"), el("select", { id: "what" }, el("option", { value: "loss" }, "losses after training"),
        el("option", { value: "gap" }, "gaps of quantisation")),
      el("button", { type: "submit", class: "go", id: "compare-go" }, "Compare laws on the chosen runs")),
    el("div", { id: "compare-result", "aria-live": "polite" },
      el("p", { class: "soft" }, "Every law that the chosen runs can carry is fitted without some of them and judged by those.")));
}
