// The past of some figures: one number a second each, for ten minutes.

const MOST_POINTS = 600;
const MOST_PATHS = 64;

export class Series {
  constructor() {
    /** Unix seconds. @type {number[]} */
    this.times = [];
    /** @type {Map<string, (number | null)[]>} */
    this.values = new Map();
  }

  /** @param {{interval_s: number, end: number, paths: {[path: string]: (number | null)[]}}} given */
  static of(given) {
    const series = new Series();
    const paths = Object.entries(given.paths).slice(0, MOST_PATHS);
    const length = Math.min(MOST_POINTS, Math.max(0, ...paths.map(([, numbers]) => numbers.length)));
    series.times = Array.from(
      { length },
      (_, index) => given.end - (length - 1 - index) * given.interval_s,
    );
    for (const [path, numbers] of paths) {
      const tail = numbers.slice(-length);
      series.values.set(path, [...Array(length - tail.length).fill(null), ...tail]);
    }
    return series;
  }

  /**
   * A point that is not later than the last one, because a clock was set back, begins anew.
   * @param {number} at unix seconds
   * @param {{[path: string]: number | null}} values
   */
  add(at, values) {
    if (at <= (this.times[this.times.length - 1] ?? -Infinity)) {
      this.times = [];
      this.values.clear();
    }
    for (const path of Object.keys(values)) {
      if (!this.values.has(path) && this.values.size < MOST_PATHS) {
        this.values.set(path, Array(this.times.length).fill(null));
      }
    }
    this.times.push(at);
    for (const [path, numbers] of this.values) numbers.push(values[path] ?? null);
    if (this.times.length <= MOST_POINTS) return;
    this.times.shift();
    for (const numbers of this.values.values()) numbers.shift();
  }

  /** @param {string} path @returns {(number | null)[]} */
  read(path) {
    return this.values.get(path) ?? Array(this.times.length).fill(null);
  }
}
