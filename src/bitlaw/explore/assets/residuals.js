// Residuals of single runs. A click on a point, or a button of the table beside it, leaves a run out of the choice, and
// another one takes it in again.
import { el, grid } from "./dom.js";
import { showDetail } from "./detail.js";
import { figure } from "./fit.js";
import { isChosen, onChange, toggle } from "./state.js";

function table(rows) {
  return grid("Runs farthest off the fit", ["run", "error", "in noise", ""], rows.map(({ id, error, noise }) => {
    const out = el("button", { type: "button", "data-out": id, onclick: () => toggle(id) });
    return [el("button", { type: "button", class: "link", onclick: () => showDetail(id) }, id),
      `${error > 0 ? "+" : ""}${error.toFixed(2)} %`, `${Math.abs(noise).toFixed(1)} times`, out];
  }), [1, 2]);
}

export function drawResiduals(place, { chart, ids, farthest }) {
  if (!chart) return;
  const made = figure(chart);
  place.append(el("div", { class: "halves" }, made, el("div", {}, el("h3", {}, "Farthest off"), table(farthest))));
  bitlaw.charts.mount(made);
  made.querySelector(".canvas").on?.("plotly_click", ({ points: [{ curveNumber, pointNumber }] }) => toggle(ids[curveNumber][pointNumber]));
  tell();
}

function tell() {
  for (const button of document.querySelectorAll("[data-out]")) {
    const what = isChosen(button.dataset.out) ? "Leave out" : "Take in";
    if (button.textContent === what) continue; // what is written again is read out again
    button.textContent = what;
    button.setAttribute("aria-label", `${what} ${button.dataset.out}`);
  }
}

export function mountResiduals() {
  onChange((what) => what === "pick" && tell());
}
