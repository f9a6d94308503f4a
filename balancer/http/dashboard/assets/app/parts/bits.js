// Small things that many pages show.

import { useEffect, useState } from "preact/hooks";
import { html } from "../core/html.js";
import { complain } from "./notes.js";
import { Icon } from "./icon.js";

/** @typedef {import("../core/html.js").Children} Children */
/** @typedef {"good" | "busy" | "warn" | "bad" | "idle"} Tone */

/** A word with a dot: the word alone says it. @param {{tone: Tone, children: Children}} properties */
export function Badge({ tone, children }) {
  return html`<span class="badge" data-tone=${tone}
    ><span class="dot" aria-hidden="true"></span>${children}</span
  >`;
}

/**
 * The top of a page; `children` stand at its end.
 * @param {{title: string, list?: {address: string, title: string}, about?: Children, children?: Children}} properties
 *   `list`: what the page is one of
 */
export function Heading({ title, list, about, children }) {
  return html`<div class="heading">
    <div>
      <h1>
        ${list
          ? html`<a class="crumb" href=${list.address}>${list.title}</a><span class="crumb-mark" aria-hidden="true">/</span>`
          : null}${title}
      </h1>
      ${about ? html`<p class="about">${about}</p>` : null}
    </div>
    ${children ? html`<div class="heading-end">${children}</div>` : null}
  </div>`;
}

/** Nothing here yet, and what to do next. @param {{title: string, children: Children}} properties */
export function Empty({ title, children }) {
  return html`<div class="empty">
    <h2>${title}</h2>
    ${children}
  </div>`;
}

/** A command to run, with a button that copies it. @param {{text: string}} properties */
export function Command({ text }) {
  return html`<div class="command">
    <code>${text}</code><${Copy} text=${text} what="the command" />
  </div>`;
}

/** @param {{text: string, what: string}} properties */
export function Copy({ text, what }) {
  const [isDone, setDone] = useState(false);
  useEffect(() => {
    if (!isDone) return undefined;
    const timer = setTimeout(() => setDone(false), 1500);
    return () => clearTimeout(timer);
  }, [isDone]);
  const copy = () =>
    navigator.clipboard?.writeText(text).then(() => setDone(true), complain) ??
    complain("This browser lets pages copy only over HTTPS or from localhost.");
  return html`<button
    type="button"
    class="quiet"
    aria-label=${isDone ? "Copied" : `Copy ${what}`}
    title=${`Copy ${what}`}
    onClick=${copy}
  >
    <${Icon} name=${isDone ? "check" : "copy"} />
  </button>`;
}

/**
 * How full something is.
 * @param {{part: number | null, label: string, word?: string, tone?: "main" | "other", children?: Children}} properties
 *   `part` is 0 to 1; `word` is what is seen in place of the label
 */
export function Meter({ part, label, word = label, tone = "main", children }) {
  const filled = Math.min(1, Math.max(0, part ?? 0));
  return html`<div class="meter" data-tone=${tone}>
    <div class="meter-words"><span title=${label}>${word}</span><span class="numeral">${children}</span></div>
    <div
      class="meter-track"
      role="meter"
      aria-label=${label}
      aria-valuemin="0"
      aria-valuemax="100"
      aria-valuenow=${Math.round(filled * 100)}
    >
      <div class="meter-fill" style=${{ transform: `scaleX(${filled})` }}></div>
    </div>
  </div>`;
}

/** Where words are sought in a list. @param {{label: string, value: string, onInput: (text: string) => void}} properties */
export function Search({ label, value, onInput }) {
  return html`<input
    type="search"
    class="search"
    aria-label=${label}
    placeholder=${label}
    autocomplete="off"
    spellcheck=${false}
    value=${value}
    onInput=${(/** @type {InputEvent} */ event) =>
      onInput(/** @type {HTMLInputElement} */ (event.target).value)}
  />`;
}

/** Pairs of a word and what it is. @param {{rows: [string, Children][]}} properties */
export function Facts({ rows }) {
  return html`<dl class="facts">
    ${rows.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
  </dl>`;
}
