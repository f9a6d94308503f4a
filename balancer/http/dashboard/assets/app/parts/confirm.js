// A question before something that cannot be taken back easily: the browser's own modal dialog,
// which keeps the focus, closes by Escape, and gives the focus back.

import { useEffect, useId, useRef, useState } from "preact/hooks";
import { html } from "../core/html.js";
import { complain } from "./notes.js";

/**
 * @param {object} properties
 * @param {string} properties.title
 * @param {import("../core/html.js").Children} properties.children what will happen, and any fields
 * @param {string} properties.action the word on the button
 * @param {boolean} [properties.isDanger]
 * @param {(form: FormData) => Promise<void>} properties.onConfirm its failure is shown
 * @param {() => void} properties.onClose
 */
export function Confirm({ title, children, action, isDanger = false, onConfirm, onClose }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const [isBusy, setBusy] = useState(false);
  const isAsked = useRef(false); // a second click may come before the button is drawn as disabled
  const heading = useId();
  useEffect(() => dialog.current?.showModal(), []);
  const submit = async (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    if (isAsked.current) return;
    isAsked.current = true;
    const form = new FormData(/** @type {HTMLFormElement} */ (event.currentTarget));
    setBusy(true);
    await onConfirm(form).catch(complain);
    dialog.current?.close();
  };
  return html`<dialog ref=${dialog} aria-labelledby=${heading} onClose=${onClose}>
    <form onSubmit=${submit}>
      <h2 id=${heading}>${title}</h2>
      ${children}
      <div class="dialog-end">
        <button type="button" onClick=${() => dialog.current?.close()}>Keep as it is</button>
        <button type="submit" class=${isDanger ? "danger" : "primary"} disabled=${isBusy}>
          ${action}
        </button>
      </div>
    </form>
  </dialog>`;
}
