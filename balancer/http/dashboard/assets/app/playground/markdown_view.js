// Draws what `markdown.js` found. Every text becomes a text node. The parser comes with the first
// text; until it is there, a text is shown as it was written.

import { signal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { html, pure } from "../core/html.js";
import { Code } from "../parts/code.js";

/** @typedef {import("./markdown.js").Node} Node */
/** @typedef {import("../core/html.js").Children} Children */

const parser = signal(/** @type {typeof import("./markdown.js").nodesOf | null} */ (null));
let isAsked = false;

function askForParser() {
  if (isAsked) return;
  isAsked = true;
  import("./markdown.js").then(
    (module) => {
      parser.value = module.nodesOf;
    },
    () => {
      isAsked = false;
    },
  );
}

/** Of the time, at most so large a part goes into taking apart a text that still grows. */
const SHARE_OF_TIME = 1 / 8;

export const Markdown = pure(
  /** @param {{text: string, isGrowing?: boolean}} properties */
  ({ text, isGrowing = false }) => html`<${Parsed} text=${text} isGrowing=${isGrowing} />`,
);

/** @param {{text: string, isGrowing: boolean}} properties */
function Parsed({ text, isGrowing }) {
  const last = useRef({ text: "", nodes: /** @type {Node[]} */ ([]), tookMs: 0, at: 0 });
  const { current: before } = last;
  const nodesOf = parser.value;
  if (!nodesOf) {
    askForParser();
    return html`<div class="markdown"><p>${text}</p></div>`;
  }
  const begun = performance.now();
  const isTooSoon = isGrowing && (begun - before.at) * SHARE_OF_TIME < before.tookMs;
  if (isTooSoon && text.startsWith(before.text)) {
    return html`<div class="markdown">${drawn(before.nodes)}<p>${text.slice(before.text.length)}</p></div>`;
  }
  if (text !== before.text) {
    const nodes = nodesOf(text);
    const at = performance.now();
    last.current = { text, nodes, tookMs: at - begun, at };
  }
  return html`<div class="markdown">${drawn(last.current.nodes)}</div>`;
}

/** @param {Node[]} [nodes] @returns {Children[]} */
function drawn(nodes = []) {
  return nodes.map((node) => (typeof node === "string" ? node : DRAWERS[node.kind](node)));
}

/** @typedef {Exclude<Node, string>} Element */
/** @typedef {(node: Element) => Children} Drawer */

/** @type {{[kind in Element["kind"]]: Drawer}} */
const DRAWERS = {
  paragraph: (node) => html`<p>${drawn(node.children)}</p>`,
  heading: (node) => html`<p class="markdown-heading" data-level=${node.level} role="heading" aria-level=${Math.min(6, (node.level ?? 1) + 2)}>${drawn(node.children)}</p>`,
  quote: (node) => html`<blockquote>${drawn(node.children)}</blockquote>`,
  strong: (node) => html`<strong>${drawn(node.children)}</strong>`,
  emphasis: (node) => html`<em>${drawn(node.children)}</em>`,
  deleted: (node) => html`<del>${drawn(node.children)}</del>`,
  codespan: (node) => html`<code>${node.text}</code>`,
  code: (node) => html`<${Code} text=${node.text ?? ""} language=${node.language ?? ""} />`,
  break: () => html`<br />`,
  rule: () => html`<hr />`,
  link: (node) =>
    html`<a href=${node.href} target="_blank" rel="noopener noreferrer nofollow">${drawn(node.children)}</a>`,
  picture: (node) =>
    html`<span class="markdown-picture" title=${node.href}>Picture not loaded: ${node.text || node.href}</span>`,
  list: (node) => html`<ul>${drawn(node.children)}</ul>`,
  ordered: (node) => html`<ol start=${node.start}>${drawn(node.children)}</ol>`,
  item: (node) => html`<li>${drawn(node.children)}</li>`,
  task: (node) =>
    html`<li class="markdown-task"><span aria-label=${node.isDone ? "Done:" : "To do:"} role="img">${node.isDone ? "☑" : "☐"}</span> ${drawn(node.children)}</li>`,
  table: ({ children = [] }) =>
    html`<div class="markdown-table" tabindex="0" role="group" aria-label="Table"><table>
      <thead>${drawn(children.slice(0, 1))}</thead>
      <tbody>${drawn(children.slice(1))}</tbody>
    </table></div>`,
  row: (node) => html`<tr>${drawn(node.children)}</tr>`,
  cell: (node) => html`<td class=${node.align === "right" ? "end" : ""}>${drawn(node.children)}</td>`,
  headcell: (node) => html`<th class=${node.align === "right" ? "end" : ""}>${drawn(node.children)}</th>`,
};
