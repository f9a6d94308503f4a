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

/** A browser's database with these rows, which may have no room for more. */
function database(rows, { isFull = false } = {}) {
  const soon = (work) => queueMicrotask(work);
  const answered = (result) => {
    const request = { result };
    soon(() => request.onsuccess?.());
    return request;
  };
  const transaction = () => {
    const made = {
      error: new Error("no room on this disk"),
      objectStore: () => ({
        getAll: () => answered([...rows.values()]),
        put: (one) => answered(isFull || rows.set(one.id, one)),
        delete: (id) => answered(rows.delete(id)),
      }),
    };
    setImmediate(() => (isFull ? made.onabort?.() : made.oncomplete?.()));
    return made;
  };
  return { open: () => answered({ transaction }) };
}

async function opened(indexedDB) {
  globalThis.indexedDB = indexedDB;
  const store = new ConversationStore();
  return { store, found: await store.load() };
}

test("conversations are there again for the next page, and the oldest of too many go", async () => {
  const rows = new Map();
  const { store } = await opened(database(rows));
  for (let at = 0; at < MOST_CONVERSATIONS + 2; at += 1) await store.keep(begun(`c${at}`, at));
  await store.drop("c50");

  const { found } = await opened(database(rows));
  assert.equal(found.length, MOST_CONVERSATIONS - 1);
  assert.equal(rows.size, MOST_CONVERSATIONS - 1);
  assert.ok(!rows.has("c0") && !rows.has("c50"));
});

test("a browser without room says that it did not keep a conversation, which this page still has", async () => {
  const { store } = await opened(database(new Map(), { isFull: true }));

  await assert.rejects(store.keep(begun("a", 1)), /did not keep.*no room on this disk/);

  assert.deepEqual(store.all().map((one) => one.id), ["a"]);
});

test("what is no conversation is passed over, whoever wrote it", async () => {
  const good = { id: "a", changed: 1, chars: 1, conversation: begun("a", 1) };
  const turn = { id: "t", text: "hi", pictures: [], answers: [null] };
  const bad = [
    { ...good, id: "b", conversation: { turns: [] } },
    { ...good, id: "c", conversation: { ...begun("c", 1), settings: null } },
    { ...good, id: "d", conversation: { ...begun("d", 1), turns: [{ ...turn, text: undefined }] } },
    { ...good, id: "e", conversation: { ...begun("e", 1), turns: [{ ...turn, answers: [{}] }] } },
    { ...good, id: "f", chars: "many" },
    { id: "g" },
  ];
  const { found } = await opened(database(new Map([good, ...bad].map((one) => [one.id, one]))));
  assert.deepEqual(found.map((one) => one.id), ["a"]);
});
