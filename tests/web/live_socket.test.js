import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { app, sockets } from "./support/browser.js";
import { holdTime, pass } from "./support/clock.js";

const { LiveSocket } = await app("core/live_socket.js");

holdTime(0);
/** What the page heard. @type {any[]} */
let heard = [];
/** @type {any} */
let link;

beforeEach(() => {
  link?.close();
  heard = [];
  link = new LiveSocket("/ws/logs?level=info", (message) => heard.push(message));
  link.open();
});

const snapshot = (seq) => ({ type: "snapshot", seq, data: {} });
const delta = (seq) => ({ type: "delta", seq, set: {}, gone: [] });

test("what is said in order is heard in order", () => {
  sockets[0].say(snapshot(4), delta(5), { type: "ping" }, delta(6));

  assert.deepEqual(heard.map((one) => one.seq), [4, 5, 6]);
  assert.deepEqual(sockets[0].sent, [{ type: "pong" }]);
  assert.equal(sockets[0].url.href, "ws://127.0.0.1:8081/ws/logs?level=info");
});

test("a message that was missed costs a new connection, and nothing is heard out of order", () => {
  const [first] = sockets;
  first.say(snapshot(4), delta(6), delta(7));

  assert.deepEqual(heard.map((one) => one.seq), [4]);
  pass(500);
  assert.notEqual(sockets[0], first);
  assert.equal(sockets.length, 1);
});

test("lines that the server says were missed cost no new connection", () => {
  const [first] = sockets;
  first.say(snapshot(4), { type: "missed", count: 9 }, delta(8), delta(9));

  assert.deepEqual(heard.map((one) => one.seq), [4, undefined, 8, 9]);
  assert.equal(sockets[0], first);
});

test("connections that never hold are tried ever more seldom", () => {
  const waits = [];
  for (let times = 0; times < 8; times += 1) {
    const before = Date.now();
    sockets[0].drop();
    waits.push(link.retryAt.value - before);
    pass(20_000);
  }
  assert.ok(waits[0] <= 500 && waits[7] > 7000 && waits[7] <= 15_000, String(waits));
});

test("gaps that never end are no reason to connect without a pause", () => {
  for (let times = 0; times < 5; times += 1) {
    sockets[0].say(snapshot(1), delta(3));
    assert.equal(sockets.length, 0);
    pass(500);
  }
  assert.equal(sockets.length, 1);
});

test("a server that says nothing for long is gone", () => {
  sockets[0].say(snapshot(1));
  pass(70_000);
  assert.equal(link.state.value, "live");
  pass(10_000);
  assert.notEqual(link.state.value, "live");
});

test("a link is lost from its loss until it is live again", () => {
  assert.equal(link.isLost.value, false);
  sockets[0].say(snapshot(1));
  sockets[0].drop();
  assert.equal(link.isLost.value, true);
  link.retryNow();
  assert.deepEqual([link.state.value, link.isLost.value], ["connecting", true]);
  sockets[0].say(snapshot(1));
  assert.deepEqual([link.state.value, link.isLost.value], ["live", false]);
});

test("a message that is not JSON costs a new connection and no error", () => {
  sockets[0].say(snapshot(1));
  sockets[0].onmessage({ data: "{" });

  assert.equal(link.state.value, "waiting");
});
