import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { app, frame, settled } from "./support/browser.js";

const chat = await app("playground/chat.js");

/** Answers that are being written. @type {{say: (text: string) => void, end: () => void}[]} */
let answers = [];

globalThis.fetch = async (_, { signal }) => {
  const encoder = new TextEncoder();
  let stream;
  const body = new ReadableStream({ start: (controller) => (stream = controller) });
  signal.addEventListener("abort", () => stream.error(signal.reason));
  const chunk = (text) => `data: ${JSON.stringify({ choices: [{ delta: { content: text } }] })}\n\n`;
  answers.push({
    say: (text) => stream.enqueue(encoder.encode(chunk(text))),
    end: () => stream.enqueue(encoder.encode("data: [DONE]\n\n")),
  });
  return new Response(body);
};

/** What the last turn's answers say, and how they are. */
const shown = () =>
  chat.conversation.value.turns
    .at(-1)
    .answers.map(({ state, steps }) => `${state}: ${steps.map((step) => step.text).join("")}`);

beforeEach(async () => {
  await chat.load();
  chat.begin();
  chat.chooseModels([""]);
  await settled();
  for (const { id } of chat.kept.value) await chat.drop(id);
  answers = [];
});

test("an answer that is asked for again has nothing of the one before it", async () => {
  chat.chooseModels(["one", "two"]);
  chat.ask("Hi", []);
  await settled();
  answers[0].end();
  answers[1].say("old");
  await settled();

  chat.askAgain(0);
  await settled();
  answers[2].say("new");
  answers[3].say("new");
  await settled();
  frame();

  assert.deepEqual(shown(), ["running: new", "running: new"]);
});

test("a question that cannot be sent does not end the answer that is being written", async () => {
  chat.ask("Hi", []);
  await settled();
  answers[0].say("going on");

  chat.changeSetting("temperature", "warm");
  assert.equal(chat.ask("More", []), false);
  await settled();
  frame();
  chat.changeSetting("temperature", "");

  assert.deepEqual(shown(), ["running: going on"]);
});

test("a question is kept before its answer has come to its end", async () => {
  chat.ask("Remember me", []);
  await settled();

  assert.deepEqual(chat.kept.value.map((one) => one.turns[0].text), ["Remember me"]);
});

test("a conversation that is left while an answer is written is kept as far as it came", async () => {
  chat.ask("First", []);
  await settled();
  answers[0].say("half an ans");
  await settled();
  frame();

  chat.begin();
  await settled();
  chat.ask("Second", []);
  await settled();

  const [first] = chat.kept.value.filter((one) => one.turns[0].text === "First");
  const [answer] = first.turns[0].answers;
  assert.equal(answer.state, "stopped");
  assert.equal(answer.steps[0].text, "half an ans");
});

test("what was changed beside a conversation is kept when another one is shown", async () => {
  chat.ask("Hi", []);
  await settled();
  answers[0].end();
  await settled();

  chat.change({ system: "Be short." });
  chat.begin();
  await settled();

  assert.deepEqual(chat.kept.value.map((one) => one.system), ["Be short."]);
});

test("choosing the conversation that is shown does not end its answer", async () => {
  chat.ask("Hi", []);
  await settled();
  answers[0].say("more");

  chat.show(chat.kept.value[0]);
  await settled();
  frame();

  assert.deepEqual(shown(), ["running: more"]);
});

test("a page that is closed while an answer is written keeps what there is of it", async () => {
  chat.ask("Hi", []);
  await settled();
  answers[0].say("so far");
  await settled();
  frame();

  globalThis.dispatchEvent(new Event("pagehide"));
  await settled();

  const [answer] = chat.kept.value[0].turns[0].answers;
  assert.deepEqual([answer.state, answer.steps[0].text], ["stopped", "so far"]);
});

test("a conversation that is deleted while an answer is written stays deleted", async () => {
  chat.ask("Forget me", []);
  await settled();

  await chat.drop(chat.conversation.value.id);
  await settled();

  assert.deepEqual(chat.kept.value, []);
  assert.equal(chat.running.value, 0);
});
