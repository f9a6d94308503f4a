import assert from "node:assert/strict";
import { test } from "node:test";
import { agentState, outcomeOf } from "../../balancer/http/dashboard/assets/app/parts/states.js";

/** An agent as the live socket tells of it. */
const agent = (/** @type {object} */ other) =>
  /** @type {any} */ ({
    state: "ready",
    issues: [],
    load_progress: null,
    last_heard: 1000,
    heartbeat_interval_s: 5,
    ...other,
  });

test("an agent is silent when a report is overdue, by the rhythm it was told", () => {
  assert.equal(agentState(agent({}), 1007).word, "Ready");
  assert.deepEqual(agentState(agent({}), 1010), { tone: "bad", word: "Silent" });
  assert.equal(agentState(agent({ heartbeat_interval_s: 60 }), 1060).word, "Ready");
  assert.equal(agentState(agent({ heartbeat_interval_s: 0.5 }), 1004).word, "Silent");
});

test("an agent's word and colour say what an operator should do", () => {
  const issue = { code: "x", message: "y", severity: "warning" };
  const states = [
    agent({ state: "busy" }),
    agent({ state: "draining" }),
    agent({ state: "not_ready", load_progress: 0.414 }),
    agent({ state: "not_ready" }),
    agent({ issues: [issue] }),
    agent({ issues: [issue, { ...issue, severity: "error" }] }),
  ].map((one) => agentState(one, 1000));
  assert.deepEqual(
    states.map((one) => `${one.tone}: ${one.word}`),
    ["busy: Full", "idle: Draining", "warn: Loading 41 %", "bad: Not ready", "warn: Has issues", "bad: Failing"],
  );
});

test("an outcome is good, somebody's wish, or a fault by its name", () => {
  assert.equal(outcomeOf("stop").tone, "good");
  assert.equal(outcomeOf("request_cancelled").tone, "idle");
  assert.deepEqual(outcomeOf("queue_timeout"), { tone: "bad", word: "queue timeout" });
  assert.equal(outcomeOf("constructor").tone, "bad");
});
