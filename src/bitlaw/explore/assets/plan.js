// The planner of the fitted law: sliders, and what they mean.
import { address, part } from "./api.js";
import { commandLine, el, find } from "./dom.js";
import { onFit } from "./fit.js";
import { showTab } from "./tabs.js";

async function renew(job, data) {
  const place = find("view-plan");
  if (!job.parts.includes("panel")) {
    const { reason } = await part(job, "noplan");
    place.replaceChildren(el("p", { class: "outside" }, reason));
    return;
  }
  const [panel, module] = await Promise.all([part(job, "panel"),
    import(new URL(address("part", { key: job.key, name: "law" }), document.baseURI))]);
  const box = el("div", {});
  place.replaceChildren(el("h2", {}, `Plan with ${data.law.name}`), box,
    el("h3", {}, "The fit that the command reads"), commandLine(data.commands.fit));
  bitlaw.mountPanel(box, panel, module.default(bitlaw.runtime));
}

export function mountPlan() {
  find("view-plan").append(el("p", {}, "A plan needs a fitted law. ",
    el("button", { type: "button", onclick: () => showTab("fit") }, "Fit one")));
  onFit(renew);
}
