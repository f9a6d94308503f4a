// Time that passes when a test says so, in place of the browser's clock and timers.

/** @typedef {{at: number, work: () => void, everyMs: number | null}} Timer */

/** @type {Map<number, Timer>} */
const timers = new Map();
let nowMs = 0;
let made = 0;

/** From now on. @param {number} startMs of `Date.now` */
export function holdTime(startMs) {
  nowMs = startMs;
  Date.now = () => nowMs;
  globalThis.setTimeout = (work, afterMs) => begun(work, afterMs, null);
  globalThis.setInterval = (work, everyMs) => begun(work, everyMs, everyMs);
  globalThis.clearTimeout = globalThis.clearInterval = (timer) => timers.delete(timer);
}

function begun(work, afterMs, everyMs) {
  made += 1;
  timers.set(made, { at: nowMs + afterMs, work, everyMs });
  return made;
}

/** Let so much time pass, and in it what is due, in its order. @param {number} ms */
export function pass(ms) {
  const end = nowMs + ms;
  for (;;) {
    const due = [...timers].filter(([, timer]) => timer.at <= end).sort(([, a], [, b]) => a.at - b.at)[0];
    if (!due) break;
    const [name, timer] = due;
    nowMs = timer.at;
    if (timer.everyMs === null) timers.delete(name);
    else timer.at += timer.everyMs;
    timer.work();
  }
  nowMs = end;
}
