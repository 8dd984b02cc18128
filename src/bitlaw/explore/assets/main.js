// The page begins here: views are put in place, the runs are asked after every other second, and the choice is counted.
import { address, ask } from "./api.js";
import { mountCompare } from "./compare.js";
import { count, find } from "./dom.js";
import { mountExport } from "./export.js";
import { mountFilters, renewFilters } from "./filters.js";
import { mountFit } from "./fit.js";
import { mountPlan } from "./plan.js";
import { mountResiduals } from "./residuals.js";
import { changed, chooseAll, chosen, onChange, restore, shown, state } from "./state.js";
import { drawSweep } from "./sweep.js";
import { mountTable, renewTable } from "./table.js";
import { mountTabs, showTab } from "./tabs.js";

const EVERY = 2000;
let tag = "", version = "", rows = 0, counting = null;

async function countChosen() {
  counting?.abort();
  counting = new AbortController();
  try {
    const where = chosen();
    const [found, all] = await Promise.all([
      ask("selection", { where }, { signal: counting.signal }),
      ask("selection", { where: shown() }, { signal: counting.signal }),
    ]);
    state.mark = found.mark;
    changed("mark");
    const of = all.chosen === rows ? "" : `, of ${count(rows)} in all`;
    find("chosen").textContent = `${count(found.chosen)} of ${count(all.chosen)} shown runs are chosen${of}`;
  } catch (error) {
    if (error.name !== "AbortError") find("chosen").textContent = "";
  }
}

async function poll() {
  if (document.hidden) return;
  let response;
  try {
    response = await fetch(address("state"), { headers: tag ? { "If-None-Match": tag } : {} });
  } catch {
    find("live").textContent = "bitlaw explore has ended; start it again to go on";
    tag = ""; // so that the next answer is whole, and takes the place of this
    return;
  }
  if (response.status !== 200) return;
  const now = await response.json();
  find("source").textContent = now.source;
  document.title = `${now.source} – bitlaw explore`;
  const working = now.workers.length ? `, ${now.workers.length} at work` : "";
  find("live").textContent = `${count(now.rows)} runs${working}${now.problem ? `; ${now.problem}` : ""}`;
  rows = now.rows;
  drawSweep(now);
  if (now.version !== version) {
    await Promise.all([renewTable(), renewFilters(), countChosen()]);
    version = now.version;
    changed("rows");
  }
  tag = response.headers.get("etag"); // not before all of it is shown
}

async function watch() {
  try {
    await poll();
  } finally { // whatever went wrong, the next look is another try
    setTimeout(watch, EVERY);
  }
}

restore();
mountTabs();
mountFilters();
mountTable();
mountFit();
mountCompare();
mountResiduals();
mountPlan();
mountExport();
find("choose-all").addEventListener("click", () => chooseAll(true));
find("choose-none").addEventListener("click", () => chooseAll(false));
onChange((what) => (what === "filters" || what === "pick") && countChosen());
document.addEventListener("visibilitychange", poll);
showTab(state.tab);
watch();
