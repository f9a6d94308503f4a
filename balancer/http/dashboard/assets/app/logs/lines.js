// Pure: the latest lines of the log, and which of them are wanted.

/**
 * @typedef {object} LogLine
 * @property {number} at unix seconds
 * @property {string} level
 * @property {string} component
 * @property {string} event
 * @property {string} [request_id]
 * @property {{[name: string]: unknown}} facts
 */
/** @typedef {LogLine & {number: number}} NumberedLine */

export const MOST_LINES = 2000;

export class LogLines {
  /** @type {NumberedLine[]} */
  lines = [];
  #count = 0;

  /** `lines` is another list afterwards. @param {LogLine[]} fresh */
  add(fresh) {
    const numbered = fresh.slice(-MOST_LINES).map((line) => {
      this.#count += 1;
      return { ...line, number: this.#count };
    });
    this.lines = [...this.lines, ...numbered].slice(-MOST_LINES);
  }

  /** A line of our own between the others. @param {number} count @param {number} at */
  miss(count, at) {
    const event = `${count} lines were missed: this page did not read them in time`;
    this.add([{ at, level: "warning", component: "", event, facts: {} }]);
  }

  clear() {
    this.lines = [];
  }
}

/** Those that hold a word. @param {NumberedLine[]} lines @param {string} word */
export function holding(lines, word) {
  const sought = word.trim().toLowerCase();
  return sought ? lines.filter((line) => textOf(line).toLowerCase().includes(sought)) : lines;
}

/** A line as it would stand in a file. @param {LogLine} line */
export function textOf(line) {
  const about = line.request_id ? ` request_id=${line.request_id}` : "";
  return `${line.level} ${line.component} ${line.event}${about}${factsOf(line)}`;
}

/** @param {LogLine} line */
export function factsOf(line) {
  return Object.entries(line.facts)
    .filter(([, value]) => value !== null)
    .map(([name, value]) => ` ${name}=${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join("");
}
