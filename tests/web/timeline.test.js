import assert from "node:assert/strict";
import { test } from "node:test";
import { barOf, isOver, lengthOf, stateOf, storiesOf } from "../../balancer/http/dashboard/assets/app/requests/timeline.js";

const phase = (name, start_ms, end_ms) => ({ phase: name, start_ms, end_ms, agent: "one", reason: null });
const story = (more) => ({ choice: 0, arrived: 1000, agent: "one", outcome: null, total_ms: null, phases: [], ...more });
const over = { outcome: "stop", total_ms: 50 };

test("every choice has its story", () => {
  const timeline = { ...story(over), other_choices: [story({ choice: 1, ...over }), story({ choice: 2 })] };
  assert.deepEqual(storiesOf(timeline).map((one) => one.choice), [0, 1, 2]);
  assert.equal(isOver(timeline), false);
  assert.equal(isOver({ ...story(over), other_choices: [] }), true);
});

test("what runs is as long as it has run by now, so that no stretch seems longer than it was", () => {
  const running = story({ phases: [phase("waited", 0, 1000), phase("decoded", 1000, null)] });
  const length = lengthOf(running, 1010);
  assert.equal(length, 10_000);
  assert.deepEqual(barOf(running.phases[0], length), { left: 0, width: 0.1 });
  assert.deepEqual(barOf(running.phases[1], length), { left: 0.1, width: 0.9 });
});

test("what is over is as long as it was, and a stretch of no time is still seen", () => {
  const ended = story({ outcome: "stop", total_ms: 200, phases: [phase("waited", 0, 0), phase("decoded", 0, 200)] });
  assert.equal(lengthOf(ended, 99_999), 200);
  assert.deepEqual(ended.phases.map((one) => barOf(one, 200).width), [0.005, 1]);
  assert.ok(Number.isFinite(barOf(phase("waited", 0, 0), 0).width));
});

test("a clock that is behind makes nothing run backwards", () => {
  assert.equal(lengthOf(story({ phases: [phase("waited", 0, 40)] }), 900), 40);
});

test("what waits is not called running", () => {
  assert.equal(stateOf(story({}), /** @type {any} */ ({ state: "waiting" })).word, "Waiting");
  assert.equal(stateOf(story({}), undefined).word, "Running");
  assert.equal(stateOf(story({ outcome: "length" }), /** @type {any} */ ({ state: "running" })).word, "Length reached");
});
