// What others wrote, before a page shows it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { parsed } from "../../balancer/http/dashboard/assets/app/core/text.js";

test("marks that turn the order of letters are signs, wherever they stand", () => {
  const told = JSON.stringify({ "a\u202eb": ["x\u2066y", 1, null] });
  assert.deepEqual(parsed(told), { "a\ufffdb": ["x\ufffdy", 1, null] });
});

test("letters that are written from the right stay as they are", () => {
  const told = ["שלום", "سلام", "a\u200fb"];
  assert.deepEqual(parsed(JSON.stringify(told)), told);
});
