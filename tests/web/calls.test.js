import assert from "node:assert/strict";
import { test } from "node:test";
import { app } from "./support/browser.js";

const { ask, changeHeaders, look, mustSignIn, placed, signIn } = await app("core/calls.js");

/** Have the balancer answer this. */
function answering(body, options) {
  globalThis.fetch = async () => new Response(body, options);
}

const refusing = (error, status) => answering(JSON.stringify({ error }), { status });

test("what the balancer answers is decoded", async () => {
  answering('{"id":"one"}');
  assert.deepEqual(await ask("GET", "/agents/one"), { id: "one" });
});

test("a refusal says what the balancer said, and when to ask again", async () => {
  refusing({ message: "no agent is free", code: "queue_full", retry_after: 90 }, 429);
  await assert.rejects(ask("GET", "/x"), {
    message: "no agent is free. It may be asked again in 1 min 30 s.",
    status: 429,
  });
});

test("a failure of the balancer's is told with the id that its log has", async () => {
  refusing({ message: "the log has the reason by request_id", request_id: "req_1" }, 500);
  await assert.rejects(ask("GET", "/x"), { message: "the log has the reason by request_id. Request: req_1" });
  refusing({ message: "`n` must be 1.", request_id: "req_1" }, 400);
  await assert.rejects(ask("GET", "/x"), { message: "`n` must be 1." });
});

test("an answer that is not the balancer's is no success", async () => {
  answering("<h1>Log in</h1>", { status: 200 });
  await assert.rejects(ask("GET", "/x"), /not JSON/);
  answering("<h1>Bad gateway</h1>", { status: 502 });
  await assert.rejects(ask("GET", "/x"), { message: "The balancer answered 502.", status: 502 });
  answering('{"error": "text"}', { status: 404 });
  await assert.rejects(ask("GET", "/x"), { message: "The balancer answered 404.", status: 404 });
});

test("a balancer that is not there is told apart", async () => {
  globalThis.fetch = async () => {
    throw new TypeError("Failed to fetch");
  };
  await assert.rejects(ask("GET", "/x"), { status: 0 });
});

test("a name is one part of a path, whatever it holds", () => {
  assert.equal(placed("a/b?c#d e.~%"), "a%2Fb%3Fc%23d%20e.~%25");
});

test("whoever has to sign in says the session's token with changes", async () => {
  assert.equal(mustSignIn.value, false);
  answering(JSON.stringify({ is_needed: true, is_open: false }));
  await look();
  assert.equal(mustSignIn.value, true);
  assert.deepEqual(changeHeaders(), {});
  answering(JSON.stringify({ is_needed: true, is_open: true, csrf_token: "token" }));
  await signIn("a key");
  assert.equal(mustSignIn.value, false);
  let sent;
  globalThis.fetch = async (_, request) => {
    sent = request;
    return new Response("{}");
  };
  await ask("POST", "/agents/one/drain");
  assert.equal(sent.headers["X-CSRF-Token"], "token");
});

test("a session that ended is noticed by the next call, one that cannot be asked for stays", async () => {
  globalThis.fetch = async () => {
    throw new TypeError("no connection");
  };
  await look();
  assert.equal(mustSignIn.value, false);
  globalThis.fetch = async (path) =>
    path === "/session"
      ? new Response(JSON.stringify({ is_needed: true, is_open: false }))
      : new Response(JSON.stringify({ error: { message: "sign in" } }), { status: 401 });
  await assert.rejects(ask("GET", "/agents"), /sign in/);
  await new Promise(setImmediate);
  assert.equal(mustSignIn.value, true);
});
