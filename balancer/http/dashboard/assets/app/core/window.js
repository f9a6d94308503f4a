// Pure: which rows of a long list are drawn.

/**
 * The rows of a list that are near what is seen.
 * @param {number} count of all rows
 * @param {number} top how far it is scrolled, in rows
 * @param {number} seen rows that fit
 */
export function windowOf(count, top, seen) {
  const margin = 12;
  const first = Math.max(0, Math.min(count, Math.floor(top)) - margin);
  return { first, end: Math.min(count, Math.ceil(top + seen) + margin) };
}
