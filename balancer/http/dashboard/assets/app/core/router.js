// Which page is shown: what stands behind the `#` of the address.

import { signal } from "@preact/signals";

/**
 * @typedef {object} Place
 * @property {string} page the first part of the path; "" is the overview
 * @property {string[]} rest the other parts
 * @property {URLSearchParams} query
 */

/** Where we are. */
export const place = signal(read());

/** @returns {Place} */
function read() {
  const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const [page = "", ...rest] = path.split("/").map(decoded);
  return { page, rest, query: new URLSearchParams(query) };
}

/** @param {string} part */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** The address of a page, for links. @param {...string} parts */
export function address(...parts) {
  return `#/${parts.map(encodeURIComponent).join("/")}`;
}

/** @param {...string} parts */
export function go(...parts) {
  location.hash = address(...parts);
}

/** Follow the address from now on. */
export function follow() {
  addEventListener("hashchange", () => {
    place.value = read();
  });
}
