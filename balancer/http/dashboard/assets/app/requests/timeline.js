// Pure: what became of a request, of each of its choices, and how long each stretch of it took.

import { REQUEST_STATES, outcomeOf } from "../parts/states.js";

/** @typedef {import("../core/shapes.js").RequestRow} RequestRow */
/** @typedef {{phase: string, agent: string | null, reason: string | null, start_ms: number, end_ms: number | null}} Phase */
/**
 * @typedef {object} Story of one choice
 * @property {number} choice
 * @property {number} arrived unix seconds
 * @property {string | null} agent
 * @property {string | null} outcome null: it is not over
 * @property {number} prompt_tokens
 * @property {number} completion_tokens
 * @property {number | null} total_ms null: it is not over
 * @property {Phase[]} phases
 */
/** @typedef {Story & {other_choices: Story[]}} Timeline as `GET /requests/{id}/timeline` answers it */

/** Of all choices, in their order. @param {Timeline} timeline @returns {Story[]} */
export function storiesOf(timeline) {
  return [timeline, ...timeline.other_choices];
}

/** Whether all of it is over. @param {Timeline} timeline */
export function isOver(timeline) {
  return storiesOf(timeline).every((story) => story.outcome !== null);
}

/**
 * What it is now, or came to.
 * @param {Story} story
 * @param {RequestRow | undefined} row its own, while it waits or runs
 */
export function stateOf(story, row) {
  if (story.outcome !== null) return outcomeOf(story.outcome);
  return REQUEST_STATES[row?.state ?? "running"];
}

/**
 * How long it took, or has taken by now, in milliseconds.
 * @param {Story} story
 * @param {number} now unix seconds
 */
export function lengthOf(story, now) {
  if (story.total_ms !== null) return story.total_ms;
  const known = story.phases.map((phase) => phase.end_ms ?? phase.start_ms);
  return Math.max(1000 * (now - story.arrived), ...known);
}

/**
 * Where a phase's bar begins and how wide it is, as parts of the whole.
 * @param {Phase} phase
 * @param {number} length of all of it, in milliseconds
 */
export function barOf(phase, length) {
  const whole = Math.max(1, length);
  return {
    left: phase.start_ms / whole,
    width: Math.max(0.005, ((phase.end_ms ?? whole) - phase.start_ms) / whole),
  };
}
