// Numbers as people write them: read "20B" or "1e22", write three digits and a prefix.
"use strict";
var bitlaw = globalThis.bitlaw = globalThis.bitlaw || {};

bitlaw.numbers = (() => {
  const PREFIX = { "": 1, k: 1e3, K: 1e3, M: 1e6, G: 1e9, B: 1e9, T: 1e12, P: 1e15 };

  // A positive number, or NaN.
  function read(text) {
    const match = /^\s*([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)\s*([kKMGBTP]?)\s*$/.exec(text.replaceAll(",", ""));
    const value = match ? Number(match[1]) * PREFIX[match[2]] : NaN;
    return value > 0 && value < 1e60 ? Number(value.toPrecision(12)) : NaN;
  }

  function digits(value) {
    return String(Number(value.toPrecision(3)));
  }

  function quantity(value, unit = "") {
    if (value === null || Number.isNaN(value)) return "–";
    const tail = unit ? ` ${unit}` : "";
    for (const [scale, prefix] of [[1e12, "T"], [1e9, unit === "bytes" ? "G" : "B"], [1e6, "M"], [1e3, "k"]])
      if (value >= 0.9995 * scale)
        return unit === "bytes" ? `${digits(value / scale)} ${prefix}B` : digits(value / scale) + prefix + tail;
    return digits(value) + tail;
  }

  function flops(value) {
    return value.toExponential(2).replace(/\.?0*e\+?/, "e");
  }

  return { read, quantity, flops };
})();
