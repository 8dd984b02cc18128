// Brings a report to life once it is read: its figures, and the planner panel where there is one.
"use strict";
(() => {
  for (const figure of document.querySelectorAll("figure[data-chart]")) bitlaw.charts.mount(figure);
  const panel = document.getElementById("planner");
  if (panel)
    bitlaw.mountPanel(panel, JSON.parse(document.getElementById("planner-data").textContent), bitlaw.law(bitlaw.runtime));
})();
