// The planner panel: controls, what they mean by the law, and the command that asks the same. Call
// bitlaw.mountPanel(element, data, law), with data from panel_data and law the functions that javascript() wrote.
"use strict";
var bitlaw = globalThis.bitlaw = globalThis.bitlaw || {};

bitlaw.mountPanel = (element, data, law) => {
  const { read, quantity, flops } = bitlaw.numbers, planner = bitlaw.planner(data, law);
  const level = `${Number((100 * data.level).toPrecision(6))}%`;
  const PER_DECADE = 20, id = `panel-${document.querySelectorAll(".panel").length}`;
  const state = { budget: data.budget.start, params: null, served: 0, formats: {} };

  function make(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes))
      if (value !== null) name === "class" ? (made.className = value) : made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  // ---- controls

  // A quantity on a logarithmic scale: a slider and a field that follow each other. `zero` puts "none" at its left end.
  function amount(name, label, unit, range, show, zero = false) {
    const decades = Math.log10(range.high / range.low), low = Math.log10(range.low);
    const first = zero ? 1 : 0, steps = Math.round(decades * PER_DECADE) + first;
    const value = (place) => (place < first ? 0 : Number((10 ** (low + (place - first) / PER_DECADE)).toPrecision(3)));
    const slider = make("input", { type: "range", id: `${id}-${name}`, min: 0, max: steps, step: 1, "data-name": name });
    const field = make("input", { type: "text", inputmode: "decimal", autocomplete: "off", spellcheck: "false",
      "aria-label": `${label}, as a number`, "data-name": `${name}-field`, "aria-describedby": `${id}-${name}-wrong` });
    const wrong = make("span", { class: "wrong", id: `${id}-${name}-wrong`, role: "alert", hidden: "" },
      "Not a number; write it like 3e9 or 3G");
    const row = make("div", { class: "control" }, make("label", { for: slider.id }, label), make("span", { class: "unit" }, unit),
      slider, field, wrong);
    let typing = false; // what is being typed is not written over
    const set = (to) => {
      const place = to > 0 ? Math.round((Math.log10(to) - low) * PER_DECADE) + first : 0;
      slider.value = Math.min(steps, Math.max(0, place));
      const written = to > 0 ? show(to) : "none";
      slider.setAttribute("aria-valuetext", `${written} ${to > 0 ? unit : ""}`.trim());
      if (typing) return;
      field.value = written;
      field.removeAttribute("aria-invalid");
      wrong.hidden = true;
    };
    slider.addEventListener("input", () => change({ [name]: value(Number(slider.value)) }));
    field.addEventListener("input", () => (typing = true));
    field.addEventListener("blur", () => (typing = false));
    field.addEventListener("change", () => {
      typing = false;
      const typed = zero && /^\s*(none|0)?\s*$/.test(field.value) ? 0 : read(field.value);
      if (!Number.isNaN(typed)) return change({ [name]: typed });
      field.setAttribute("aria-invalid", "true");
      wrong.hidden = false;
    });
    return { row, slider, field, set };
  }

  // The format of a part: a slider over numbers of bits, or a list of names.
  function format({ part, label, options }) {
    const bits = options.every((option) => /^[0-9]+ bits$/.test(option.label));
    const plain = part === "post" ? 0 : options.length - 1;
    state.formats[part] = plain;
    const input = bits
      ? make("input", { type: "range", id: `${id}-${part}`, min: 0, max: options.length - 1, step: 1, "data-name": part })
      : make("select", { id: `${id}-${part}`, "data-name": part }, ...options.map((o, k) => make("option", { value: k }, o.label)));
    const shown = make("span", { class: "shown", "aria-hidden": "true" });
    const row = make("div", { class: `control ${bits ? "" : "listed"}` }, make("label", { for: input.id }, label),
      make("span", { class: "unit" }), input, ...(bits ? [shown] : []));
    const set = (place) => {
      input.value = place;
      shown.textContent = options[place].label;
      if (bits) input.setAttribute("aria-valuetext", options[place].label);
    };
    input.addEventListener("input", () => change({ formats: { ...state.formats, [part]: Number(input.value) } }));
    return { row, set, part };
  }

  const budget = amount("budget", "Budget", "16-bit FLOPs", data.budget, flops);
  const size = amount("params", "Size", "parameters", data.params, (v) => quantity(v));
  const served = amount("served", "Served in its lifetime", "tokens", data.served, (v) => quantity(v), true);
  const free = make("input", { type: "checkbox", id: `${id}-best`, "data-name": "best" });
  free.checked = true;
  size.row.append(make("span", { class: "beside" }, free, make("label", { for: free.id }, "the best size")));
  free.addEventListener("change", () => change({ params: free.checked ? null : Number(shownSize.toPrecision(3)) }));
  const formats = data.controls.map(format);
  const controls = make("form", { class: "controls", "aria-label": "What there is to spend and to choose" },
    budget.row, size.row, ...formats.map((f) => f.row), served.row);
  controls.addEventListener("submit", (event) => event.preventDefault());

  // ---- answers

  const LINES = [
    ["loss", "Loss", "nats per token"], ["gap", "of it, the gap after quantisation", ""],
    ["size", "Size", "parameters"], ["tokens", "Training tokens", ""], ["best", "Best size", "parameters"],
    ["memory", "Weights in serving", ""],
  ].filter(([name]) => name !== "gap" || data.gap);
  const outputs = Object.fromEntries(LINES.map(([name]) => [name, make("output", { "aria-live": "off", "data-name": name })]));
  const sub = Object.fromEntries(LINES.map(([name]) => [name, make("span", { class: "sub" })]));
  const lines = make("dl", {}, ...LINES.map(([name, label, unit]) =>
    make("div", {}, make("dt", {}, label), make("dd", {}, outputs[name], " ", make("span", { class: "unit" }, unit), sub[name]))));
  const outside = make("p", { class: "outside", role: "alert", hidden: "" });
  const beyond = make("ul", { class: "beyond" });
  const plot = make("div", { class: "canvas", role: "img", "aria-label": "Loss against size at this budget" });
  const spoken = make("p", { class: "hidden", role: "status", "aria-live": "polite" });
  const code = make("code", { "data-name": "command", tabindex: 0 });
  const copy = make("button", { type: "button" }, "Copy");
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch { // pages from disk may not write to it; a selection can always be copied
      getSelection().selectAllChildren(code);
      document.execCommand("copy");
    }
    copy.textContent = "Copied";
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  });
  element.classList.add("panel");
  const legend = make("p", { class: "soft legend" }, "Loss against size at this budget. Dot: what is chosen; shaded: within ",
    `${100 * data.tolerance}% of the reducible loss.`,
    data.drawn ? ` Intervals: ${level} confidence, ${data.method}, ${data.drawn.toLocaleString("en")} draws of the constants.` : "");
  element.append(controls, make("div", { class: "answers" }, outside, lines, beyond, spoken),
    make("div", { class: "plot" }, plot, legend),
    make("div", { class: "command" }, code, copy));

  // ---- from a state to what is shown

  let shownSize = data.params.start, frame = 0, speaking = 0;

  function change(part) {
    Object.assign(state, part);
    free.checked = state.params === null;
    for (const f of formats) f.set(state.formats[f.part]);
    budget.set(state.budget);
    served.set(state.served);
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(show);
  }

  function put(name, value, text, below = "") {
    outputs[name].dataset.value = value === null ? "" : String(value);
    outputs[name].textContent = text;
    sub[name].textContent = below;
  }

  function range(pair, write) {
    return pair ? `${write(pair[0])} to ${write(pair[1])}` : "";
  }

  function show() {
    const { point, best, outside: why } = planner.answer(state);
    const sure = `${level}: `, nats = (v) => v.toFixed(4);
    outside.hidden = !why;
    outside.textContent = why ? `The law says nothing here: ${why.replace(/\.?$/, ".")}` : "";
    lines.hidden = plot.parentElement.hidden = Boolean(why);
    beyond.replaceChildren(...(point ? point.beyond : []).map((text) => make("li", {}, `${text}.`)));
    code.textContent = planner.command(state);
    if (state.params !== null) shownSize = state.params;
    else if (best) shownSize = best.params;
    size.set(shownSize);
    if (!point) return say(outside.textContent);
    const all = point.tokens === point.bought;
    put("loss", point.loss, nats(point.loss), point.lossInterval ? sure + range(point.lossInterval, nats) : "");
    if (data.gap) put("gap", point.gap, point.gap === null ? "none" : nats(point.gap), point.gapInterval ? sure + range(point.gapInterval, nats) : "");
    put("size", point.params, quantity(point.params), `${quantity(point.tokens / point.params)} tokens a parameter`);
    put("tokens", point.tokens, quantity(point.tokens),
      all ? "all that the budget buys" : `of ${quantity(point.bought)} that the budget buys; more would hurt`);
    put("best", best && best.params, best ? quantity(best.params) : "–",
      best ? `${range(best.near, quantity)} within ${100 * data.tolerance}% of the reducible loss` : "");
    put("memory", point.bytes, quantity(point.bytes, "bytes"), `scales included${data.count === "non_embedding" ? ", embeddings not" : ""}`);
    outputs.loss.dataset.interval = JSON.stringify(point.lossInterval);
    if (data.gap) outputs.gap.dataset.interval = JSON.stringify(point.gapInterval);
    outputs.best.dataset.interval = JSON.stringify(best && best.near);
    outputs.tokens.dataset.bought = String(point.bought);
    draw(point, best);
    say(`Loss ${nats(point.loss)}, ${quantity(point.params)} parameters, ${quantity(point.tokens)} tokens.`);
  }

  function say(text) {
    clearTimeout(speaking);
    speaking = setTimeout(() => (spoken.textContent = text), 600);
  }

  function draw(point, best) {
    const reach = Math.max(2.5, best ? Math.abs(Math.log(point.params / best.params)) + 0.3 : 0);
    const curve = planner.curve(state, (best || point).params, 81, reach);
    const losses = curve.map((p) => p.loss);
    const shapes = best
      ? [{ type: "rect", layer: "below", xref: "x", x0: best.near[0], x1: best.near[1], yref: "y domain", y0: 0, y1: 1,
          fillcolor: "rgba(102,102,102,0.14)", line: { width: 0 } }]
      : [];
    bitlaw.charts.draw(plot, JSON.stringify({
      data: [
        { type: "scatter", mode: "lines", x: curve.map((p) => p.params), y: losses, line: { color: "#2481C4", width: 2 },
          hovertemplate: "%{x:.3s} parameters: %{y:.4f}<extra></extra>", showlegend: false },
        { type: "scatter", mode: "markers", x: [point.params], y: [point.loss], marker: { color: "#D55E00", size: 11 },
          hovertemplate: "chosen: %{x:.3s} parameters, %{y:.4f}<extra></extra>", showlegend: false },
      ],
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 60, r: 16, t: 10, b: 46 }, shapes,
        xaxis: { type: "log", title: { text: "parameters" }, exponentformat: "B", dtick: 1, minor: { dtick: "D1" } },
        yaxis: { title: { text: "loss, nats per token" }, nticks: 6, tickformat: ".2~f" },
      },
    }), {}, 280);
  }

  change({});
};
