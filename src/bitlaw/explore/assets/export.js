// What is on the screen as commands, and the chosen runs as a file.
import { address, ask } from "./api.js";
import { commandLine, el, find } from "./dom.js";
import { chosen, onChange, state } from "./state.js";

const WHAT = { fit: "Fit the chosen runs, and keep the fit", compare: "Compare laws on them", report: "Write the report of them" };

async function renew() {
  const place = find("view-export"), where = chosen();
  try {
    const { commands } = await ask("selection", { where, law: state.law, interval: find("level").value, what: find("what").value });
    place.replaceChildren(
      ...Object.entries(WHAT).flatMap(([name, what]) => [el("h3", {}, what), commandLine(commands[name])]),
      el("h3", {}, "The chosen runs as a file"),
      el("p", {}, el("a", { href: address("runs.csv", { where }), download: "runs.csv", id: "csv" }, "runs.csv")));
  } catch (error) {
    place.replaceChildren(el("p", { class: "outside" }, error.message));
  }
}

export function mountExport() {
  onChange(() => state.tab === "export" && renew());
}
