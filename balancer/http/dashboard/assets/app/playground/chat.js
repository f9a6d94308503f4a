// The conversation that is shown, and what happens to it: asked, answered, stopped, kept.

import { computed, signal } from "@preact/signals";
import { soon } from "../core/frames.js";
import { models, ownModels } from "../core/live.js";
import { complain } from "../parts/notes.js";
import { streamChat } from "./chat_stream.js";
import * as talk from "./conversation.js";
import { bodyOf } from "./request.js";
import { ConversationStore } from "./store.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */
/** @typedef {import("./conversation.js").Answer} Answer */
/** @typedef {import("./conversation.js").Picture} Picture */
/** @typedef {{capabilities?: {chat?: boolean, vision?: boolean}}} Abilities */

const store = new ConversationStore();
/** @type {Set<AbortController>} */
const stoppers = new Set();

export const conversation = signal(fresh());
/** Those that this browser keeps, the latest first. */
export const kept = signal(/** @type {Conversation[]} */ ([]));
/** How many answers are being written. */
export const running = signal(0);

/** The names of models that can chat. */
export const chatModels = computed(() =>
  ownModels.value.filter(([, row]) => abilities(row).chat !== false).map(([name]) => name),
);
/** The models in use, by their names. */
export const chosen = computed(() =>
  conversation.value.models.map((name) => name || chatModels.value[0] || ""),
);
/** Whether all of them see pictures. */
export const seePictures = computed(() =>
  chosen.value.every((name) => {
    const row = models.value.find(([one]) => one === name)?.[1];
    return row !== undefined && abilities(row).vision === true;
  }),
);

/** @param {unknown} row */
function abilities(row) {
  return /** @type {Abilities} */ (row).capabilities ?? {};
}

/** @returns {Conversation} */
function fresh() {
  return talk.begun(crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, Date.now());
}

let isLoaded = false;

/** Read what is kept, once. */
export async function load() {
  if (isLoaded) return;
  isLoaded = true;
  addEventListener("pagehide", keepAsFarAsItCame);
  kept.value = await store.load();
}

/** @param {Conversation} value */
function set(value) {
  conversation.value = value;
}

/** @param {Partial<Conversation>} changes */
export function change(changes) {
  set({ ...conversation.value, ...changes });
}

/** @param {string} name @param {string} value */
export function changeSetting(name, value) {
  change({ settings: { ...conversation.value.settings, [name]: value } });
}

/** @param {string[]} names */
export function chooseModels(names) {
  stop();
  set(talk.withModels(conversation.value, names));
}

/** A new conversation, with the settings of this one. */
export function begin() {
  leave();
  beginAnew();
}

function beginAnew() {
  const { models: names, settings, system } = conversation.value;
  set({ ...fresh(), models: names, settings, system });
}

/** @param {Conversation} one */
export function show(one) {
  if (one.id === conversation.value.id) return;
  leave();
  set(talk.settled(one));
}

/** Another conversation is shown next. */
function leave() {
  keepAsFarAsItCame();
  stop();
}

/** @param {string} id */
export async function drop(id) {
  if (conversation.value.id === id) {
    stop();
    beginAnew();
  }
  await store.drop(id).catch(complain);
  kept.value = store.all();
}

/**
 * Ask; whether it was sent. `index`: instead of this turn and all behind it.
 * @param {string} text
 * @param {Picture[]} pictures
 * @param {number} [index]
 */
export function ask(text, pictures, index) {
  const before = index === undefined ? conversation.value : talk.cutBefore(conversation.value, index);
  if (before.turns.length >= talk.MOST_TURNS) {
    complain(`A conversation has ${talk.MOST_TURNS} turns at most. Begin a new one.`);
    return false;
  }
  const turn = { id: freshTurnId(), text, pictures };
  return send(talk.asked({ ...before, models: chosen.value }, turn));
}

/** Ask a turn's question once more. @param {number} index */
export function askAgain(index) {
  send(talk.askedAgain({ ...conversation.value, models: chosen.value }, index, freshTurnId()));
}

let turnsMade = 0;

/** Also of a question that is asked once more: what comes late of the answer before finds no place. */
function freshTurnId() {
  turnsMade += 1;
  return `${Date.now()}-${turnsMade}`;
}

/** @param {Conversation} next whose last answers are awaited */
function send(next) {
  try {
    for (const column of next.models.keys()) bodyOf(next, column);
  } catch (error) {
    complain(error);
    return false;
  }
  stop();
  set({ ...next, changed: Date.now() });
  for (const column of next.models.keys()) write(column);
  keep(conversation.value);
  return true;
}

/**
 * Tell a model what its tools said.
 * @param {number} column
 * @param {string[]} results
 */
export function giveResults(column, results) {
  const index = conversation.value.turns.length - 1;
  set(
    talk.withAnswer(conversation.value, index, column, (answer) =>
      talk.withResults(answer, results),
    ),
  );
  write(column);
}

/** End every answer where it is. */
export function stop() {
  for (const stopper of stoppers) stopper.abort();
}

/** Have a model write its answer to the last turn. @param {number} column */
async function write(column) {
  const { turns } = conversation.value;
  const index = turns.length - 1;
  const isShown = () => conversation.value.turns[index]?.id === turns[index]?.id;
  const stopper = new AbortController();
  stoppers.add(stopper);
  running.value += 1;
  const update = (/** @type {(answer: Answer) => Answer} */ next) => {
    if (isShown()) set(talk.withAnswer(conversation.value, index, column, next));
  };
  const how = await written(column, stopper.signal, update);
  update((answer) => talk.ended(answer, how));
  stoppers.delete(stopper);
  running.value -= 1;
  if (isShown()) await keep(conversation.value);
}

/**
 * @param {number} column
 * @param {AbortSignal} stopped
 * @param {(next: (answer: Answer) => Answer) => void} update
 * @returns {Promise<Partial<Answer>>} how it ended
 */
async function written(column, stopped, update) {
  /** @type {any[]} */
  let waiting = [];
  const flush = () => {
    const chunks = waiting;
    waiting = [];
    if (chunks.length) update((answer) => chunks.reduce(talk.withChunk, answer));
  };
  const onChunk = (/** @type {any} */ chunk) => {
    waiting.push(chunk);
    if (waiting.length === 1) soon(flush);
  };
  try {
    await streamChat(bodyOf(conversation.value, column), { signal: stopped, onChunk });
    flush();
    return { state: "done" };
  } catch (error) {
    flush();
    if (stopped.aborted) return { state: "stopped" };
    return { state: "failed", error: error instanceof Error ? error.message : String(error) };
  }
}

function keepAsFarAsItCame() {
  const one = talk.settled(conversation.value);
  if (one.turns.length && !kept.value.includes(one)) keep(one);
}

let isKeeping = true;

/** Its first failure is told, not each. @param {Conversation} one */
async function keep(one) {
  try {
    await store.keep(one);
    isKeeping = true;
  } catch (error) {
    if (isKeeping) complain(error);
    isKeeping = false;
  }
  kept.value = store.all();
}
