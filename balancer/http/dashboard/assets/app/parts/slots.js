// Each slot of an agent as a cell that fills.

import { html } from "../core/html.js";
import { counted } from "../core/format.js";

/** More slots than these are drawn as one bar. */
const MOST_CELLS = 64;

/** @param {{slots: import("../core/shapes.js").AgentRow["slots"]}} properties */
export function Slots({ slots }) {
  const label = `${slots.used} of ${counted(slots.total, "slot")} taken`;
  if (slots.total > MOST_CELLS) {
    return html`<div class="meter-track" role="img" aria-label=${label}>
      <div class="meter-fill" style=${{ transform: `scaleX(${slots.used / slots.total})` }}></div>
    </div>`;
  }
  const paused = Math.min(slots.paused, slots.running);
  const cells = Array.from({ length: slots.total }, (_, index) => {
    if (index < slots.running - paused) return "running";
    if (index < slots.running) return "paused";
    return index < slots.used ? "reserved" : "free";
  });
  return html`<div class="slots" role="img" aria-label=${label}>
    ${cells.map((state, index) => html`<i key=${index} data-state=${state}></i>`)}
  </div>`;
}
