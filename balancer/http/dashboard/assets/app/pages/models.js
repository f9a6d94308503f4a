// The models that are served: by whom, what their files say, and what their chat template makes.

import { useEffect, useState } from "preact/hooks";
import { ask, placed } from "../core/calls.js";
import { bytes, compact, count, counted } from "../core/format.js";
import { html } from "../core/html.js";
import { models, ownModels } from "../core/live.js";
import { address } from "../core/router.js";
import { Badge, Empty, Facts, Heading, Meter } from "../parts/bits.js";
import { Code } from "../parts/code.js";
import { usePart } from "../parts/long_list.js";
import { NoAgent } from "../parts/no_agent.js";

/** @typedef {import("../parts/bits.js").Tone} Tone */
/** @typedef {import("../core/html.js").Children} Children */
/**
 * @typedef {object} Model
 * @property {string} id
 * @property {string} status
 * @property {string} [parent]
 * @property {number} context_window
 * @property {{[name: string]: boolean}} capabilities
 * @property {string} description
 * @property {string} version
 * @property {string[]} aliases
 * @property {string} architecture
 * @property {string | null} quantization
 * @property {number | null} parameters
 * @property {number | null} size_bytes
 * @property {number | null} trained_context
 * @property {number | null} embedding_dimensions
 * @property {string[]} adapters
 * @property {string[]} agents
 * @property {number} slots_total
 * @property {number} slots_used
 */

const LIST = { address: "#/models", title: "Models" };

/** @type {{[status: string]: {tone: Tone, word: string}}} */
const STATES = {
  healthy: { tone: "good", word: "Served" },
  degraded: { tone: "warn", word: "Served with issues" },
  unhealthy: { tone: "bad", word: "Not served" },
};

/** @param {{rest: string[]}} properties */
export function Page({ rest }) {
  const name = rest[0];
  if (name === undefined) return html`<${List} rows=${ownModels.value.map(modelOf)} />`;
  const row = models.value.find(([one]) => one === name);
  return row ? html`<${Details} key=${name} model=${modelOf(row)} />` : html`<${Gone} name=${name} />`;
}

/** @param {[string, unknown]} row */
function modelOf([name, row]) {
  return /** @type {Model} */ ({ .../** @type {object} */ (row), id: name });
}

/** @param {{rows: Model[]}} properties */
function List({ rows }) {
  const part = usePart(rows.length);
  if (!rows.length) return html`<${Heading} title="Models" /><${NoAgent} />`;
  return html`
    <${Heading} title="Models" about=${counted(rows.length, "model")} />
    <ul class="models">
      ${rows.slice(0, part.end).map((model) => html`<${Card} key=${model.id} model=${model} />`)}
    </ul>
    ${part.more}
  `;
}

/** @param {{model: Model}} properties */
function Card({ model }) {
  return html`<li class="model panel">
    <div class="model-head">
      <h2><a href=${address("models", model.id)}>${model.id}</a></h2>
      <${State} status=${model.status} />
    </div>
    <p class="model-description">${model.description}</p>
    ${model.slots_total
      ? html`<${Meter} part=${model.slots_used / model.slots_total} label=${`Slots of ${model.id}`} word="Slots">
          ${count(model.slots_used)} of ${count(model.slots_total)}
        <//>`
      : html`<p class="quiet-text">Embeddings of ${counted(model.embedding_dimensions ?? 0, "number")}, no slots.</p>`}
    <dl class="model-lines">
      <div><dt>Model</dt><dd>${factsLine(model) || "–"}</dd></div>
      <div><dt>Context</dt><dd>${count(model.context_window)} tokens</dd></div>
      <div><dt>Agents</dt><dd><${Agents} names=${model.agents} /></dd></div>
      ${model.aliases.length ? html`<div><dt>Also called</dt><dd>${model.aliases.join(", ")}</dd></div>` : null}
    </dl>
  </li>`;
}

/** @param {Model} model */
function factsLine(model) {
  const parameters = model.parameters ? `${compact(model.parameters)} parameters` : null;
  const parts = [model.architecture, parameters, model.quantization];
  return parts.filter((part) => part).join(" · ");
}

/** @param {{status: string}} properties */
function State({ status }) {
  const { tone, word } = STATES[status] ?? { tone: "idle", word: status };
  return html`<${Badge} tone=${tone}>${word}<//>`;
}

/** @param {{names: string[]}} properties */
function Agents({ names }) {
  const most = 12;
  const links = names
    .slice(0, most)
    .map((name) => html`<a key=${name} href=${address("agents", name)}>${name}</a>`);
  return html`<span class="names">${links}${names.length > most ? `and ${names.length - most} more` : null}</span>`;
}

/** @param {{name: string}} properties */
function Gone({ name }) {
  return html`<${Heading} title=${name} list=${LIST} />
    <${Empty} title="Nobody serves this model">
      <p>It is shown again when an agent brings it.</p>
    <//>`;
}

/** @param {{model: Model}} properties */
function Details({ model }) {
  const [more, setMore] = useState(/** @type {{[name: string]: any} | null} */ (null));
  const [failure, setFailure] = useState("");
  useEffect(() => {
    ask("GET", `/models/${placed(model.id)}/metadata`).then(setMore, (error) => setFailure(error.message));
  }, [model.id]);
  const abilities = Object.entries(model.capabilities).filter(([, has]) => has).map(([name]) => name);
  /** @type {[string, Children][]} */
  const rows = [
    [model.agents.length === 1 ? "Agent" : "Agents", html`<${Agents} names=${model.agents} />`],
    ["Slots", model.slots_total ? `${count(model.slots_used)} of ${count(model.slots_total)} in use` : null],
    ["Abilities", abilities.join(", ") || "none"],
    ["Architecture", model.architecture || null],
    ["Parameters", model.parameters && compact(model.parameters)],
    ["Quantisation", model.quantization],
    ["Size", model.size_bytes && bytes(model.size_bytes)],
    ["Context", `${count(model.context_window)} tokens`],
    ["Trained context", model.trained_context && `${count(model.trained_context)} tokens`],
    ["Dimensions", model.embedding_dimensions && count(model.embedding_dimensions)],
    ["Other names", model.aliases.join(", ") || null],
    ["Adapters", model.adapters.join(", ") || null],
    ["Version", model.version || null],
    ["Reasoning", more?.reasoning_format],
    ["Tool calls", more?.tool_format],
    ["First token", more?.bos_token && html`<code>${more.bos_token}</code>`],
    ["End token", more?.eos_token && html`<code>${more.eos_token}</code>`],
  ];
  return html`
    <${Heading} title=${model.id} list=${LIST} about=${model.description}><${State} status=${model.status} /><//>
    <div class="model-facts panel"><${Facts} rows=${rows.filter(([, value]) => value)} /></div>
    ${failure || more?.unknown ? html`<p class="failure">Its template is not known: ${failure || more?.unknown}</p>` : null}
    ${more?.chat_template ? html`<${Template} model=${model} text=${more.chat_template} />` : null}
  `;
}

/** @param {{model: Model, text: string}} properties */
function Template({ model, text }) {
  return html`
    <section class="section">
      <h2>What a conversation becomes</h2>
      <${Preview} name=${model.id} />
    </section>
    <section class="section">
      <h2>Chat template</h2>
      <div class="template"><${Code} text=${text} language="jinja" /></div>
    </section>
  `;
}

const EXAMPLE = [
  { role: "system", content: "You are helpful." },
  { role: "user", content: "Hello!" },
  { role: "assistant", content: "Hello! What can I do for you?" },
  { role: "user", content: "Tell me a story." },
];

/** The prompt that the template makes of messages. @param {{name: string}} properties */
function Preview({ name }) {
  const [typed, setTyped] = useState(JSON.stringify(EXAMPLE, null, 2));
  const [prompt, setPrompt] = useState("");
  const [failure, setFailure] = useState("");
  useEffect(() => {
    let isOld = false;
    const timer = setTimeout(async () => {
      const made = await rendered(name, typed).catch((error) => ({ failure: String(error.message) }));
      if (isOld) return;
      setFailure("failure" in made ? made.failure : "");
      if ("prompt" in made) setPrompt(made.prompt);
    }, 300);
    return () => {
      isOld = true;
      clearTimeout(timer);
    };
  }, [name, typed]);
  return html`<div class="preview">
    <label class="preview-messages code-block">
      <span class="code-head">Messages</span>
      <textarea class="mono" spellcheck=${false} rows="20" value=${typed}
        onInput=${(/** @type {InputEvent} */ event) => setTyped(/** @type {HTMLTextAreaElement} */ (event.target).value)}></textarea>
    </label>
    <div class="preview-prompt">
      ${failure ? html`<p class="failure" role="status">${failure}</p>` : null}
      <${Code} text=${prompt} language="Prompt" />
    </div>
  </div>`;
}

/** @param {string} model @param {string} typed @returns {Promise<{prompt: string}>} */
async function rendered(model, typed) {
  let messages;
  try {
    messages = JSON.parse(typed);
  } catch (error) {
    throw new Error(`These messages are not JSON: ${error instanceof Error ? error.message : error}`, { cause: error });
  }
  return ask("POST", "/apply-template", { model, messages });
}
