// Asks the management API, which does all that this dashboard can do.

import { duration } from "./format.js";
import { parsed } from "./text.js";

const PATIENCE_MS = 20_000;

/**
 * @typedef {object} ErrorObject the API's `error`
 * @property {unknown} [message]
 * @property {string} [request_id]
 * @property {number} [retry_after] seconds
 */

/** What the balancer answers when it does not do what it was asked. */
export class Refused extends Error {
  /** @param {number} status 0: none came @param {ErrorObject} error */
  constructor(status, error) {
    super(wordsOf(status, error));
    this.status = status;
  }
}

let token = "";
let whenUnauthorized = () => {};

/** What is said beside a cookie when something changes; empty: nobody signed in. @param {string} given */
export function useToken(given) {
  token = given;
}

/** Headers of whatever changes something. @returns {Record<string, string>} */
export function changeHeaders() {
  return token ? { "X-CSRF-Token": token } : {};
}

/** Have this called when the balancer asks for a key. @param {() => void} listener */
export function onUnauthorized(listener) {
  whenUnauthorized = listener;
}

/**
 * What the balancer said, when to ask again, and by which id its log has more.
 * @param {number} status
 * @param {ErrorObject} error
 */
export function wordsOf(status, { message, request_id, retry_after }) {
  if (typeof message !== "string" || !message) return `The balancer answered ${status}.`;
  const parts = [message];
  if (retry_after) parts.push(`It may be asked again in ${duration(retry_after)}.`);
  if (status >= 500 && request_id) parts.push(`Request: ${request_id}`);
  if (parts.length > 1 && !/[.?!]$/.test(message)) parts[0] += ".";
  return parts.join(" ");
}

/** What stands as `error` in a refusal's body. @param {Response} answer @returns {Promise<ErrorObject>} */
export async function errorIn(answer) {
  const value = await answer.text().then(parsed).catch(() => null);
  return value?.error ?? {};
}

/**
 * The decoded answer.
 * @param {string} method
 * @param {string} path
 * @param {unknown} [body]
 * @returns {Promise<any>}
 * @throws {Refused} with what the balancer said, or that it did not answer (status 0)
 */
export async function ask(method, path, body) {
  /** @type {RequestInit} */
  const request = { method, signal: AbortSignal.timeout(PATIENCE_MS), headers: changeHeaders() };
  if (body !== undefined) {
    request.body = JSON.stringify(body);
    request.headers = { ...changeHeaders(), "Content-Type": "application/json" };
  }
  /** @type {Response} */
  let answer;
  try {
    answer = await fetch(path, request);
  } catch {
    throw new Refused(0, { message: "The balancer does not answer. Is it running?" });
  }
  if (answer.status === 401 && path !== "/session") whenUnauthorized();
  if (!answer.ok) throw new Refused(answer.status, await errorIn(answer));
  try {
    return parsed(await answer.text());
  } catch {
    throw new Refused(answer.status, { message: "What was answered is not JSON, or broke off." });
  }
}

/** A name as part of a path. @param {string} name */
export function placed(name) {
  return encodeURIComponent(name);
}
