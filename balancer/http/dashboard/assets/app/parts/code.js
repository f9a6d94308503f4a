// A block of code with a button that copies it.

import { html } from "../core/html.js";
import { Copy } from "./bits.js";

/** @param {{text: string, language: string}} properties */
export function Code({ text, language }) {
  return html`<div class="code-block">
    <div class="code-head"><span>${language || "text"}</span><${Copy} text=${text} what="the code" /></div>
    <pre tabindex="0" aria-label=${`Code: ${language || "text"}`} role="group"><code>${text}</code></pre>
  </div>`;
}
