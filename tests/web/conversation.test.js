import assert from "node:assert/strict";
import { test } from "node:test";
import * as talk from "../../balancer/http/dashboard/assets/app/playground/conversation.js";
import { asJson, asMarkdown } from "../../balancer/http/dashboard/assets/app/playground/export.js";
import { bodyOf, NotSendable } from "../../balancer/http/dashboard/assets/app/playground/request.js";

const question = (text, pictures = []) => ({ id: text, text, pictures });
const said = (text, more = {}) => ({ choices: [{ delta: { content: text }, ...more }] });

function talked(...words) {
  let conversation = talk.begun("c", 0);
  for (const [asked, answered] of words) {
    conversation = talk.asked(conversation, question(asked));
    const at = conversation.turns.length - 1;
    conversation = talk.withAnswer(conversation, at, 0, (answer) => ({
      ...talk.withChunk(answer, said(answered)),
      state: "done",
    }));
  }
  return conversation;
}

test("an answer grows by its chunks and keeps what the last one tells", () => {
  let answer = talk.awaited("");
  answer = talk.withChunk(answer, { model: "demo", choices: [{ delta: { reasoning_content: "hm" } }] });
  answer = talk.withChunk(answer, said("Hel"));
  answer = talk.withChunk(answer, said("lo", { finish_reason: "stop" }));
  answer = talk.withChunk(answer, {
    choices: [],
    usage: { completion_tokens: 2 },
    performance: { tokens_per_second: 9 },
    _proxy_info: { provider: "one" },
  });
  assert.deepEqual(answer.steps, [{ text: "Hello", reasoning: "hm", toolCalls: [] }]);
  assert.equal(answer.model, "demo");
  assert.equal(answer.finish, "stop");
  assert.equal(answer.usage.completion_tokens, 2);
  assert.equal(answer.performance.tokens_per_second, 9);
  assert.equal(answer.agent, "one");
});

test("what came before goes along with a question", () => {
  const conversation = talk.asked({ ...talked(["a", "b"]), system: "Be short." }, question("c"));
  assert.deepEqual(bodyOf(conversation, 0).messages, [
    { role: "system", content: "Be short." },
    { role: "user", content: "a" },
    { role: "assistant", content: "b" },
    { role: "user", content: "c" },
  ]);
});

test("asking again takes back the answer and what came behind it", () => {
  const again = talk.askedAgain(talked(["a", "b"], ["c", "d"]), 0, "anew");
  assert.deepEqual(again.turns.map((turn) => turn.id), ["anew"]);
  assert.deepEqual(bodyOf(again, 0).messages, [{ role: "user", content: "a" }]);
});

test("two models side by side each hear their own answers", () => {
  let conversation = talk.withModels(talked(["a", "left"]), ["one", "two"]);
  conversation = talk.asked(conversation, question("b"));
  conversation = talk.withAnswer(conversation, 1, 1, (answer) => talk.withChunk(answer, said("right")));
  conversation = talk.asked(conversation, question("c"));
  const texts = (column) => bodyOf(conversation, column).messages.map((message) => message.content);
  assert.deepEqual(texts(0), ["a", "left", "b", "c"]);
  assert.deepEqual(texts(1), ["a", "left", "b", "right", "c"]);
  assert.equal(bodyOf(conversation, 1).model, "two");
});

test("tools that were called get their results and the model goes on", () => {
  let answer = talk.awaited("m");
  const call = (delta) => ({ choices: [{ delta: { tool_calls: [delta] } }] });
  answer = talk.withChunk(answer, call({ index: 0, id: "x", function: { name: "weather", arguments: "" } }));
  answer = talk.withChunk(answer, call({ index: 0, function: { arguments: '{"at":' } }));
  answer = talk.withChunk(answer, call({ index: 0, function: { arguments: '"Oslo"}' } }));
  answer = talk.withChunk(answer, call({ index: 7, function: { arguments: "out of order" } }));
  assert.equal(talk.wantsResults(answer), false);
  answer = { ...answer, state: "done" };
  assert.equal(talk.wantsResults(answer), true);
  const conversation = talk.withAnswer(
    talk.asked(talk.begun("c", 0), question("?")), 0, 0, () => talk.withResults(answer, ["snow"]),
  );
  assert.deepEqual(bodyOf(conversation, 0).messages, [
    { role: "user", content: "?" },
    {
      role: "assistant",
      content: null,
      tool_calls: [{ id: "x", type: "function", function: { name: "weather", arguments: '{"at":"Oslo"}' } }],
    },
    { role: "tool", tool_call_id: "x", content: "snow" },
  ]);
});

test("tools' results that nothing came of can be given once more", () => {
  const call = { index: 0, id: "x", function: { name: "f", arguments: "{}" } };
  const called = { ...talk.withChunk(talk.awaited("m"), { choices: [{ delta: { tool_calls: [call] } }] }), state: "done" };
  const failed = talk.ended(talk.withResults(called, ["snow"]), { state: "failed", error: "no agent is free" });

  assert.equal(talk.wantsResults(failed), true);
  assert.equal(failed.steps.at(-1).toolCalls[0].result, "snow");
  const again = talk.withResults(failed, ["rain"]);
  assert.deepEqual([again.state, again.error, again.steps.length], ["running", "", 2]);

  const answered = talk.withChunk(again, said("It ra"));
  assert.equal(talk.wantsResults(talk.ended(answered, { state: "stopped" })), false);
  assert.equal(talk.wantsResults({ ...called, state: "stopped" }), false);
});

test("pictures are parts of the message they came with", () => {
  const picture = { name: "dot.png", url: "data:image/png;base64,AA==", bytes: 1 };
  const { messages } = bodyOf(talk.asked(talk.begun("c", 0), question("what?", [picture])), 0);
  assert.deepEqual(messages[0].content, [
    { type: "text", text: "what?" },
    { type: "image_url", image_url: { url: picture.url } },
  ]);
});

test("only what was typed is sent, as the type the API wants", () => {
  const settings = {
    temperature: "0", top_p: "", max_tokens: " 64 ", stop: "END\n\n###", reasoning_effort: "low",
    form: "json_schema", schema: '{"type":"object"}', tools: '[{"name":"f","parameters":{}}]',
    tool_choice: "required",
  };
  const { messages, stream, stream_options, ...parameters } = bodyOf(
    { ...talk.asked(talk.begun("c", 0), question("a")), settings }, 0,
  );
  assert.deepEqual(parameters, {
    temperature: 0,
    max_tokens: 64,
    stop: ["END", "###"],
    reasoning_effort: "low",
    response_format: { type: "json_schema", json_schema: { name: "answer", schema: { type: "object" } } },
    tools: [{ type: "function", function: { name: "f", parameters: {} } }],
    tool_choice: "required",
  });
});

for (const [field, settings] of [
  ["temperature", { temperature: "3" }],
  ["temperature", { temperature: "warm" }],
  ["max_tokens", { max_tokens: "1.5" }],
  ["top_p", { top_p: "-0.1" }],
  ["schema", { form: "json_schema", schema: "[1]" }],
  ["schema", { form: "json_schema", schema: "{" }],
  ["tools", { tools: "{}" }],
  ["tools", { tools: "nonsense" }],
]) {
  test(`what cannot be sent is named: ${JSON.stringify(settings)}`, () => {
    const conversation = { ...talk.asked(talk.begun("c", 0), question("a")), settings };
    assert.throws(() => bodyOf(conversation, 0), (error) => error instanceof NotSendable && error.field === field);
  });
}

test("a page that was closed leaves stopped answers behind", () => {
  const settled = talk.settled(talk.asked(talk.begun("c", 0), question("a")));
  assert.equal(settled.turns[0].answers[0].state, "stopped");
});

test("an exported conversation holds what was said", () => {
  const conversation = talked(["question", "answer"]);
  assert.deepEqual(JSON.parse(asJson(conversation)), conversation);
  assert.match(asMarkdown(conversation), /\*\*You\*\*\n\nquestion[\s\S]*answer/);
});

test("a title is the first question on one line", () => {
  assert.equal(talk.titleOf(talk.begun("c", 0)), "New conversation");
  assert.equal(talk.titleOf(talked(["two\nlines", ""])), "two lines");
  assert.equal(talk.titleOf(talked(["x".repeat(100), ""])).length, 60);
});
