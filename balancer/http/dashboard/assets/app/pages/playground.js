// A chat with the models that are served, to try them out.

import { useCallback, useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { html } from "../core/html.js";
import { Empty, Heading } from "../parts/bits.js";
import { complain } from "../parts/notes.js";
import { begin, chatModels, chooseModels, chosen, conversation, load, running } from "../playground/chat.js";
import { CodeDialog } from "../playground/code_dialog.js";
import { Composer, namesOf } from "../playground/composer.js";
import { edit, editedIn } from "../playground/draft.js";
import { bodyOf } from "../playground/request.js";
import { Side } from "../playground/side.js";
import { TurnView } from "../playground/turns.js";

/** So near to its end somebody reads along. */
const READS_ALONG_PX = 160;

export function Page() {
  const [code, setCode] = useState(/** @type {{[name: string]: unknown} | null} */ (null));
  const [hasSide, setSide] = useState(() => matchMedia("(min-width: 72rem)").matches);
  const { id, turns, models } = conversation.value;
  const edited = editedIn(id);
  useEffect(() => {
    load().catch(complain);
  }, []);
  useReadingAlong();
  // the same one each time, so that turns that did not change are not drawn again
  const showCode = useCallback((/** @type {number} */ index, /** @type {number} */ column) => {
    try {
      setCode(bodyOf(upTo(index), column));
    } catch (error) {
      complain(error);
    }
  }, []);
  return html`<div class="playground" data-side=${hasSide}>
    <${Heading} title="Playground">
      <${Models} />
      <button type="button" aria-expanded=${hasSide} onClick=${() => setSide(!hasSide)}>Settings</button>
      <button type="button" onClick=${begin} disabled=${!turns.length}>New</button>
    <//>
    <div class="playground-body">
      <div class="chat">
        ${turns.length
          ? html`<ol class="turns" data-columns=${models.length}>
              ${turns.map(
                (turn, index) => html`<${TurnView} key=${turn.id} turn=${turn} index=${index}
                  isLast=${index === turns.length - 1} isEdited=${edited !== null && index >= edited}
                  onEdit=${editTurn} onCode=${showCode} />`,
              )}
            </ol>`
          : html`<${Beginning} />`}
        <${Composer} />
      </div>
      ${hasSide ? html`<${Side} />` : null}
    </div>
    <p class="unseen" role="status">${running.value ? "Answering" : ""}</p>
    ${code ? html`<${CodeDialog} body=${code} onClose=${() => setCode(null)} />` : null}
  </div>`;
}

/** @param {number} index */
function editTurn(index) {
  const { id, turns } = conversation.value;
  const turn = turns[index];
  if (turn) edit(id, index, turn);
}

/** The conversation as it was when a turn was asked. @param {number} index */
function upTo(index) {
  const value = { ...conversation.value, models: chosen.value };
  const turns = value.turns.slice(0, index + 1);
  const last = turns.pop();
  return last ? { ...value, turns: [...turns, { ...last, answers: [] }] } : value;
}

/** Follow an answer while it grows and when it ends, for those who are at its end. */
function useReadingAlong() {
  const page = document.documentElement;
  const isAtEnd = page.scrollHeight - page.scrollTop - page.clientHeight < READS_ALONG_PX;
  const isGrowing = running.value > 0;
  const wasGrowing = useRef(false);
  useLayoutEffect(() => {
    if (isAtEnd && (isGrowing || wasGrowing.current)) page.scrollTop = page.scrollHeight;
    wasGrowing.current = isGrowing;
  });
}

function Beginning() {
  if (!chatModels.value.length) {
    return html`<${Empty} title="No model that chats is served">
      <p>As soon as an agent with one connects, it can be asked here.</p>
    <//>`;
  }
  return html`<div class="beginning">
    <h2>What shall ${namesOf(chosen.value)} answer?</h2>
    <p class="quiet-text">Conversations stay in this browser. Timings stand under each answer.</p>
  </div>`;
}

function Models() {
  const names = chosen.value;
  const choose = (/** @type {number} */ column, /** @type {string} */ name) =>
    chooseModels(names.map((one, at) => (at === column ? name : one)));
  return html`
    ${names.map(
      (name, column) => html`<select key=${column} class="model-choice" aria-label=${column ? "Second model" : "Model"} value=${name}
        onChange=${(/** @type {Event} */ event) => choose(column, /** @type {HTMLSelectElement} */ (event.target).value)}>
        ${[...new Set([name, ...chatModels.value])].map(
          (one) => html`<option key=${one} value=${one} selected=${one === name}>${one || "No model"}</option>`,
        )}
      </select>`,
    )}
    ${names.length === 1
      ? html`<button type="button" onClick=${() => chooseModels([...names, chatModels.value[1] ?? names[0] ?? ""])}>Compare</button>`
      : html`<button type="button" onClick=${() => chooseModels(names.slice(0, 1))}>One model</button>`}
  `;
}
