import assert from "node:assert/strict";
import { test } from "node:test";
import * as format from "../../balancer/http/dashboard/assets/app/core/format.js";

test("what nobody knows is a dash, and zero is zero", () => {
  for (const write of [format.count, format.rate, format.percent, format.milliseconds, format.bytes]) {
    assert.equal(write(null), "–");
    assert.match(write(0), /^0/);
  }
});

test("times grow from milliseconds to days", () => {
  assert.deepEqual([4.21, 250, 1500, 75_000].map(format.milliseconds), ["4.2 ms", "250 ms", "1.5 s", "1 min 15 s"]);
  assert.deepEqual([59, 3700, 90_000].map(format.duration), ["59 s", "1 h 1 min", "1 d 1 h"]);
});

test("bytes are told in the unit that fits", () => {
  assert.deepEqual([512, 1536, 250 * 2 ** 20, 80 * 2 ** 30].map(format.bytes), ["512 B", "1.5 KiB", "250 MiB", "80.0 GiB"]);
});
