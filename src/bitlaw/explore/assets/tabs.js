// The views of the page as tabs: arrow keys move between them, and one is shown.
import { el, find } from "./dom.js";
import { changed, state } from "./state.js";

const VIEWS = { runs: "Runs", fit: "Fit", compare: "Compare", plan: "Plan", sweep: "Sweep", export: "Export" };

export function showTab(name) {
  state.tab = name in VIEWS ? name : "runs";
  for (const view of Object.keys(VIEWS)) {
    const tab = find(`tab-${view}`), open = view === state.tab;
    tab.setAttribute("aria-selected", String(open));
    tab.tabIndex = open ? 0 : -1;
    find(`view-${view}`).hidden = !open;
  }
  changed("tab");
  dispatchEvent(new Event("resize")); // charts that were hidden have a width now
}

export function mountTabs() {
  const names = Object.keys(VIEWS), bar = find("tabs");
  bar.append(...names.map((name) => el("button", { type: "button", role: "tab", id: `tab-${name}`,
    "aria-controls": `view-${name}`, onclick: () => showTab(name) }, VIEWS[name])));
  bar.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const to = event.key === "Home" ? 0 : event.key === "End" ? names.length - 1 : step
      && (names.indexOf(state.tab) + step + names.length) % names.length;
    if (to === undefined) return;
    event.preventDefault();
    showTab(names[to]);
    find(`tab-${names[to]}`).focus();
  });
}
