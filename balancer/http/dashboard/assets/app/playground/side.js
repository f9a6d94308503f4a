// What stands beside a conversation: what is sent along, and the conversations that are kept.

import { html } from "../core/html.js";
import { Icon } from "../parts/icon.js";
import { change, changeSetting, conversation, drop, kept, show } from "./chat.js";
import { titleOf } from "./conversation.js";
import { asJson, asMarkdown } from "./export.js";
import { EFFORTS, FIELDS, FORMS } from "./request.js";

/** @typedef {import("./request.js").Field} Field */

const FORM_NAMES = /** @type {{[form: string]: string}} */ ({
  "": "Text",
  json_object: "JSON",
  json_schema: "JSON after a schema",
});
const TOOLS_EXAMPLE = `[{
  "name": "weather",
  "description": "The weather in a city",
  "parameters": {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"]
  }
}]`;
const SCHEMA_EXAMPLE = `{
  "type": "object",
  "properties": {"answer": {"type": "string"}},
  "required": ["answer"]
}`;

export function Side() {
  const { system, settings } = conversation.value;
  const form = settings.form ?? "";
  return html`<aside class="side" aria-label="Conversations, and what is sent along">
    <${Kept} />
    <${Lines} label="System prompt" value=${system} rows=${3} placeholder="How the model shall behave"
      onInput=${(/** @type {string} */ text) => change({ system: text })} />
    <fieldset class="side-fields">
      <legend>Sampling</legend>
      ${FIELDS.filter((field) => field.kind !== "lines").map(
        (field) => html`<${Amount} key=${field.name} field=${field} value=${settings[field.name] ?? ""} />`,
      )}
    </fieldset>
    <${Lines} label="Stop at" value=${settings.stop ?? ""} rows=${1} placeholder="One a line, four at most" isCode
      onInput=${(/** @type {string} */ text) => changeSetting("stop", text)} />
    <${Choice} label="Reasoning" name="reasoning_effort" options=${EFFORTS.map((one) => [one, one || "As the model does"])} />
    <${Choice} label="Form of the answer" name="form" options=${FORMS.map((one) => [one, FORM_NAMES[one]])} />
    ${form === "json_schema"
      ? html`<${Lines} label="JSON schema" value=${settings.schema ?? ""} rows=${8} placeholder=${SCHEMA_EXAMPLE} isCode
          onInput=${(/** @type {string} */ text) => changeSetting("schema", text)} />`
      : null}
    <${Lines} label="Tools" value=${settings.tools ?? ""} rows=${settings.tools ? 10 : 3} placeholder=${TOOLS_EXAMPLE} isCode
      onInput=${(/** @type {string} */ text) => changeSetting("tools", text)} />
    ${settings.tools?.trim()
      ? html`<${Choice} label="Use of tools" name="tool_choice"
          options=${[["", "As the model sees fit"], ["required", "Must call one"], ["none", "Must not"]]} />`
      : null}
    <${Export} />
  </aside>`;
}

/** @param {{label: string, value: string, rows: number, placeholder: string, isCode?: boolean, onInput: (text: string) => void}} properties */
function Lines({ label, value, rows, placeholder, isCode = false, onInput }) {
  return html`<label class="side-lines">
    <span>${label}</span>
    <textarea class=${isCode ? "mono" : ""} rows=${rows} value=${value} placeholder=${placeholder}
      spellcheck=${!isCode} onInput=${(/** @type {InputEvent} */ event) =>
        onInput(/** @type {HTMLTextAreaElement} */ (event.target).value)}></textarea>
  </label>`;
}

/**
 * A field of text: one of numbers gives nothing where something else was typed, and keeps it from
 * being refused.
 * @param {{field: Field, value: string}} properties
 */
function Amount({ field, value }) {
  return html`<label>
    <span>${field.label}</span>
    <input inputmode=${field.least === undefined || field.least < 0 ? "text" : "decimal"} autocomplete="off"
      value=${value} placeholder=${field.hint} title=${field.hint}
      onInput=${(/** @type {InputEvent} */ event) =>
        changeSetting(field.name, /** @type {HTMLInputElement} */ (event.target).value)} />
  </label>`;
}

/** @param {{label: string, name: string, options: [string, string][]}} properties */
function Choice({ label, name, options }) {
  const value = conversation.value.settings[name] ?? "";
  return html`<label class="side-choice">
    <span>${label}</span>
    <select value=${value} onChange=${(/** @type {Event} */ event) =>
      changeSetting(name, /** @type {HTMLSelectElement} */ (event.target).value)}>
      ${options.map(([one, word]) => html`<option key=${one} value=${one} selected=${one === value}>${word}</option>`)}
    </select>
  </label>`;
}

function Kept() {
  return html`<section class="kept">
    <h2>Conversations</h2>
    ${kept.value.length ? null : html`<p class="quiet-text">None yet. They are kept in this browser alone.</p>`}
    <ul>
      ${kept.value.map(
        (one) => html`<li key=${one.id}>
          <button type="button" class="kept-title" aria-current=${one.id === conversation.value.id ? "true" : undefined}
            title=${titleOf(one)} onClick=${() => show(one)}>${titleOf(one)}</button>
          <button type="button" class="quiet" aria-label=${`Delete: ${titleOf(one)}`} onClick=${() => drop(one.id)}>
            <${Icon} name="close" />
          </button>
        </li>`,
      )}
    </ul>
  </section>`;
}

function Export() {
  const { value } = conversation;
  if (!value.turns.length) return null;
  return html`<section class="export">
    <h2>Export</h2>
    <button type="button" onClick=${() => download(asMarkdown(value), "md")}>Markdown</button>
    <button type="button" onClick=${() => download(asJson(value), "json")}>JSON</button>
  </section>`;
}

/** @param {string} text @param {string} ending */
function download(text, ending) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  const name = titleOf(conversation.value).replace(/[^\w -]+/g, "").trim();
  link.download = `${name || "conversation"}.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
