// What laws need that Math does not have. Written to be read; used by the page and by the tests under node.
"use strict";
var bitlaw = globalThis.bitlaw = globalThis.bitlaw || {};

bitlaw.runtime = (() => {
  const ROUNDS = 100, CLOSE = 1e-14, ROOT_PI = Math.sqrt(Math.PI);

  // The root L of L = f(L), where f is positive and falls with L. In x = log L the root lies between x and
  // log f; Newton's step is taken where it stays in the bracket, else the bracket is halved. As laws/compiled.py.
  function root(sides) {
    let x = 0, low = -Infinity, high = Infinity;
    for (let round = 0; round < ROUNDS; round++) {
      const [right, slope] = sides(Math.exp(x)), beyond = Math.log(right);
      low = Math.max(low, Math.min(x, beyond));
      high = Math.min(high, Math.max(x, beyond));
      const newton = x - (x - beyond) / (1 - slope * Math.exp(x) / right);
      const next = newton >= low && newton <= high ? newton : (low + high) / 2;
      const moved = Math.abs(next - x);
      x = next;
      if (!(moved > CLOSE)) return moved <= CLOSE ? Math.exp(x) : NaN;
    }
    return NaN;
  }

  // erf by its series of positive terms, for |x| < 2.
  function erf(x) {
    let term = x, sum = x;
    for (let n = 1; n < 200 && Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
      term *= 2 * x * x / (2 * n + 1);
      sum += term;
    }
    return 2 / ROOT_PI * Math.exp(-x * x) * sum;
  }

  // erfc by its continued fraction from the far end, for x >= 1/2: the more terms, the smaller x.
  function erfc(x) {
    let tail = x;
    for (let n = Math.ceil(20 + 150 / (x * x)); n > 0; n--) tail = x + n / 2 / tail;
    return Math.exp(-x * x) / ROOT_PI / tail;
  }

  // The inverse of erf on (-1, 1): Winitzki's approximation, then Halley's steps to rounding.
  function erfinv(y) {
    if (!(Math.abs(y) < 1)) return Math.abs(y) === 1 ? y * Infinity : NaN;
    if (y < 0) return -erfinv(-y);
    const a = 0.147, log = Math.log1p(-y) + Math.log1p(y), half = 2 / (Math.PI * a) + log / 2;
    let x = Math.sqrt(Math.sqrt(half * half - log / a) - half);
    for (let round = 0; round < 4; round++) {
      const off = y < 0.6 ? erf(x) - y : (1 - y) - erfc(x);
      const step = off * ROOT_PI / 2 * Math.exp(x * x);
      x -= step / (1 + x * step);
    }
    return x;
  }

  // The `total` or the `gap` of a law; null where one of its conditions fails or it gives no number.
  function guarded(law, what, t, x) {
    const value = law[what](t, x);
    return Number.isFinite(value) && law.conditions(t, x).every((c) => c > 0) ? value : null;
  }

  return { root, erf, erfc, erfinv, guarded };
})();
