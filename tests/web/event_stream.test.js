import assert from "node:assert/strict";
import { test } from "node:test";
import { EventReader } from "../../balancer/http/dashboard/assets/app/playground/event_stream.js";

const STREAM = 'id: a:1\ndata: {"text":"Grüße 👋"}\n\n: silence\n\ndata: one\r\ndata: two\r\n\r\ndata:[DONE]\r\r';
const EVENTS = ['{"text":"Grüße 👋"}', "one\ntwo", "[DONE]"];

test("events are the same wherever the bytes were cut", () => {
  const bytes = new TextEncoder().encode(STREAM);
  for (let size = 1; size <= bytes.length; size += 1) {
    const reader = new EventReader();
    const events = [];
    for (let at = 0; at < bytes.length; at += size) {
      events.push(...reader.read(bytes.subarray(at, at + size)));
    }
    assert.deepEqual(events, EVENTS, `in pieces of ${size} bytes`);
  }
});

test("an event that was cut off by the end is no event", () => {
  assert.deepEqual(new EventReader().read(new TextEncoder().encode("data: half\n")), []);
});

test("an event without an end is refused instead of kept", () => {
  const reader = new EventReader();
  const piece = new TextEncoder().encode(`data: ${"x".repeat(1024 * 1024)}\n`);
  assert.throws(() => {
    for (let times = 0; times < 8; times += 1) reader.read(piece);
  }, RangeError);
});
