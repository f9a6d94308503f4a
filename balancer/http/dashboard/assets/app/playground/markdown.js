// Pure: what a model wrote, as a tree of a few kinds of nodes. Nothing of it becomes markup: HTML
// stays the text it is, pictures are named and not loaded, links lead only to web and mail.

import { Lexer } from "../../vendor/marked@18.2.1/marked.esm.js";

/**
 * @typedef {string | {
 *   kind: Kind, children?: Node[], text?: string, href?: string, language?: string,
 *   level?: number, start?: number, isDone?: boolean, align?: string | null,
 * }} Node
 */
/**
 * @typedef {"paragraph" | "heading" | "code" | "codespan" | "quote" | "list" | "ordered" | "item"
 *   | "task" | "strong" | "emphasis" | "deleted" | "link" | "picture" | "break" | "rule" | "table"
 *   | "row" | "cell" | "headcell"} Kind
 */

/** Longer texts are shown as they are. */
const MOST_CHARS = 100_000;
/** Looking for pairs of delimiters takes the square of their number: in one block, and in all. */
const MOST_WORK_OF_BLOCK = 600 ** 2;
const MOST_WORK = 10 * MOST_WORK_OF_BLOCK;
const MOST_DEPTH = 32;
const SAFE_SCHEMES = new Set(["http:", "https:", "mailto:"]);
const OPTIONS = { gfm: true, breaks: true, silent: true };

/** @param {string} text @returns {Node[]} */
export function nodesOf(text) {
  if (text.length > MOST_CHARS) return plain(text);
  try {
    return blocks(tokensOf(text), 0);
  } catch {
    return plain(text); // nested past what the parser can take
  }
}

/** @param {string} text @returns {Node[]} */
function plain(text) {
  return [{ kind: "paragraph", children: [text] }];
}

/** @param {string} text @returns {any[]} */
function tokensOf(text) {
  const lexer = new Lexer(OPTIONS);
  /** @type {any[]} */
  const tokens = [];
  lexer.blockTokens(text.replace(/\r\n|\r/g, "\n"), tokens);
  let work = 0;
  for (const { src, tokens: found } of lexer.inlineQueue) {
    const workOfBlock = delimitersIn(src) ** 2;
    work += workOfBlock;
    if (workOfBlock > MOST_WORK_OF_BLOCK || work > MOST_WORK) found.push({ type: "escape", text: src });
    else lexer.inlineTokens(src, found);
  }
  return tokens;
}

/** @param {string} text */
function delimitersIn(text) {
  return text.match(/[*_~[`<]/g)?.length ?? 0;
}

/** @param {any[]} tokens @param {number} depth @returns {Node[]} */
function blocks(tokens, depth) {
  return tokens.flatMap((token) => node(token, depth));
}

/** @param {any} token @param {number} depth @returns {Node[]} */
function node(token, depth) {
  if (depth > MOST_DEPTH) return [String(token.raw ?? "")];
  const make = Object.hasOwn(MAKERS, token.type) ? MAKERS[token.type] : undefined;
  return make ? [make(token, depth + 1)].flat() : [String(token.raw ?? "")];
}

/** @param {Kind} kind @returns {(token: any, depth: number) => Node} */
function holding(kind) {
  return (token, depth) => ({ kind, children: blocks(token.tokens ?? [], depth) });
}

/** @type {{[type: string]: (token: any, depth: number) => Node | Node[]}} */
const MAKERS = {
  space: () => [],
  def: () => [],
  checkbox: () => [],
  paragraph: holding("paragraph"),
  blockquote: holding("quote"),
  strong: holding("strong"),
  em: holding("emphasis"),
  del: holding("deleted"),
  heading: (token, depth) => ({ ...holdingOf("heading", token, depth), level: token.depth }),
  code: (token) => ({ kind: "code", text: token.text, language: languageOf(token.lang) }),
  codespan: (token) => ({ kind: "codespan", text: token.text }),
  hr: () => ({ kind: "rule" }),
  br: () => ({ kind: "break" }),
  escape: (token) => token.text,
  html: (token) => token.text,
  text: (token, depth) => (token.tokens ? blocks(token.tokens, depth) : decoded(token.text)),
  image: (token) => ({ kind: "picture", text: token.text, href: token.href }),
  link: linkOf,
  list: listOf,
  table: tableOf,
};

/** @param {Kind} kind @param {any} token @param {number} depth */
function holdingOf(kind, token, depth) {
  return { kind, children: blocks(token.tokens ?? [], depth) };
}

/** @param {string | undefined} words what stands behind the fence */
function languageOf(words) {
  return (words ?? "").trim().split(/\s/)[0]?.slice(0, 32) ?? "";
}

/** @param {any} token @param {number} depth @returns {Node | Node[]} */
function linkOf(token, depth) {
  const children = blocks(token.tokens ?? [], depth);
  const href = safeAddress(decoded(String(token.href)));
  return href ? { kind: "link", href, children } : [...children, ` (${token.href})`];
}

/** The address if it leads to web or mail, else "". @param {string} address */
export function safeAddress(address) {
  try {
    const url = new URL(address);
    return SAFE_SCHEMES.has(url.protocol) ? url.href : "";
  } catch {
    return ""; // a relative one leads nowhere that a model could know
  }
}

/** @param {any} token @param {number} depth @returns {Node} */
function listOf(token, depth) {
  const children = token.items.map((/** @type {any} */ item) => ({
    kind: item.task ? "task" : "item",
    isDone: Boolean(item.checked),
    children: blocks(item.tokens, depth),
  }));
  if (!token.ordered) return { kind: "list", children };
  return { kind: "ordered", start: Number(token.start) || 0, children };
}

/** @param {any} token @param {number} depth @returns {Node} */
function tableOf(token, depth) {
  const row = (/** @type {any[]} */ cells, /** @type {Kind} */ kind) => ({
    kind: /** @type {const} */ ("row"),
    children: cells.map((cell) => ({ ...holdingOf(kind, cell, depth), align: cell.align })),
  });
  const rows = token.rows.map((/** @type {any[]} */ cells) => row(cells, "cell"));
  return { kind: "table", children: [row(token.header, "headcell"), ...rows] };
}

/** @type {{[name: string]: string}} */
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };

/** The common character references. @param {string} text */
function decoded(text) {
  return text.replace(/&(?:#(\d{1,7})|#[xX]([\da-fA-F]{1,6})|(\w{2,5}));/g, (all, ten, hex, name) => {
    if (name) return Object.hasOwn(ENTITIES, name) ? /** @type {string} */ (ENTITIES[name]) : all;
    const code = ten ? Number(ten) : Number.parseInt(hex, 16);
    return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : all;
  });
}
