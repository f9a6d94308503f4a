// Draws what `markdown.js` found. Every text becomes a text node.

import { useMemo } from "preact/hooks";
import { html, pure } from "../core/html.js";
import { Copy } from "../parts/bits.js";
import { nodesOf } from "./markdown.js";

/** @typedef {import("./markdown.js").Node} Node */
/** @typedef {import("../core/html.js").Children} Children */

export const Markdown = pure(
  /** @param {{text: string}} properties */ ({ text }) => html`<${Parsed} text=${text} />`,
);

/** @param {{text: string}} properties */
function Parsed({ text }) {
  const nodes = useMemo(() => nodesOf(text), [text]);
  return html`<div class="markdown">${drawn(nodes)}</div>`;
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

/** A block of code with a button that copies it. @param {{text: string, language: string}} properties */
export function Code({ text, language }) {
  return html`<div class="code-block">
    <div class="code-head"><span>${language || "text"}</span><${Copy} text=${text} what="the code" /></div>
    <pre tabindex="0" aria-label=${`Code: ${language || "text"}`} role="group"><code>${text}</code></pre>
  </div>`;
}
