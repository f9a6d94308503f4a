// Pure: numbers as people read them. Nothing known is a dash, never a zero.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const UNKNOWN = "–";

/** @typedef {number | null | undefined} Known */

/** @param {Known} value */
export function count(value) {
  return value == null ? UNKNOWN : whole.format(value);
}

/** @param {Known} value */
export function compact(value) {
  if (value == null) return UNKNOWN;
  return Math.abs(value) < 10_000 ? whole.format(value) : short.format(value);
}

/** A rate: one digit behind the point while it is small. @param {Known} value */
export function rate(value) {
  if (value == null) return UNKNOWN;
  if (value === 0) return "0";
  return value < 10 ? value.toFixed(1) : compact(value);
}

/** Of a fraction. @param {Known} value */
export function percent(value) {
  return value == null ? UNKNOWN : `${Math.round(value * 100)} %`;
}

/** @param {Known} value milliseconds */
export function milliseconds(value) {
  if (value == null) return UNKNOWN;
  if (value < 1000) return `${value < 10 && value > 0 ? value.toFixed(1) : Math.round(value)} ms`;
  return value < 60_000 ? `${(value / 1000).toFixed(1)} s` : duration(value / 1000);
}

/** @param {Known} value seconds */
export function duration(value) {
  if (value == null) return UNKNOWN;
  const seconds = Math.max(0, Math.round(value));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  if (seconds < 86_400) {
    return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  }
  return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3600)} h`;
}

/** @param {Known} value */
export function bytes(value) {
  if (value == null) return UNKNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let size = value;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit && size < 100 ? size.toFixed(1) : Math.round(size)} ${units[unit]}`;
}

/** @param {number} at unix seconds */
export function clock(at) {
  return new Date(at * 1000).toLocaleTimeString("en-GB");
}

/** @param {number} number @param {string} one @param {string} [many] */
export function counted(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** As lists and titles have it. @param {string} id */
export function shortId(id) {
  return id.length > 16 ? `${id.slice(0, 12)}…` : id;
}
