// Small pictures beside words; the words say it, so these are hidden from screen readers.

import { html } from "../core/html.js";

const SHAPES = {
  overview: "M3 17V9m5 8V4m5 13v-6m5 6V7",
  agents: "M4 4h14v5H4zM4 13h14v5H4zM7 6.500h.01M7 15.500h.01M11 6.500h4M11 15.500h4",
  models: "M11 3l7 4v8l-7 4-7-4V7zM4 7l7 4 7-4M11 11v8",
  requests: "M4 5h10M4 11h14M4 17h7",
  playground: "M4 5h14v10H9l-4 3.500V15H4z",
  logs: "M5 3h8l4 4v12H5zM8 10h6M8 14h6",
  settings: "M4 7h6m4 0h4M4 15h2m4 0h8M10 5v4M6 13v4",
  menu: "M5 11h.01M11 11h.01M17 11h.01",
  sun: "M11 7.500a3.500 3.500 0 1 0 0 7 3.500 3.500 0 0 0 0-7zM11 2.500v1.500M11 18v1.500M2.500 11H4M18 11h1.500M5 5l1 1M16 16l1 1M17 5l-1 1M6 16l-1 1",
  moon: "M18 12.500A7.500 7.500 0 1 1 9.500 4a6 6 0 0 0 8.500 8.500z",
  system: "M4 5h14v9H4zM8 18h6M11 14v4",
  close: "M6 6l10 10M16 6L6 16",
  copy: "M8 8h10v10H8zM14 8V4H4v10h4",
  check: "M5 11.500l4 4 8-9",
  alert: "M11 7v5M11 15h.01M11 3l9 16H2z",
  arrow: "M8 5l6 6-6 6",
  refresh: "M17.500 11A6.500 6.500 0 1 1 15.500 6.300M16 3v4h-4",
  stop: "M6 6h10v10H6z",
};

/** @typedef {keyof typeof SHAPES} IconName */

/** @param {{name: IconName}} properties */
export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 22 22" aria-hidden="true" focusable="false">
    <path d=${SHAPES[name]} />
  </svg>`;
}
