import assert from "node:assert/strict";
import { test } from "node:test";
import { app } from "./support/browser.js";

const { ChatFailed, streamChat } = await app("playground/chat_stream.js");

function answering(text, options = {}) {
  return async () => new Response(text, options);
}

async function chunksOf(fetch, signal = new AbortController().signal) {
  const chunks = [];
  await streamChat({}, { signal, fetch, onChunk: (chunk) => chunks.push(chunk) });
  return chunks;
}

test("chunks arrive in order until the end", async () => {
  const fetch = answering('data: {"n":1}\n\ndata: {"n":2}\n\ndata: [DONE]\n\ndata: {"n":3}\n\n');
  assert.deepEqual(await chunksOf(fetch), [{ n: 1 }, { n: 2 }]);
});

test("an error before the first token says what the balancer said", async () => {
  const error = { message: "all slots are taken", code: "queue_full", request_id: "req_1", retry_after: 7 };
  const fetch = answering(JSON.stringify({ error }), { status: 503 });
  await assert.rejects(chunksOf(fetch), (failure) => {
    assert.ok(failure instanceof ChatFailed);
    assert.equal(failure.message, "all slots are taken. It may be asked again in 7 s. Request: req_1");
    return true;
  });
});

test("an error within the stream ends it after what was said", async () => {
  const chunks = [];
  const fetch = answering('data: {"n":1}\n\ndata: {"error":{"message":"the agent was lost","code":"agent_lost"}}\n\n');
  const signal = new AbortController().signal;
  await assert.rejects(
    streamChat({}, { signal, fetch, onChunk: (chunk) => chunks.push(chunk) }),
    { message: "the agent was lost" },
  );
  assert.deepEqual(chunks, [{ n: 1 }]);
});

test("an answer that breaks off is no whole answer", async () => {
  await assert.rejects(chunksOf(answering('data: {"n":1}\n\n')), /broke off/);
});

test("a balancer that answers with something else is told apart from one that is not there", async () => {
  await assert.rejects(chunksOf(answering("<h1>Bad gateway</h1>", { status: 502 })), /answered 502/);
  const gone = async () => {
    throw new TypeError("Failed to fetch");
  };
  await assert.rejects(chunksOf(gone), /does not answer/);
});

test("stopping is told apart from failing", async () => {
  const stop = new AbortController();
  const endless = new ReadableStream({
    pull(controller) {
      controller.enqueue(new TextEncoder().encode('data: {"n":1}\n\n'));
      stop.abort();
      controller.error(stop.signal.reason);
    },
  });
  await assert.rejects(chunksOf(async () => new Response(endless), stop.signal), { name: "AbortError" });
});
