// Where a question is written.

import { useEffect, useRef } from "preact/hooks";
import { html } from "../core/html.js";
import { Icon } from "../parts/icon.js";
import { complain } from "../parts/notes.js";
import { ask, chosen, conversation, running, seePictures, stop } from "./chat.js";
import { addPictures, draft, editedIn, finish, removePicture, write } from "./draft.js";
import { PICTURE_TYPES, pictureOf } from "./pictures.js";
import { MOST_PICTURES } from "./request.js";

export function Composer() {
  const { text, pictures } = draft.value;
  const edited = editedIn(conversation.value.id);
  const area = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  useEffect(() => {
    if (edited !== null) area.current?.focus();
  }, [edited]);
  useEffect(() => fit(area.current), [text]);

  const send = () => {
    const field = /** @type {HTMLTextAreaElement} */ (area.current);
    const typed = field.value; // what was drawn last may be a frame old
    if (!typed.trim() && !pictures.length) return;
    if (!ask(typed, pictures, edited ?? undefined)) return;
    finish();
    field.value = draft.value.text; // a second Enter within this frame sends nothing twice
  };
  const onPaste = (/** @type {ClipboardEvent} */ event) => {
    const files = event.clipboardData?.files ?? [];
    if (!files.length || !seePictures.value) return;
    event.preventDefault();
    add(files);
  };
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Escape" && edited !== null) finish();
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  };
  return html`<form class="composer" aria-label="Your question" onSubmit=${(/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    send();
  }}>
    ${edited === null
      ? null
      : html`<p class="composer-edited">
          Asked anew, this question's answer and all after it go.
          <button type="button" class="quiet word" onClick=${finish}>Leave it</button>
        </p>`}
    <${Pictures} pictures=${pictures} />
    <textarea ref=${area} rows="1" value=${text} aria-label="Message" onPaste=${onPaste} onKeyDown=${onKey}
      placeholder=${chosen.value[0] ? `Ask ${namesOf(chosen.value)}` : "Ask something"}
      onInput=${(/** @type {InputEvent} */ event) =>
        write(/** @type {HTMLTextAreaElement} */ (event.target).value)}></textarea>
    <div class="composer-end">
      <${AddPicture} isFull=${pictures.length >= MOST_PICTURES} onFiles=${add} />
      <span class="composer-hint">Enter sends, Shift + Enter begins a line</span>
      ${running.value
        ? html`<button type="button" class="send" onClick=${stop}><${Icon} name="stop" />Stop</button>`
        : html`<button type="submit" class="primary send" disabled=${!text.trim() && !pictures.length}>Send</button>`}
    </div>
  </form>`;
}

/** Those that go along. @param {{pictures: import("./conversation.js").Picture[]}} properties */
function Pictures({ pictures }) {
  if (!pictures.length) return null;
  return html`<div class="composer-pictures">
    ${pictures.map(
      (picture, at) => html`<figure key=${at}>
        <img src=${picture.url} alt=${picture.name} />
        <button type="button" class="quiet" aria-label=${`Remove ${picture.name}`} onClick=${() => removePicture(at)}>
          <${Icon} name="close" />
        </button>
      </figure>`,
    )}
  </div>`;
}

/** @param {Iterable<File>} files */
async function add(files) {
  const given = [...files];
  const taken = given.slice(0, MOST_PICTURES - draft.value.pictures.length);
  if (taken.length < given.length) complain(`A question has ${MOST_PICTURES} pictures at most.`);
  const read = await Promise.allSettled(taken.map(pictureOf));
  for (const one of read) if (one.status === "rejected") complain(one.reason);
  addPictures(read.flatMap((one) => (one.status === "fulfilled" ? [one.value] : [])));
}

/** @param {{isFull: boolean, onFiles: (files: Iterable<File>) => void}} properties */
function AddPicture({ isFull, onFiles }) {
  const input = useRef(/** @type {HTMLInputElement | null} */ (null));
  const isOff = isFull || !seePictures.value;
  const onChange = () => {
    if (!input.current) return;
    onFiles([...(input.current.files ?? [])]);
    input.current.value = "";
  };
  return html`<button type="button" class="quiet word" disabled=${isOff} onClick=${() => input.current?.click()}
      title=${seePictures.value ? `${MOST_PICTURES} at most` : `${namesOf(chosen.value) || "This model"} cannot be shown pictures`}>
      Add a picture
    </button>
    <input ref=${input} type="file" hidden multiple accept=${PICTURE_TYPES.join(",")} onChange=${onChange} />`;
}

/** @param {string[]} models */
export function namesOf(models) {
  return [...new Set(models)].join(" and ");
}

/** As high as its text. @param {HTMLTextAreaElement | null} area */
function fit(area) {
  if (!area) return;
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + 2}px`;
}
