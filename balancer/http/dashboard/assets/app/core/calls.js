// Asks the management API, which does all that this dashboard can do, as whoever has signed in.

import { computed, signal } from "@preact/signals";
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

/**
 * Who has signed in, where the balancer asks for keys. A cookie that no script can read stands for
 * the key; what changes something says the session's token beside it.
 * @typedef {object} Session
 * @property {boolean} is_needed whether keys are configured
 * @property {boolean} is_open
 * @property {string} [key] the name of the key that was used
 * @property {string} [csrf_token]
 */

const SESSION_PATH = "/session";

/** null: the balancer has not said yet. */
export const session = signal(/** @type {Session | null} */ (null));
export const mustSignIn = computed(() => {
  const known = session.value;
  return known !== null && known.is_needed && !known.is_open;
});

/** Ask who has signed in. What is known stays where the balancer does not answer. */
export async function look() {
  await ask("GET", SESSION_PATH).then((said) => (session.value = said), () => undefined);
}

/** @param {string} key @throws {Refused} */
export async function signIn(key) {
  session.value = await ask("POST", SESSION_PATH, { key });
}

/** The page begins anew: nothing that it knew stays in sight. @throws {Refused} */
export async function signOut() {
  await ask("DELETE", SESSION_PATH);
  location.reload();
}

/** Headers of whatever changes something. @returns {Record<string, string>} */
export function changeHeaders() {
  const token = session.value?.csrf_token;
  return token ? { "X-CSRF-Token": token } : {};
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
  if (answer.status === 401 && path !== SESSION_PATH) look();
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
