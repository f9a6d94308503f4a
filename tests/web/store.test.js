import assert from "node:assert/strict";
import { test } from "node:test";
import { begun } from "../../balancer/http/dashboard/assets/app/playground/conversation.js";
import { ConversationStore, MOST_CHARS, MOST_CONVERSATIONS, sorted } from "../../balancer/http/dashboard/assets/app/playground/store.js";

const row = (changed, chars = 1) => ({ id: String(changed), changed, chars });

test("the latest conversations are kept and the oldest go", () => {
  const rows = Array.from({ length: MOST_CONVERSATIONS + 5 }, (_, at) => row(at));
  const { kept, gone } = sorted(rows);
  assert.equal(kept.length, MOST_CONVERSATIONS);
  assert.equal(kept[0].changed, MOST_CONVERSATIONS + 4);
  assert.deepEqual(gone.map((one) => one.changed), [4, 3, 2, 1, 0]);
});

test("big conversations cost old ones their place, but never the latest", () => {
  const { kept } = sorted([row(1), row(2, MOST_CHARS), row(3, MOST_CHARS)]);
  assert.deepEqual(kept.map((one) => one.changed), [3]);
});

test("without a database conversations last as long as the page", async () => {
  const store = new ConversationStore();
  assert.deepEqual(await store.load(), []);
  await store.keep(begun("a", 1));
  await store.keep(begun("b", 2));
  await store.drop("a");
  assert.deepEqual(store.all().map((one) => one.id), ["b"]);
});
