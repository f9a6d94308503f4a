// What became of something that was asked for: a line at the edge, gone after a while.

import { signal } from "@preact/signals";
import { html } from "../core/html.js";
import { Icon } from "./icon.js";

const MOST = 4;
const SHOWN_MS = 6000;
const FAILURE_SHOWN_MS = 15_000;

/** @typedef {{id: number, text: string, isFailure: boolean}} Note */

const notes = signal(/** @type {Note[]} */ ([]));
let next = 1;

/** Say that something was done. @param {string} text */
export function say(text) {
  add(text, false);
}

/** Say that something was not done, and why. @param {unknown} error */
export function complain(error) {
  add(error instanceof Error ? error.message : String(error), true);
}

/** @param {string} text @param {boolean} isFailure */
function add(text, isFailure) {
  const note = { id: next++, text, isFailure };
  notes.value = [...notes.value, note].slice(-MOST);
  setTimeout(() => drop(note.id), isFailure ? FAILURE_SHOWN_MS : SHOWN_MS);
}

/** @param {number} id */
function drop(id) {
  notes.value = notes.value.filter((one) => one.id !== id);
}

export function Notes() {
  return html`<div class="notes" role="log" aria-label="Results">
    ${notes.value.map(
      (note) => html`<div class="note" key=${note.id} data-failure=${note.isFailure}>
        <${Icon} name=${note.isFailure ? "alert" : "check"} />
        <p>${note.text}</p>
        <button type="button" class="quiet" aria-label="Dismiss" onClick=${() => drop(note.id)}>
          <${Icon} name="close" />
        </button>
      </div>`,
    )}
  </div>`;
}
