// Residuals of single runs. A click on a point, or a button of the table beside it, leaves a run out of the choice.
import { el, grid } from "./dom.js";
import { showDetail } from "./detail.js";
import { figure } from "./fit.js";
import { choose } from "./state.js";

function table(rows) {
  return grid("Runs farthest off the fit", ["run", "error", "in noise", ""], rows.map(({ id, error, noise }) => {
    const out = el("button", { type: "button", "aria-label": `Leave out ${id}` }, "Leave out");
    out.addEventListener("click", () => (choose(id, false), (out.disabled = true), (out.textContent = "Left out")));
    return [el("button", { type: "button", class: "link", onclick: () => showDetail(id) }, id),
      `${error > 0 ? "+" : ""}${error.toFixed(2)} %`, `${Math.abs(noise).toFixed(1)} times`, out];
  }), [1, 2]);
}

export function drawResiduals(place, { chart, ids, farthest }) {
  if (!chart) return;
  const made = figure(chart);
  place.append(el("div", { class: "halves" }, made, el("div", {}, el("h3", {}, "Farthest off"), table(farthest))));
  bitlaw.charts.mount(made);
  const canvas = made.querySelector(".canvas");
  canvas.on?.("plotly_click", ({ points: [{ curveNumber, pointNumber }] }) => choose(ids[curveNumber][pointNumber], false));
}
