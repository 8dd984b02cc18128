// The planner in the browser: what a budget buys by a law, without a page around it. The costs, the search and the
// ranges are those of the package's `plan`; a test compares them. `law` is what `bitlaw.laws` holds for the panel.
"use strict";
var bitlaw = globalThis.bitlaw = globalThis.bitlaw || {};

bitlaw.planner = (data, law) => {
  const { guarded } = bitlaw.runtime;
  const theta = data.theta, draws = unpack(data.draws, theta.length);
  const place = Object.fromEntries(data.columns.map((name, k) => [name, k]));
  const MIDDLE = 35, GRID = 65, ROUNDS = 90, GOLDEN = (Math.sqrt(5) - 1) / 2, NEAR = 4, STEPS = 321;

  function unpack(text, width) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0)), view = new DataView(bytes.buffer);
    return Array.from({ length: bytes.length / 8 / width }, (_, s) =>
      Array.from({ length: width }, (_, k) => view.getFloat64(8 * (s * width + k), true)));
  }

  // What the chosen formats mean: columns, what a FLOP costs in training and in serving, bits of a served weight.
  function setting(state) {
    const values = { ...data.base }, chosen = {};
    for (const { part, options } of data.controls) {
      chosen[part] = options[state.formats[part]];
      Object.assign(values, chosen[part].columns);
    }
    const { all, w, a, post } = chosen;
    const train = all ? all.train : Math.max(w ? w.bits : 16, a ? a.bits : 16) / 16;
    const after = post && post.name !== "none" ? post : null;
    const served = after || all || w || { bits: 16, bpw: 16 };
    const x = data.columns.map((name) => values[name]);
    const turns = data.turns || (after !== null && data.gap);
    return { x, values, chosen, train, serve: served.bits / 16, bpw: served.bpw, turns, after, state };
  }

  function at(s, params, tokens) {
    s.x[place.params] = params;
    s.x[place.tokens] = tokens;
    if ("unique_tokens" in place) s.x[place.unique_tokens] = tokens;
    return s.x;
  }

  function loss(s, params, tokens) {
    if (!(params >= 1 && tokens >= 1)) return Infinity;
    return guarded(law, "total", theta, at(s, params, tokens)) ?? Infinity;
  }

  // Tokens that the budget buys for a size, after serving is paid.
  function bought(s, params) {
    return (s.state.budget - 2 * s.state.served * s.serve * params) / (6 * params * s.train);
  }

  // A minimum between two ends: the lowest of a grid, then golden sections around it.
  function minimum(f, low, high, count) {
    let best = low, least = Infinity;
    const step = (high - low) / (count - 1);
    for (let k = 0; k < count; k++) {
      const value = f(low + k * step);
      if (value < least) [best, least] = [low + k * step, value];
    }
    let a = Math.max(low, best - step), b = Math.min(high, best + step);
    let c = b - GOLDEN * (b - a), d = a + GOLDEN * (b - a), fc = f(c), fd = f(d);
    for (let round = 0; round < ROUNDS && b - a > 1e-12 * Math.abs(b); round++) {
      if (fc < fd) [b, d, fd, c] = [d, c, fc, d - GOLDEN * (d - a)], fc = f(c);
      else [a, c, fc, d] = [c, d, fd, c + GOLDEN * (b - c)], fd = f(d);
    }
    for (const [x, value] of [[c, fc], [d, fd]]) if (value < least) [best, least] = [x, value];
    return [best, least];
  }

  // The best tokens for a size: all that the budget buys, unless more of them hurt.
  function atSize(s, params) {
    const most = bought(s, params);
    const whole = { params, tokens: most, bought: most, loss: loss(s, params, most) };
    if (!s.turns || !(most >= 1)) return whole;
    const end = Math.log(most);
    if (loss(s, params, most * (1 - 1e-5)) > whole.loss) return whole;
    const [log, least] = minimum((y) => loss(s, params, Math.exp(y)), Math.max(0, end - 40), end, 33);
    return least < whole.loss ? { params, tokens: Math.exp(log), bought: most, loss: least } : whole;
  }

  function best(s) {
    const middle = Math.log(s.state.budget) / 2;
    const wall = s.state.served ? Math.log(s.state.budget / (2 * s.state.served * s.serve)) : Infinity;
    const high = Math.min(middle + MIDDLE, wall), low = Math.max(0, middle - MIDDLE);
    if (!(low < high)) return null;
    const [log, least] = minimum((y) => atSize(s, Math.exp(y)).loss, low, high, GRID);
    return Number.isFinite(least) ? atSize(s, Math.exp(log)) : null;
  }

  // Sizes around the best whose loss stays within the tolerated share of the reducible loss.
  function near(s, top) {
    const floor = data.floors.reduce((sum, k) => sum + theta[k], 0);
    const limit = top.loss + data.tolerance * (top.loss - floor);
    const sizes = Array.from({ length: STEPS }, (_, k) => top.params * Math.exp(NEAR * (2 * k / (STEPS - 1) - 1)));
    const losses = sizes.map((size) => atSize(s, size).loss);
    const inside = losses.flatMap((value, k) => (value <= limit ? [k] : []));
    const edge = (k, beyond) => {
      if (!(beyond >= 0 && beyond < STEPS) || !Number.isFinite(losses[beyond])) return sizes[k];
      return sizes[k] + (limit - losses[k]) / (losses[beyond] - losses[k]) * (sizes[beyond] - sizes[k]);
    };
    const [first, last] = [inside[0], inside[inside.length - 1]];
    return [edge(first, first - 1), edge(last, last + 1)];
  }

  // The interval of the `total` or the `gap` at a point over the draws, quantiles as NumPy has them.
  function interval(s, what, params, tokens) {
    const x = at(s, params, tokens);
    const values = draws.map((t) => law[what](t, x)).filter((v) => !Number.isNaN(v)).sort((p, q) => p - q);
    const quantile = (share) => {
      const k = share * (values.length - 1), below = Math.floor(k), above = Math.ceil(k);
      return values[below] + (k - below) * (values[above] - values[below]);
    };
    const tail = (1 - data.level) / 2;
    return values.length ? [quantile(tail), quantile(1 - tail)] : null;
  }

  // How far a point lies beyond what the law was fitted on, in words; nothing where it lies within.
  function beyond(s, point) {
    const notes = [], show = bitlaw.numbers.quantity;
    for (const [name, value] of Object.entries(s.values)) {
      if (name.endsWith("_bits") && data.ranges[name] && value < data.ranges[name][0] - 1e-6)
        notes.push(`${value} is below the fewest ${name} the law was fitted on, ${data.ranges[name][0]}`);
    }
    for (const name of ["params", "tokens"]) {
      const [low, high] = data.ranges[name] || [0, Infinity], value = point[name];
      for (const [factor, where] of [[value / high, "above the largest"], [low / value, "below the smallest"]])
        if (factor > 1.5)
          notes.push(`${show(value)} ${name} is ${show(factor)} times ${where} the law was fitted on`);
    }
    return notes;
  }

  // Why the law says nothing here: the first of its conditions that fails, or that there is no room.
  function reason(s) {
    const failed = law.conditions(theta, at(s, 1e9, 1e9)).findIndex((c) => !(c > 0));
    if (failed >= 0) return data.sentences[failed];
    return "The limits leave no room: what is given costs more than there is to spend.";
  }

  // The answer to a state {budget, params or null for the best, served, formats: {part: place of its option}}.
  function answer(state) {
    const s = setting(state), top = best(s);
    const point = state.params === null ? top : atSize(s, state.params);
    const whole = point !== null && Number.isFinite(point.loss);
    const out = { setting: s, best: top && { ...top, near: near(s, top) }, point: null, outside: whole ? "" : reason(s) };
    if (!whole) return out;
    const x = at(s, point.params, point.tokens), drawn = draws.length > 0;
    out.point = {
      ...point,
      gap: s.after ? law.gap(theta, x) : null,
      lossInterval: drawn ? interval(s, "total", point.params, point.tokens) : null,
      gapInterval: drawn && s.after ? interval(s, "gap", point.params, point.tokens) : null,
      bytes: point.params * s.bpw / 8,
      beyond: beyond(s, point),
    };
    return out;
  }

  // Losses against sizes at the state's budget, for a plot.
  function curve(state, centre, count = 81, reach = 3) {
    const s = setting(state);
    const sizes = Array.from({ length: count }, (_, k) => centre * Math.exp(reach * (2 * k / (count - 1) - 1)));
    return sizes.map((size) => atSize(s, size)).filter((point) => Number.isFinite(point.loss));
  }

  // A number as a command takes it, exactly.
  function exact(value) {
    return value < 1e6 ? String(value) : value.toExponential().replace("e+", "e");
  }

  // A word as a shell takes it; characters that a terminal would act on are written out, as bash and zsh read them.
  function quoted(word) {
    if (/^[\w@%+=:,./-]+$/.test(word)) return word;
    if (!/[\p{C}\p{Zl}\p{Zp}]/u.test(word)) return `'${word.replaceAll("'", `'"'"'`)}'`;
    const hex = (c) => c.codePointAt(0).toString(16);
    return `$'${word.replace(/[\\']/g, "\\$&").replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (c) =>
      hex(c).length > 4 ? `\\U${hex(c).padStart(8, "0")}` : `\\u${hex(c).padStart(4, "0")}`)}'`;
  }

  // The words that ask `bitlaw plan` the same.
  function command(state) {
    const { chosen } = setting(state), words = [...data.command, "--budget", exact(state.budget)];
    if (state.params !== null) words.push("--params", exact(state.params));
    const parts = data.controls.map((c) => c.part).filter((part) => part !== "all" && part !== "post");
    if (chosen.all) words.push("--bits", chosen.all.name);
    else if (parts.length) words.push("--bits", parts.map((part) => chosen[part].name).join("") || "bf16");
    if (chosen.post && chosen.post.name !== "none") words.push("--quantize-to", chosen.post.name);
    if (state.served) words.push("--served", exact(state.served));
    if (data.drawn && data.level !== 0.9) words.push("--interval", String(data.level)); // 0.9 is what `plan` has
    return words.map(quoted).join(" ");
  }

  return { answer, curve, command };
};
