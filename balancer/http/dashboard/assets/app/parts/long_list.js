// Long lists: of thousands of rows only so many are there as somebody may look at.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { count } from "../core/format.js";
import { inTurn } from "../core/frames.js";
import { html } from "../core/html.js";
import { windowOf } from "../core/window.js";

/** Of a list at first, and how many more a button brings. */
const STEP = 96;
/** New in one frame: drawing many at once would hold up the page. */
const NEW_IN_A_FRAME = 16;
/** As high as most rows are; what they really are is measured. */
const ROW_PX = 44;
const ROWS_AT_FIRST = 16;

/**
 * A list's first part, and the button that brings more of it.
 * @param {number} total
 */
export function usePart(total) {
  const [wanted, setWanted] = useState(STEP);
  const [drawn, setDrawn] = useState(NEW_IN_A_FRAME);
  const goal = Math.min(total, wanted);
  useEffect(
    () => (drawn < goal ? inTurn(() => setDrawn(drawn + NEW_IN_A_FRAME)) : undefined),
    [drawn, goal],
  );
  const more = html`<p class="more">
    <button type="button" onClick=${() => setWanted(wanted + STEP)}>Show more of ${count(total)}</button>
  </p>`;
  return { end: Math.min(drawn, goal), more: total > wanted ? more : null };
}

/**
 * The rows of a table that are near what is seen of the page, and two that hold the place of those
 * before and behind. All rows are of one height. `body` is the reference to the table's body.
 * @param {number} total
 */
export function useRowsInSight(total) {
  const body = useRef(/** @type {HTMLTableSectionElement | null} */ (null));
  const [sight, setSight] = useState({ top: 0, seen: ROWS_AT_FIRST, rowPx: ROW_PX });
  useLayoutEffect(() => {
    const look = () => setSight((before) => seenOf(body.current, before));
    const later = () => void inTurn(look);
    look();
    addEventListener("scroll", later, { passive: true });
    addEventListener("resize", later);
    return () => {
      removeEventListener("scroll", later);
      removeEventListener("resize", later);
    };
  }, []);
  const { first, end } = windowOf(total, sight.top, sight.seen);
  return {
    body,
    first,
    end,
    before: first ? html`<${Place} rows=${first} rowPx=${sight.rowPx} />` : null,
    behind: end < total ? html`<${Place} rows=${total - end} rowPx=${sight.rowPx} />` : null,
  };
}

/** @typedef {{top: number, seen: number, rowPx: number}} Sight in rows */

/** @param {HTMLTableSectionElement | null} body @param {Sight} before @returns {Sight} */
function seenOf(body, before) {
  if (!body) return before;
  const row = body.querySelector("tr:not([aria-hidden])");
  const rowPx = row?.getBoundingClientRect().height || before.rowPx;
  const top = Math.max(0, Math.floor(-body.getBoundingClientRect().top / rowPx));
  const seen = Math.ceil(innerHeight / rowPx);
  const isSame = top === before.top && seen === before.seen && rowPx === before.rowPx;
  return isSame ? before : { top, seen, rowPx };
}

/** @param {{rows: number, rowPx: number}} properties */
function Place({ rows, rowPx }) {
  return html`<tr aria-hidden="true" style=${{ height: `${rows * rowPx}px` }}></tr>`;
}
