// Light, dark, or as the system is.

import { effect, signal } from "@preact/signals";

/** @typedef {"system" | "light" | "dark"} Theme */

const KEY = "paddler.theme";
const system = matchMedia("(prefers-color-scheme: dark)");

export const theme = signal(stored());
/** Grows whenever colours change, for pictures that are drawn by hand. */
export const coloursVersion = signal(0);

/** @returns {Theme} */
function stored() {
  const given = document.documentElement.dataset.theme;
  return given === "light" || given === "dark" ? given : "system";
}

/** @param {Theme} chosen */
export function choose(chosen) {
  theme.value = chosen;
  try {
    if (chosen === "system") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, chosen);
  } catch {
    // storage is switched off: it holds until the page is closed
  }
}

/** Whether it is dark now. */
export function isDark() {
  return theme.value === "dark" || (theme.value === "system" && system.matches);
}

/** Computes what a name stands for in the scheme in force. */
const probe = document.head.appendChild(document.createElement("i"));
/** @type {Map<string, string>} */
const known = new Map();

effect(() => {
  if (theme.value === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
  changed();
});
system.addEventListener("change", changed);

function changed() {
  known.clear();
  coloursVersion.value = coloursVersion.peek() + 1;
}

/** A colour of the style sheet's by its name. @param {string} name */
export function colour(name) {
  const found = known.get(name);
  if (found) return found;
  probe.style.color = `var(${name})`;
  const { color } = getComputedStyle(probe);
  known.set(name, color);
  return color;
}
