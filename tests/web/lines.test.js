import assert from "node:assert/strict";
import { test } from "node:test";
import { windowOf } from "../../balancer/http/dashboard/assets/app/core/window.js";
import { holding, LogLines, MOST_LINES, textOf } from "../../balancer/http/dashboard/assets/app/logs/lines.js";

const line = (event, more = {}) => ({ at: 1, level: "info", component: "fleet", event, facts: {}, ...more });

test("only the latest lines are kept, and each keeps its number", () => {
  const log = new LogLines();
  for (let at = 0; at < MOST_LINES + 10; at += 1) log.add([line(`event ${at}`)]);
  assert.equal(log.lines.length, MOST_LINES);
  assert.equal(log.lines[0].event, "event 10");
  assert.equal(new Set(log.lines.map((one) => one.number)).size, MOST_LINES);
});

test("a burst beyond the bound costs its oldest lines", () => {
  const log = new LogLines();
  log.add(Array.from({ length: MOST_LINES * 3 }, (_, at) => line(String(at))));
  assert.equal(log.lines.length, MOST_LINES);
  assert.equal(log.lines.at(-1).event, String(MOST_LINES * 3 - 1));
});

test("lines that were missed leave a line that says so", () => {
  const log = new LogLines();
  log.miss(12, 5);
  assert.match(log.lines[0].event, /^12 lines were missed/);
});

test("a word is found in any part of a line, in either case", () => {
  const lines = [line("agent lost", { facts: { agent: "GPU-1", empty: null } }), line("request", { request_id: "req_9" })];
  assert.deepEqual(holding(lines, "gpu-1"), [lines[0]]);
  assert.deepEqual(holding(lines, "REQ_9"), [lines[1]]);
  assert.equal(holding(lines, " ").length, 2);
  assert.equal(textOf(lines[0]), "info fleet agent lost agent=GPU-1");
});

test("only rows near what is seen are drawn", () => {
  assert.deepEqual(windowOf(2000, 1000, 20), { first: 988, end: 1032 });
  assert.deepEqual(windowOf(5, 0, 20), { first: 0, end: 5 });
  assert.deepEqual(windowOf(10, 900, 20), { first: 0, end: 10 });
});
