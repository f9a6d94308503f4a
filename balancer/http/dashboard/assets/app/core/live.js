// The picture of the cluster that all pages share, fed by the live sockets.
//
// Messages are collected and applied once a frame, so that a signal changes at most once a frame,
// however much is told. Nothing here grows: rows go when the balancer says so, the past is ten
// minutes long, what went is kept for a quarter of an hour at most.

import { batch, computed, signal } from "@preact/signals";
import { soon } from "./frames.js";
import { LiveSocket } from "./live_socket.js";
import { Series } from "./series.js";
import { changed } from "./tree.js";

/** @typedef {import("./shapes.js").Control} Control */
/** @typedef {import("./shapes.js").AgentRow} AgentRow */
/** @typedef {import("./tree.js").Tree} Tree */

/** Messages of a socket that wait for the next frame; more are applied at once. */
const MOST_WAITING = 200;
const MOST_LOST = 64;
const LOST_FOR_S = 900;
/** Clocks that are so near to each other are the same. */
const LENIENCE_S = 2;

/** What `/ws/control` says; null: nothing yet. */
export const control = signal(/** @type {Control | null} */ (null));
/** The tree of figures; null: nothing yet. */
export const figures = signal(/** @type {Tree | null} */ (null));
/** Grows with every point of `past`. */
export const pastVersion = signal(0);
let past = new Series();

/** The figures of the last ten minutes; reading it subscribes. */
export function pastFigures() {
  pastVersion.value;
  return past;
}

/**
 * @typedef {object} Lost
 * @property {AgentRow} agent as it was last
 * @property {number} at unix seconds
 * @property {boolean} isRemoved whether it was removed here, by hand
 */
/** Agents that went without a drain before. */
export const lost = signal(/** @type {Lost[]} */ ([]));

/** Unix seconds by the balancer's clock, a new value each second while the page is seen. */
export const now = signal(Date.now() / 1000);
let skew = 0;

// each list is made anew only when one of its rows changed: most changes are of requests
const agentRows = computed(() => control.value?.agents ?? {});
const requestRows = computed(() => control.value?.requests ?? {});
const modelRows = computed(() => control.value?.models ?? {});
export const agents = computed(() =>
  Object.values(agentRows.value).sort((a, b) => compare(a.id, b.id)),
);
export const requests = computed(() => Object.entries(requestRows.value));
const finishedRows = computed(() => control.value?.finished ?? {});
/** The latest to end come first. */
export const finished = computed(() =>
  Object.entries(finishedRows.value).sort(([, a], [, b]) => endOf(b) - endOf(a)),
);
export const models = computed(() =>
  Object.entries(modelRows.value).sort(([a], [b]) => compare(a, b)),
);

/** Unix seconds. @param {import("./shapes.js").FinishedRow} row */
export function endOf(row) {
  return row.arrived + row.total_ms / 1000;
}

/** Those by their first names: an alias is no model of its own. */
export const ownModels = computed(() =>
  models.value.filter(([name, row]) => !(/** @type {string[]} */ (row.aliases ?? []).includes(name))),
);

const collator = new Intl.Collator("en", { numeric: true });

/** @param {string} a @param {string} b */
export function compare(a, b) {
  return collator.compare(a, b);
}

const controlSocket = collected("/ws/control", (messages) => {
  let data = control.value;
  for (const message of messages) {
    const after = told(data, message);
    // of each message: what happened between two frames happened in an order
    noteWhatWent(data, after);
    data = after;
  }
  if (!data) return;
  firstVersion ||= data.balancer.version;
  control.value = data;
});

/** @param {Control | null} before @param {any} message @returns {Control | null} */
function told(before, message) {
  if (message.type === "snapshot") return message.data;
  if (message.type !== "delta" || !before) return before;
  const tree = /** @type {Tree} */ (/** @type {unknown} */ (before));
  return /** @type {Control} */ (/** @type {unknown} */ (changed(tree, message.set, message.gone)));
}

const metricsSocket = collected("/ws/metrics", (messages) => {
  let data = /** @type {Tree} */ ({ now: figures.value ?? {} });
  for (const message of messages) {
    if (message.type === "snapshot") {
      data = { now: message.data.now };
      past = Series.of(message.data.series);
      setClock(message.data.series.end);
    } else if (message.type === "delta") {
      data = changed(data, message.set, message.gone);
      if (message.point?.at) note(message.point);
    }
  }
  figures.value = /** @type {Tree} */ (data.now);
  pastVersion.value += 1;
});

/** @param {{at: number, values: {[path: string]: number | null}}} point */
function note(point) {
  past.add(point.at, point.values);
  setClock(point.at);
}

/** @param {number} at what the balancer's clock says, unix seconds; 0: it has not said yet */
function setClock(at) {
  if (!at) return;
  const before = skew;
  const apart = at - Date.now() / 1000;
  skew = Math.abs(apart) > LENIENCE_S ? apart : 0;
  if (Math.abs(skew - before) > LENIENCE_S) tick();
}

/** The worst state of the two sockets. */
export const link = computed(() => {
  const states = [controlSocket.state.value, metricsSocket.state.value];
  if (states.every((state) => state === "live")) return "live";
  return states.includes("waiting") ? "waiting" : "connecting";
});
/** Whether a connection broke and is not back yet. */
export const isLost = computed(() => controlSocket.isLost.value || metricsSocket.isLost.value);
/** Whether there was a picture once: what is shown may be old. */
export const isKnown = computed(() => control.value !== null);
/** The balancer's when this page was opened. */
let firstVersion = "";
/** Whether another version of the balancer runs now than the one that sent this page. */
export const isOutdated = computed(() => (control.value?.balancer.version ?? "") !== firstVersion);
/** When the next attempt to connect is, milliseconds of `Date.now`. */
export const retryAt = computed(() =>
  Math.max(controlSocket.retryAt.value, metricsSocket.retryAt.value),
);

/** Begin. */
export function start() {
  controlSocket.open();
  metricsSocket.open();
  setInterval(tick, 1000);
  addEventListener("online", retryNow);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    tick();
    retryNow();
  });
}

/** Connect at once, if anything waits to. */
export function retryNow() {
  controlSocket.retryNow();
  metricsSocket.retryNow();
}

/** Do not show any longer that an agent went. @param {string} id */
export function dismiss(id) {
  lost.value = lost.value.filter((one) => one.agent.id !== id);
}

/**
 * While an agent is being removed by hand, its end is no loss.
 * @param {string} id
 * @param {() => Promise<unknown>} remove
 */
export async function removing(id, remove) {
  beingRemoved.add(id);
  try {
    await remove();
  } catch (error) {
    beingRemoved.delete(id);
    throw error;
  }
}
/** @type {Set<string>} */
const beingRemoved = new Set();

/** Time stands still with the rows: what is not heard of is not what grows old. */
function tick() {
  if (document.hidden || controlSocket.isLost.value) return;
  now.value = Date.now() / 1000 + skew;
  const kept = lost.value.filter((one) => now.value - one.at < LOST_FOR_S);
  if (kept.length !== lost.value.length) lost.value = kept;
}

/** @param {Control | null} before @param {Control | null} after */
function noteWhatWent(before, after) {
  if (!before || !after) return;
  const at = Date.now() / 1000 + skew;
  if (before.agents !== after.agents) noteAgents(before, after, at);
}

/** @param {Control} before @param {Control} after @param {number} at */
function noteAgents(before, after, at) {
  const went = Object.values(before.agents)
    .filter((agent) => !Object.hasOwn(after.agents, agent.id))
    .filter((agent) => agent.state !== "draining" || beingRemoved.has(agent.id))
    .map((agent) => ({ agent, at, isRemoved: beingRemoved.delete(agent.id) }));
  const missing = lost.value.filter((one) => !Object.hasOwn(after.agents, one.agent.id));
  if (went.length || missing.length !== lost.value.length) {
    lost.value = [...went, ...missing].slice(0, MOST_LOST);
  }
}

/**
 * A socket whose messages are handed on once a frame.
 * @param {string} path
 * @param {(messages: any[]) => void} apply
 */
function collected(path, apply) {
  /** @type {any[]} */
  let waiting = [];
  const flush = () => {
    const messages = waiting;
    waiting = [];
    if (messages.length) batch(() => apply(messages));
  };
  return new LiveSocket(path, (message) => {
    waiting.push(message);
    if (waiting.length === 1) soon(flush);
    else if (waiting.length >= MOST_WAITING) flush();
  });
}
