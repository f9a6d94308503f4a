// When things are drawn: once a frame, whatever happened meanwhile; seldom while nobody looks.

import { options } from "preact";

const HIDDEN_MS = 1000;

/** @param {() => void} work */
export function soon(work) {
  if (document.hidden) setTimeout(work, HIDDEN_MS);
  else requestAnimationFrame(work);
}

/** @type {Set<() => void>} */
const turns = new Set();

/**
 * In a frame of its own, after what waits already: much that is dear does not hold up a page. What
 * waits already is not asked for twice.
 * @param {() => void} work
 * @returns {() => void} for those who do not want it any more
 */
export function inTurn(work) {
  if (!turns.size) soon(nextTurn);
  turns.add(work);
  return () => void turns.delete(work);
}

function nextTurn() {
  const [work] = turns;
  if (!work) return;
  turns.delete(work);
  if (turns.size) soon(nextTurn);
  work();
}

/** Make the framework draw by frames. */
export function drawByFrames() {
  options.debounceRendering = soon;
}
