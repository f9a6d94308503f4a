// A request as code, in a dialog.

import { useEffect, useId, useRef, useState } from "preact/hooks";
import { html } from "../core/html.js";
import { Code } from "../parts/code.js";
import { CHAT_PATH } from "./chat_stream.js";
import { curlOf, javascriptOf, pythonOf } from "./snippets.js";

/** @type {readonly {name: string, make: (body: {[name: string]: unknown}) => string}[]} */
const LANGUAGES = [
  { name: "curl", make: (body) => curlOf(location.origin + CHAT_PATH, body) },
  { name: "Python", make: (body) => pythonOf(location.origin, body) },
  { name: "JavaScript", make: (body) => javascriptOf(location.origin + CHAT_PATH, body) },
];

/** @param {{body: {[name: string]: unknown}, onClose: () => void}} properties */
export function CodeDialog({ body, onClose }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const [chosen, choose] = useState(0);
  const heading = useId();
  useEffect(() => dialog.current?.showModal(), []);
  const language = /** @type {typeof LANGUAGES[number]} */ (LANGUAGES[chosen]);
  return html`<dialog ref=${dialog} class="code-dialog" aria-labelledby=${heading} onClose=${onClose}>
    <h2 id=${heading}>This request as code</h2>
    <div class="segments" role="group" aria-label="Language">
      ${LANGUAGES.map(
        ({ name }, at) => html`<button key=${name} type="button" aria-pressed=${at === chosen} onClick=${() => choose(at)}>${name}</button>`,
      )}
    </div>
    <${Code} text=${language.make(body)} language=${language.name} />
    <div class="dialog-end">
      <button type="button" onClick=${() => dialog.current?.close()}>Close</button>
    </div>
  </dialog>`;
}
