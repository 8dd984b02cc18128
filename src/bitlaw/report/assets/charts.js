// Draws figures {data, layout} with plotly in the colours of the page, and again when the scheme, the width or the
// medium changes. Uses the CSS variables --ink, --soft, --line and --paper.
"use strict";
var bitlaw = globalThis.bitlaw = globalThis.bitlaw || {};

bitlaw.charts = (() => {
  const NARROW = 560, PRINTED = 640, GREY = "#777777";
  const drawn = new Map(); // element -> how it is drawn again; none that has left the page
  let waiting = 0, printing = false;

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  // A long name on several lines, unless it is already.
  function wrapped(text, least = 9) {
    return text.includes("<br>") ? text : text.replace(new RegExp(`(.{${least},}?) `, "g"), "$1<br>");
  }

  // The figure in the page's colours. Grey marks take that of soft text; the rest are told apart on both papers.
  function dressed(text, scales, width, height) {
    const ink = colour("--ink"), soft = colour("--soft"), line = colour("--line");
    const figure = JSON.parse(text.replaceAll(`"${GREY}"`, `"${soft}"`));
    const { layout } = figure, narrow = width < NARROW;
    layout.font = { family: getComputedStyle(document.body).fontFamily, size: narrow ? 11 : 12.5, color: ink };
    layout.width = width;
    layout.height = height || (printing ? 330 : narrow ? 360 : 430); // two to a printed page
    layout.autosize = false;
    layout.dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom"; // a finger scrolls the page
    layout.hoverlabel = { bgcolor: colour("--paper"), bordercolor: line, font: { color: ink } };
    for (const name of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) {
      const axis = layout[name];
      Object.assign(axis, { gridcolor: line, linecolor: soft, tickcolor: soft, zerolinecolor: line, ticks: "outside" });
      if (scales[name]) rescale(layout, name, scales[name]);
    }
    if (narrow) {
      for (const axis of [layout.xaxis, layout.yaxis]) {
        if (axis.ticktext) axis.ticktext = axis.ticktext.map((text) => wrapped(text));
        if (axis.title && axis.title.text.length > 40) axis.title.text = wrapped(axis.title.text, 28);
      }
      layout.margin = { l: 48, r: 12, t: 12, b: 44 };
      if (layout.legend) Object.assign(layout.legend, { y: -0.24, yanchor: "top", font: { size: 11 } });
      if (layout.legend && layout.legend.title) layout.legend.title.side = "top";
      layout.height += layout.showlegend ? 16 * Math.min(8, figure.data.filter((t) => t.showlegend).length) : 0;
    }
    return figure;
  }

  // Another scale than the figure came with: numbers and range are plotly's own then, and notes move with the axis.
  function rescale(layout, name, scale) {
    const axis = layout[name], letter = name[0], ref = letter + name.slice(5);
    if (axis.type === scale) return;
    axis.type = scale;
    for (const key of ["tickmode", "tickvals", "ticktext", "range"]) delete axis[key];
    axis.autorange = true;
    for (const note of layout.annotations || [])
      if (note[`${letter}ref`] === ref)
        note[letter] = scale === "log" ? Math.log10(note[letter]) : 10 ** note[letter];
  }

  // Whether an axis may be switched: a logarithmic one always, a linear one where all that stands on it is positive.
  function switches(figure, name) {
    const axis = figure.layout[name], letter = name[0];
    if (axis.type === "log") return true;
    if (axis.tickvals || !figure.data.length) return false;
    return figure.data.every((t) => (t[`${letter}axis`] || letter) !== letter || (t[letter] || []).every((v) => v === null || v > 0));
  }

  // Draw a figure, given as JSON text, into an element; `scales` may name other scales for its axes.
  function draw(element, text, scales = {}, height = 0) {
    const again = (width = element.clientWidth) => {
      if (!(width > 0)) return;
      const { data, layout } = dressed(text, scales, width, height);
      Plotly.react(element, data, layout, { displayModeBar: false, responsive: false, showTips: false });
    };
    for (const old of drawn.keys()) if (!old.isConnected) forget(old);
    drawn.set(element, again);
    again();
  }

  // A figure of the page: its drawing, and buttons that switch its axes.
  function mount(figure) {
    const text = document.getElementById(figure.dataset.chart).textContent, parsed = JSON.parse(text);
    const canvas = figure.querySelector(".canvas"), bar = figure.querySelector(".scales"), scales = {};
    draw(canvas, text, scales);
    for (const name of ["xaxis", "yaxis"].filter((axis) => switches(parsed, axis))) {
      const button = document.createElement("button");
      const isLog = () => (scales[name] || parsed.layout[name].type) === "log";
      const tell = () => button.setAttribute("aria-pressed", String(isLog()));
      button.type = "button";
      button.textContent = `log ${name[0]}`;
      button.setAttribute("aria-label", `Logarithmic ${name[0] === "x" ? "horizontal" : "vertical"} axis`);
      button.addEventListener("click", () => {
        scales[name] = isLog() ? "linear" : "log";
        tell();
        draw(canvas, text, scales);
      });
      tell();
      bar.append(button);
    }
  }

  function all(width) {
    for (const [element, again] of drawn) element.isConnected ? again(width) : forget(element);
  }

  function forget(element) {
    Plotly.purge(element);
    drawn.delete(element);
  }

  function soon() {
    cancelAnimationFrame(waiting);
    if (!printing) waiting = requestAnimationFrame(() => all());
  }
  function print(now) {
    printing = now;
    cancelAnimationFrame(waiting);
    all(now ? PRINTED : undefined);
  }
  addEventListener("resize", soon);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", soon);
  matchMedia("print").addEventListener("change", (event) => print(event.matches));
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));

  return { draw, mount };
})();
