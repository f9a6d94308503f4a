// Pure: what others wrote, made so that it cannot change how the words beside it are read.

/** Marks that turn the order of letters until another mark ends it (UAX #9, section 2). */
const TURNS = /[\u202a-\u202e\u2066-\u2069]/g;

/** The value of JSON, with signs for such marks in its texts. @param {string} json @returns {any} */
export function parsed(json) {
  return JSON.parse(json.replace(TURNS, "\ufffd"));
}
