// When things are drawn: once a frame, whatever happened meanwhile; seldom while nobody looks.

import { options } from "preact";

const HIDDEN_MS = 1000;

/** @param {() => void} work */
export function soon(work) {
  if (document.hidden) setTimeout(work, HIDDEN_MS);
  else requestAnimationFrame(work);
}

/** Make the framework draw by frames. */
export function drawByFrames() {
  options.debounceRendering = soon;
}
