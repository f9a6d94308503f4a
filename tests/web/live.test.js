import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { app, frame, sockets } from "./support/browser.js";
import { holdTime, pass } from "./support/clock.js";

const START_S = 1_800_000_000;
holdTime(START_S * 1000);
const live = await app("core/live.js");
live.start();

const agent = (id, more = {}) => ({ id, state: "ready", ...more });
const balancer = { status: "healthy", version: "1", started: START_S, draining: false };
const socketOf = (name) => sockets.find((one) => one.url.pathname === `/ws/${name}`);

/** What the balancer says first. */
function snapshots({ agents = {}, requests = {}, end = Date.now() / 1000, version = "1" } = {}) {
  const data = { agents, models: {}, requests, balancer: { ...balancer, version } };
  socketOf("control").say({ type: "snapshot", seq: 1, data });
  const series = { interval_s: 1, end, paths: { a: [1] } };
  socketOf("metrics").say({ type: "snapshot", seq: 1, data: { now: {}, series } });
  frame();
}

let seq = 1;
function changes(set, gone = []) {
  seq += 1;
  socketOf("control").say({ type: "delta", seq, set, gone });
  frame();
}

beforeEach(() => {
  pass(20_000);
  snapshots();
  for (const { agent: { id } } of live.lost.value) live.dismiss(id);
  seq = 1;
});

test("a change of one kind of rows leaves the lists of the others as they were", () => {
  snapshots({ agents: { one: agent("one") } });
  const { value: agents } = live.agents;
  const { value: models } = live.models;

  changes({ "requests.r#0": { id: "r" } });

  assert.equal(live.agents.value, agents);
  assert.equal(live.models.value, models);
  assert.equal(live.requests.value.length, 1);
});

test("a clock that is wrong here is put right with the first words of the balancer", () => {
  const theirs = START_S + 7200;
  snapshots({ end: theirs });
  assert.ok(Math.abs(live.now.value - theirs) < 2, String(live.now.value - theirs));
});

test("time stands still while the balancer is not heard, so that no agent seems silent", () => {
  const { value: before } = live.now;
  socketOf("control").drop();
  for (let times = 0; times < 40; times += 1) {
    socketOf("control")?.drop();
    pass(1000);
  }
  assert.ok(live.now.value - before < 2, String(live.now.value - before));

  pass(20_000);
  snapshots();
  pass(1000);
  assert.ok(live.now.value - before > 60);
});

test("an agent that goes is lost until it is there again, whatever it is called", () => {
  snapshots({ agents: { constructor: agent("constructor"), one: agent("one") } });
  snapshots({ agents: { one: agent("one") } });
  assert.deepEqual(live.lost.value.map((one) => one.agent.id), ["constructor"]);

  changes({ "agents.constructor": agent("constructor") });
  assert.deepEqual(live.lost.value, []);
});

test("an agent that was drained, or removed by hand, is not lost", async () => {
  snapshots({ agents: { one: agent("one", { state: "draining" }), two: agent("two") } });
  await live.removing("two", async () => undefined);
  changes({}, ["agents.one", "agents.two"]);

  assert.deepEqual(live.lost.value.map((one) => [one.agent.id, one.isRemoved]), [["two", true]]);
});

test("an agent that was drained and went within one frame is not lost", () => {
  snapshots({ agents: { one: agent("one") } });
  socketOf("control").say(
    { type: "delta", seq: 2, set: { "agents.one.state": "draining" }, gone: [] },
    { type: "delta", seq: 3, set: {}, gone: ["agents.one"] },
  );
  frame();

  assert.deepEqual([live.agents.value, live.lost.value], [[], []]);
});

test("while nobody looks, what waits to be drawn is bounded", () => {
  const set = { "requests.r#0": { id: "r" } };
  for (let times = 0; times < 1000; times += 1) {
    seq += 1;
    socketOf("control").say({ type: "delta", seq, set, gone: [] });
  }
  assert.equal(live.requests.value.length, 1);
});

test("a page that an older balancer sent knows that it is old", () => {
  assert.equal(live.isOutdated.value, false);
  snapshots({ version: "2" });
  assert.equal(live.isOutdated.value, true);
});
