// Pure: a conversation as a file.

/** @typedef {import("./conversation.js").Conversation} Conversation */
/** @typedef {import("./conversation.js").Answer} Answer */

/** All of it, to be read by programs. @param {Conversation} conversation */
export function asJson(conversation) {
  return JSON.stringify(conversation, null, 2);
}

/** What was said, to be read by people. @param {Conversation} conversation */
export function asMarkdown(conversation) {
  const parts = conversation.system.trim() ? [`**System**\n\n${conversation.system}`] : [];
  for (const turn of conversation.turns) {
    parts.push(`**You**\n\n${turn.text}`);
    for (const answer of turn.answers) if (answer) parts.push(answerAsMarkdown(answer));
  }
  return `${parts.join("\n\n---\n\n")}\n`;
}

/** @param {Answer} answer */
function answerAsMarkdown(answer) {
  const steps = answer.steps.flatMap((step) => [
    step.text,
    ...step.toolCalls.map((call) => `\`${call.name}(${call.arguments})\`: ${call.result ?? ""}`),
  ]);
  return `**${answer.model || "Model"}**\n\n${steps.filter((text) => text).join("\n\n")}`;
}
