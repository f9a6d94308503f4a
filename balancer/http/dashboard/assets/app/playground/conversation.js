// Pure: a conversation and what can be done with it. Every change makes new values; what did not
// change stays the same object.

/**
 * @typedef {object} ToolCall
 * @property {string} id
 * @property {string} name
 * @property {string} arguments JSON as the model wrote it
 * @property {string | null} result null: not given yet
 */
/**
 * @typedef {object} Step what a model said before it called tools, or at the end
 * @property {string} text
 * @property {string} reasoning
 * @property {ToolCall[]} toolCalls
 */
/** @typedef {"running" | "done" | "stopped" | "failed"} AnswerState */
/**
 * @typedef {object} Answer
 * @property {string} model
 * @property {AnswerState} state
 * @property {Step[]} steps the last one is being written
 * @property {string} finish why it ended; "" where that is not known
 * @property {string} error
 * @property {{[name: string]: any} | null} performance
 * @property {{[name: string]: any} | null} usage
 * @property {string} agent
 */
/** @typedef {{name: string, url: string, bytes: number}} Picture */
/**
 * @typedef {object} Turn
 * @property {string} id
 * @property {string} text
 * @property {Picture[]} pictures
 * @property {(Answer | null)[]} answers one for each model
 */
/** @typedef {{[name: string]: string}} Settings what was typed; "" is the model's own */
/**
 * @typedef {object} Conversation
 * @property {string} id
 * @property {number} changed milliseconds
 * @property {string} system
 * @property {string[]} models one, or two side by side; "" is the only one served
 * @property {Settings} settings
 * @property {Turn[]} turns
 */

export const MOST_TURNS = 200;
const TITLE_CHARS = 60;

/** @param {string} id @param {number} now @returns {Conversation} */
export function begun(id, now) {
  return { id, changed: now, system: "", models: [""], settings: {}, turns: [] };
}

/** What it is called in a list. @param {Conversation} conversation */
export function titleOf(conversation) {
  const text = conversation.turns[0]?.text.trim().replace(/\s+/g, " ") ?? "";
  if (!text) return "New conversation";
  return text.length > TITLE_CHARS ? `${text.slice(0, TITLE_CHARS - 1)}…` : text;
}

/** An answer that nothing was said of yet. @param {string} model @returns {Answer} */
export function awaited(model) {
  return {
    model,
    state: "running",
    steps: [emptyStep()],
    finish: "",
    error: "",
    performance: null,
    usage: null,
    agent: "",
  };
}

/** @returns {Step} */
function emptyStep() {
  return { text: "", reasoning: "", toolCalls: [] };
}

/**
 * With a question at its end, whose answers are awaited.
 * @param {Conversation} conversation
 * @param {{id: string, text: string, pictures: Picture[]}} asked
 * @returns {Conversation}
 */
export function asked(conversation, { id, text, pictures }) {
  const answers = conversation.models.map(awaited);
  return { ...conversation, turns: [...conversation.turns, { id, text, pictures, answers }] };
}

/**
 * Back to before a turn, which takes what came after it along.
 * @param {Conversation} conversation
 * @param {number} index
 * @returns {Conversation}
 */
export function cutBefore(conversation, index) {
  return { ...conversation, turns: conversation.turns.slice(0, index) };
}

/**
 * With a turn's answers awaited once more, and nothing behind it.
 * @param {Conversation} conversation
 * @param {number} index
 * @param {string} id the turn's from now on
 * @returns {Conversation}
 */
export function askedAgain(conversation, index, id) {
  const turn = conversation.turns[index];
  if (!turn) return conversation;
  return asked(cutBefore(conversation, index), { ...turn, id });
}

/**
 * @param {Conversation} conversation
 * @param {number} index of the turn
 * @param {number} column
 * @param {(answer: Answer) => Answer} change
 * @returns {Conversation}
 */
export function withAnswer(conversation, index, column, change) {
  const turns = conversation.turns.map((turn, at) => {
    if (at !== index) return turn;
    const answers = turn.answers.map((answer, place) =>
      place === column && answer ? change(answer) : answer,
    );
    return { ...turn, answers };
  });
  return { ...conversation, turns };
}

/** With so many models side by side. @param {Conversation} conversation @param {string[]} models */
export function withModels(conversation, models) {
  const turns = conversation.turns.map((turn) => ({
    ...turn,
    answers: models.map((_, column) => turn.answers[column] ?? null),
  }));
  return { ...conversation, models, turns };
}

/**
 * An answer after one more chunk of its stream.
 * @param {Answer} answer
 * @param {any} chunk
 * @returns {Answer}
 */
export function withChunk(answer, chunk) {
  const choice = chunk.choices?.[0];
  const delta = choice?.delta ?? {};
  const steps = [...answer.steps];
  const last = steps[steps.length - 1] ?? emptyStep();
  steps[Math.max(0, steps.length - 1)] = {
    text: last.text + textOf(delta.content),
    reasoning: last.reasoning + textOf(delta.reasoning_content ?? delta.reasoning),
    toolCalls: delta.tool_calls ? withToolCalls(last.toolCalls, delta.tool_calls) : last.toolCalls,
  };
  return {
    ...answer,
    steps,
    model: answer.model || textOf(chunk.model),
    finish: choice?.finish_reason ?? answer.finish,
    usage: chunk.usage ?? answer.usage,
    performance: chunk.performance ?? answer.performance,
    agent: textOf(chunk._proxy_info?.provider) || answer.agent,
  };
}

/** @param {unknown} value */
function textOf(value) {
  return typeof value === "string" ? value : "";
}

/** @param {ToolCall[]} before @param {any[]} deltas @returns {ToolCall[]} */
function withToolCalls(before, deltas) {
  const calls = [...before];
  for (const delta of deltas) {
    const at = Number.isInteger(delta.index) ? delta.index : calls.length;
    if (at < 0 || at > calls.length) continue;
    const call = calls[at] ?? { id: "", name: "", arguments: "", result: null };
    calls[at] = {
      ...call,
      id: call.id || textOf(delta.id),
      name: call.name + textOf(delta.function?.name),
      arguments: call.arguments + textOf(delta.function?.arguments),
    };
  }
  return calls;
}

/** Whether it waits for what its tools say, or to hear it once more. @param {Answer} answer */
export function wantsResults(answer) {
  const calls = answer.steps[answer.steps.length - 1]?.toolCalls ?? [];
  const areGiven = calls.every((call) => call.result !== null);
  return calls.length > 0 && (answer.state === "done" || (answer.state !== "running" && areGiven));
}

/**
 * As it ended. Where nothing came of the tools' results they can be given once more.
 * @param {Answer} answer
 * @param {Partial<Answer>} how
 * @returns {Answer}
 */
export function ended(answer, how) {
  const [last] = answer.steps.slice(-1);
  const isEmpty = last && !last.text && !last.reasoning && !last.toolCalls.length;
  const isCut = how.state !== "done" && isEmpty && answer.steps.length > 1;
  return { ...answer, ...how, steps: isCut ? answer.steps.slice(0, -1) : answer.steps };
}

/**
 * With the tools' results, going on.
 * @param {Answer} answer
 * @param {string[]} results
 * @returns {Answer}
 */
export function withResults(answer, results) {
  const steps = answer.steps.map((step, at) =>
    at === answer.steps.length - 1
      ? {
          ...step,
          toolCalls: step.toolCalls.map((call, place) => ({
            ...call,
            result: results[place] ?? "",
          })),
        }
      : step,
  );
  return { ...answer, state: "running", finish: "", error: "", steps: [...steps, emptyStep()] };
}

/** What a page that was closed left running is stopped. @param {Conversation} conversation */
export function settled(conversation) {
  const answers = conversation.turns.flatMap((turn) => turn.answers);
  if (!answers.some((answer) => answer?.state === "running")) return conversation;
  return {
    ...conversation,
    turns: conversation.turns.map((turn) => ({
      ...turn,
      answers: turn.answers.map((answer) =>
        answer?.state === "running" ? { ...answer, state: /** @type {const} */ ("stopped") } : answer,
      ),
    })),
  };
}
