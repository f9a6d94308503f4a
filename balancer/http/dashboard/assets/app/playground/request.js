// Pure: the body of a chat completion, from a conversation and what was typed beside it.

/** @typedef {import("./conversation.js").Conversation} Conversation */
/** @typedef {import("./conversation.js").Step} Step */
/** @typedef {import("./conversation.js").Turn} Turn */

export const MOST_PICTURES = 4;
/** Of one picture; as base64 it is a third more. */
export const MOST_PICTURE_BYTES = 5 * 1024 * 1024;

/**
 * @typedef {object} Field
 * @property {string} name the API's parameter
 * @property {string} label
 * @property {string} hint
 * @property {"number" | "whole" | "lines"} kind
 * @property {number} [least]
 * @property {number} [most]
 */

/** @type {readonly Field[]} */
export const FIELDS = [
  { name: "temperature", label: "Temperature", hint: "0 to 2", kind: "number", least: 0, most: 2 },
  { name: "top_p", label: "Top p", hint: "0 to 1", kind: "number", least: 0, most: 1 },
  { name: "top_k", label: "Top k", hint: "0 is all", kind: "whole", least: 0 },
  { name: "min_p", label: "Min p", hint: "0 to 1", kind: "number", least: 0, most: 1 },
  { name: "max_tokens", label: "Longest answer", hint: "tokens", kind: "whole", least: 1 },
  { name: "seed", label: "Seed", hint: "any", kind: "whole" },
  { name: "presence_penalty", label: "Presence penalty", hint: "−2 to 2", kind: "number", least: -2, most: 2 },
  { name: "frequency_penalty", label: "Frequency penalty", hint: "−2 to 2", kind: "number", least: -2, most: 2 },
  { name: "stop", label: "Stop at", hint: "one a line, four at most", kind: "lines" },
];
/** "" is the model's own. */
export const EFFORTS = ["", "none", "minimal", "low", "medium", "high"];
export const FORMS = ["", "json_object", "json_schema"];

/** What was typed cannot be sent. */
export class NotSendable extends Error {
  /** @param {string} field @param {string} message */
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

/**
 * The body that asks one of the models for the answer of a turn; what came before is in it.
 * @param {Conversation} conversation
 * @param {number} column which of the models
 * @param {number} [index] of the turn; the last one
 * @returns {{[name: string]: unknown}}
 * @throws {NotSendable} naming the field
 */
export function bodyOf(conversation, column, index = conversation.turns.length - 1) {
  const model = conversation.models[column];
  return {
    ...(model ? { model } : {}),
    messages: messagesOf(conversation, column, index),
    ...parametersOf(conversation.settings),
    stream: true,
    stream_options: { include_usage: true },
  };
}

/** @param {Conversation} conversation @param {number} column @param {number} index */
function messagesOf(conversation, column, index) {
  /** @type {object[]} */
  const messages = [];
  if (conversation.system.trim()) messages.push({ role: "system", content: conversation.system });
  for (const turn of conversation.turns.slice(0, index + 1)) {
    messages.push(questionOf(turn));
    const answer = turn.answers[column] ?? turn.answers.find((one) => one) ?? null;
    for (const step of answer?.steps ?? []) messages.push(...saidIn(step));
  }
  return messages;
}

/** @param {Turn} turn */
function questionOf(turn) {
  if (!turn.pictures.length) return { role: "user", content: turn.text };
  const pictures = turn.pictures.map(({ url }) => ({ type: "image_url", image_url: { url } }));
  const text = turn.text ? [{ type: "text", text: turn.text }] : [];
  return { role: "user", content: [...text, ...pictures] };
}

/** @param {Step} step @returns {object[]} */
function saidIn(step) {
  const hasResults = step.toolCalls.length > 0 && step.toolCalls.every((call) => call.result !== null);
  if (!step.text && !hasResults) return [];
  if (!hasResults) return [{ role: "assistant", content: step.text }];
  const calls = step.toolCalls.map((call) => ({
    id: call.id,
    type: "function",
    function: { name: call.name, arguments: call.arguments },
  }));
  return [
    { role: "assistant", content: step.text || null, tool_calls: calls },
    ...step.toolCalls.map((call) => ({ role: "tool", tool_call_id: call.id, content: call.result })),
  ];
}

/** @param {{[name: string]: string}} settings */
function parametersOf(settings) {
  /** @type {{[name: string]: unknown}} */
  const parameters = {};
  for (const field of FIELDS) {
    const typed = settings[field.name] ?? "";
    if (typed.trim()) parameters[field.name] = readingOf(field, typed);
  }
  if (settings.reasoning_effort) parameters.reasoning_effort = settings.reasoning_effort;
  if (settings.form === "json_object") parameters.response_format = { type: "json_object" };
  if (settings.form === "json_schema") parameters.response_format = schemaOf(settings.schema ?? "");
  if (settings.tools?.trim()) {
    parameters.tools = toolsOf(settings.tools);
    if (settings.tool_choice) parameters.tool_choice = settings.tool_choice;
  }
  return parameters;
}

/** @param {Field} field @param {string} typed */
function readingOf(field, typed) {
  if (field.kind === "lines") return typed.split("\n").filter((line) => line);
  const value = Number(typed);
  const { least = -Infinity, most = Infinity } = field;
  const isFit = Number.isFinite(value) && value >= least && value <= most;
  if (!isFit || (field.kind === "whole" && !Number.isSafeInteger(value))) {
    throw new NotSendable(field.name, `${field.label}: ${typed} is not ${rangeOf(field)}.`);
  }
  return value;
}

/** @param {Field} field */
function rangeOf({ kind, least, most }) {
  const what = kind === "whole" ? "a whole number" : "a number";
  if (least === undefined) return what;
  return most === undefined ? `${what} of at least ${least}` : `${what} from ${least} to ${most}`;
}

/** @param {string} typed */
function schemaOf(typed) {
  const schema = parsed("schema", "The JSON schema", typed);
  if (typeof schema !== "object" || schema === null || Array.isArray(schema)) {
    throw new NotSendable("schema", "The JSON schema is not an object.");
  }
  return { type: "json_schema", json_schema: { name: "answer", schema } };
}

/** @param {string} typed */
function toolsOf(typed) {
  const tools = parsed("tools", "The list of tools", typed);
  if (!Array.isArray(tools)) throw new NotSendable("tools", "The tools are not a list: [ … ].");
  return tools.map((tool) => (tool?.function ? tool : { type: "function", function: tool }));
}

/** @param {string} field @param {string} what @param {string} typed */
function parsed(field, what, typed) {
  try {
    return JSON.parse(typed);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new NotSendable(field, `${what} is not JSON: ${reason}`);
  }
}
