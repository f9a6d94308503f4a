// What is being written: it stays while other pages are looked at, and while a question is edited.

import { signal } from "@preact/signals";
import { MOST_PICTURES } from "./request.js";

/** @typedef {import("./conversation.js").Picture} Picture */
/** @typedef {{text: string, pictures: Picture[]}} Words */
/**
 * @typedef {Words & {
 *   edited: {conversation: string, index: number} | null, before: Words | null
 * }} Draft `edited`: the turn that is asked anew; `before`: what was being written until then
 */

const NOTHING = { text: "", pictures: [] };

export const draft = signal(/** @type {Draft} */ ({ ...NOTHING, edited: null, before: null }));

/** @param {string} text */
export function write(text) {
  draft.value = { ...draft.value, text };
}

/** As many as there is room for. @param {Picture[]} fresh */
export function addPictures(fresh) {
  const pictures = [...draft.value.pictures, ...fresh].slice(0, MOST_PICTURES);
  draft.value = { ...draft.value, pictures };
}

/** @param {number} at */
export function removePicture(at) {
  draft.value = { ...draft.value, pictures: draft.value.pictures.filter((_, place) => place !== at) };
}

/**
 * Write a turn anew.
 * @param {string} conversation its id
 * @param {number} index
 * @param {Words} turn
 */
export function edit(conversation, index, { text, pictures }) {
  const { edited, before, ...words } = draft.value;
  draft.value = { text, pictures, edited: { conversation, index }, before: edited ? before : words };
}

/** The turn of this conversation that is edited, or null. @param {string} conversation */
export function editedIn(conversation) {
  const { edited } = draft.value;
  return edited?.conversation === conversation ? edited.index : null;
}

/** It was sent, or let be: what was being written before an edit is there again. */
export function finish() {
  draft.value = { ...(draft.value.before ?? NOTHING), edited: null, before: null };
}
