// Questions and answers as they are shown.

import { useState } from "preact/hooks";
import { count, milliseconds, rate } from "../core/format.js";
import { html, pure } from "../core/html.js";
import { Copy } from "../parts/bits.js";
import { Icon } from "../parts/icon.js";
import { askAgain, giveResults, running } from "./chat.js";
import { wantsResults } from "./conversation.js";
import { Markdown } from "./markdown_view.js";

/** @typedef {import("./conversation.js").Turn} Turn */
/** @typedef {import("./conversation.js").Answer} Answer */
/** @typedef {import("./conversation.js").Step} Step */
/** @typedef {import("./conversation.js").ToolCall} ToolCall */

/** @typedef {{turn: Turn, index: number, isLast: boolean, isEdited: boolean, onEdit: (index: number) => void, onCode: (index: number, column: number) => void}} TurnProperties */

export const TurnView = pure(
  /** @param {TurnProperties} properties */
  ({ turn, index, isLast, isEdited, onEdit, onCode }) => html`<li class="turn" data-edited=${isEdited}>
    <div class="question">
      <p class="unseen">You asked:</p>
      ${turn.pictures.map(
        (picture) => html`<img key=${picture.url} src=${picture.url} alt=${picture.name} />`,
      )}
      ${turn.text ? html`<div class="question-text">${turn.text}</div>` : null}
      <div class="turn-actions">
        <${Copy} text=${turn.text} what="the question" />
        <button type="button" class="quiet word" onClick=${() => onEdit(index)}>Edit</button>
      </div>
    </div>
    <div class="answers" data-columns=${turn.answers.length}>
      ${turn.answers.map((answer, column) =>
        answer
          ? html`<${AnswerView} key=${column} answer=${answer} index=${index} column=${column}
              isLast=${isLast} onCode=${onCode} />`
          : html`<p class="quiet-text" key=${column}>Was not asked.</p>`,
      )}
    </div>
  </li>`,
);

/** @typedef {{answer: Answer, index: number, column: number, isLast: boolean, onCode: (index: number, column: number) => void}} AnswerProperties */

const AnswerView = pure(
  /** @param {AnswerProperties} properties */
  ({ answer, index, column, isLast, onCode }) => {
    const isRunning = answer.state === "running";
    const text = answer.steps.map((step) => step.text).join("\n\n");
    return html`<article class="answer" aria-busy=${isRunning} aria-label=${`Answer of ${answer.model}`}>
      <h2 class="answer-model">${answer.model || "Model"}</h2>
      ${answer.steps.map(
        (step, at) => html`<${StepView} key=${at} step=${step}
          isWritten=${isRunning && at === answer.steps.length - 1} />`,
      )}
      ${answer.state === "failed"
        ? html`<p class="answer-error" role="alert"><${Icon} name="alert" />${answer.error}</p>`
        : null}
      ${isLast && wantsResults(answer)
        ? html`<${Results} calls=${answer.steps[answer.steps.length - 1]?.toolCalls ?? []} column=${column} />`
        : null}
      <p class="answer-end">${isRunning ? "Answering…" : endOf(answer)}</p>
      ${isRunning
        ? null
        : html`<div class="turn-actions">
            <${Copy} text=${text} what="the answer" />
            <button type="button" class="quiet word" onClick=${() => askAgain(index)}
              title="Answer once more; what comes after it goes">Regenerate</button>
            <button type="button" class="quiet word" onClick=${() => onCode(index, column)}>Code</button>
          </div>`}
    </article>`;
  },
);

/** @type {{[finish: string]: string}} */
const FINISHES = {
  length: "cut off at its longest",
  tool_calls: "called tools",
  content_filter: "was filtered",
};

/** How it went, in one line. @param {Answer} answer */
function endOf({ state, finish, performance, usage, agent }) {
  const parts = state === "stopped" ? ["stopped"] : FINISHES[finish] ? [FINISHES[finish]] : [];
  if (usage) parts.push(`${count(usage.completion_tokens)} tokens`);
  if (performance) {
    parts.push(`${rate(performance.tokens_per_second)} tokens/s`);
    parts.push(`first after ${milliseconds(performance.time_to_first_token_ms)}`);
    if (performance.queue_time_ms >= 1) parts.push(`waited ${milliseconds(performance.queue_time_ms)}`);
    if (performance.cached_prompt_tokens) parts.push(`${count(performance.cached_prompt_tokens)} of ${count(usage?.prompt_tokens)} prompt tokens cached`);
  }
  if (agent) parts.push(`on ${agent}`);
  return parts.join(" · ");
}

/** @param {{step: Step, isWritten: boolean}} properties */
function StepView({ step, isWritten }) {
  const isThinking = isWritten && !step.text && !step.toolCalls.length;
  return html`
    ${step.reasoning
      ? html`<details class="reasoning">
          <summary>${isThinking ? "Thinking…" : "Thought about it"}</summary>
          <div class="reasoning-text">${step.reasoning}</div>
        </details>`
      : null}
    ${step.text ? html`<${Markdown} text=${step.text} isGrowing=${isWritten} />` : null}
    ${isThinking && !step.reasoning ? html`<div class="awaited" aria-hidden="true"><i></i><i></i><i></i></div>` : null}
    ${step.toolCalls.map((call, at) => html`<${Call} key=${at} call=${call} />`)}
  `;
}

/** @param {{call: ToolCall}} properties */
function Call({ call }) {
  return html`<div class="tool-call">
    <p class="tool-name"><span class="quiet-text">calls</span> <code>${call.name}</code></p>
    <pre tabindex="0" role="group" aria-label=${`Arguments of ${call.name}`}><code>${pretty(call.arguments)}</code></pre>
    ${call.result === null
      ? null
      : html`<p class="quiet-text">which gave</p>
          <pre tabindex="0" role="group" aria-label=${`Result of ${call.name}`}><code>${call.result}</code></pre>`}
  </div>`;
}

/** @param {string} text */
function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text; // not written to its end yet
  }
}

/** What the tools said, typed by hand. @param {{calls: ToolCall[], column: number}} properties */
function Results({ calls, column }) {
  const [results, setResults] = useState(() => calls.map((call) => call.result ?? ""));
  const submit = (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    giveResults(column, results);
  };
  return html`<form class="tool-results" onSubmit=${submit}>
    ${calls.map(
      (call, at) => html`<label key=${at}>
        <span>What <code>${call.name}</code> gives</span>
        <textarea rows="2" value=${results[at]} onInput=${(/** @type {InputEvent} */ event) => {
          const { value } = /** @type {HTMLTextAreaElement} */ (event.target);
          setResults(results.map((one, place) => (place === at ? value : one)));
        }}></textarea>
      </label>`,
    )}
    <button type="submit" disabled=${running.value > 0}>Go on with ${calls.length === 1 ? "this result" : "these results"}</button>
  </form>`;
}
