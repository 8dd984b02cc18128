// What the page is about: which runs are shown and chosen, how they are sorted, which view is open. It is kept in the
// address behind the #, so that a reload shows the same. Conditions are text, the same that --where takes.

const fresh = () => ({ search: "", status: [], formats: {}, params: ["", ""], tokens: ["", ""], trunk: "", more: "" });

export const state = {
  filters: fresh(),
  pick: { all: true, ids: new Set() }, // all shown but these, or only these
  sort: "", down: false, columns: [], offset: 0,
  tab: "runs", law: "kumar",
  mark: "", // of the rows that are chosen: another one where there are others
};

const listeners = [];

export function onChange(listener) {
  listeners.push(listener);
}

// Say what has changed: "filters", "pick", "table", "tab", "rows" or "mark".
export function changed(what) {
  if (what === "filters") state.offset = 0;
  const { filters, pick, sort, down, columns, tab, law } = state;
  const kept = JSON.stringify({ filters, pick: { all: pick.all, ids: [...pick.ids] }, sort, down, columns, tab, law });
  history.replaceState(null, "", `#${encodeURIComponent(kept)}`);
  for (const listener of listeners) listener(what);
}

export function restore() {
  try {
    const kept = JSON.parse(decodeURIComponent(location.hash.slice(1)));
    Object.assign(state, {
      filters: { ...fresh(), ...kept.filters },
      pick: { all: kept.pick.all === true, ids: new Set(kept.pick.ids.map(String)) },
      sort: String(kept.sort || ""), down: kept.down === true, columns: (kept.columns || []).map(String),
      tab: String(kept.tab), law: String(kept.law),
    });
  } catch {} // an address without a state, or with one that is spoilt
}

export function clearFilters() {
  state.filters = fresh();
  changed("filters");
}

function quoted(word) {
  return /^[\w.:/+-]+$/.test(word) && word !== "none" ? word : JSON.stringify(word);
}

const listed = (words) => words.map((word) => (word === "none" ? word : quoted(word))).join(",");

// Conditions of the runs that are shown.
export function shown() {
  const { search, status, formats, trunk, more } = state.filters, found = [];
  if (search.trim()) found.push(`any contains ${JSON.stringify(search.trim())}`);
  if (status.length) found.push(`status in ${listed(status)}`);
  for (const [column, names] of Object.entries(formats)) if (names.length) found.push(`${column} in ${listed(names)}`);
  for (const column of ["params", "tokens"]) {
    const [low, high] = state.filters[column];
    if (low.trim()) found.push(`${column} >= ${low.trim()}`);
    if (high.trim()) found.push(`${column} <= ${high.trim()}`);
  }
  if (trunk.trim()) found.push(`trunk = ${JSON.stringify(trunk.trim())}`);
  return [...found, ...more.split("\n").map((line) => line.trim()).filter(Boolean)];
}

// Conditions of the runs that are chosen among them.
export function chosen() {
  const { all, ids } = state.pick, names = [...ids].map(quoted).join(",");
  if (all) return ids.size ? [...shown(), `id not in ${names}`] : shown();
  return [...shown(), ids.size ? `id in ${names}` : "id = none"];
}

export const isChosen = (id) => state.pick.all !== state.pick.ids.has(id);

export function choose(id, wanted) {
  if (wanted === state.pick.all) state.pick.ids.delete(id);
  else state.pick.ids.add(id);
  changed("pick");
}

export const toggle = (id) => choose(id, !isChosen(id));

export function chooseAll(all) {
  state.pick = { all, ids: new Set() };
  changed("pick");
}
