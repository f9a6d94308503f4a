import assert from "node:assert/strict";
import { test } from "node:test";
import { Series } from "../../balancer/http/dashboard/assets/app/core/series.js";

test("the past is as long as the longest row, and what was not known is null", () => {
  const past = Series.of({ interval_s: 1, end: 100, paths: { a: [1, 2, 3], b: [9] } });
  assert.deepEqual(past.times, [98, 99, 100]);
  assert.deepEqual(past.read("b"), [null, null, 9]);
  assert.deepEqual(past.read("c"), [null, null, null]);
});

test("ten minutes are kept, of at most so many figures", () => {
  const past = new Series();
  for (let at = 0; at < 700; at++) past.add(at, { a: at });
  past.add(700, Object.fromEntries(Array.from({ length: 1000 }, (_, index) => [`p${index}`, 1])));
  assert.equal(past.times.length, 600);
  assert.equal(past.times[599], 700);
  assert.equal(past.read("a").length, 600);
  assert.equal(past.read("a")[598], 699);
  assert.equal(past.values.size, 64);
});

test("a clock that is set back begins a new past, as charts need times that grow", () => {
  const past = Series.of({ interval_s: 1, end: 100, paths: { a: [1, 2] } });
  past.add(40, { a: 3 });
  past.add(41, { a: 4 });
  assert.deepEqual([past.times, past.read("a")], [[40, 41], [3, 4]]);
});
