// Asks the management API, which does all that this dashboard can do.

const PATIENCE_MS = 20_000;

/** What the balancer answers when it does not do what it was asked. */
export class Refused extends Error {
  /**
   * @param {string} message what to do about it
   * @param {{status: number, code?: string, details?: any, requestId?: string}} facts
   */
  constructor(message, { status, code = "", details = {}, requestId = "" }) {
    super(message);
    this.status = status;
    this.code = code;
    this.details = details;
    this.requestId = requestId;
  }
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
  const request = { method, signal: AbortSignal.timeout(PATIENCE_MS) };
  if (body !== undefined) {
    request.body = JSON.stringify(body);
    request.headers = { "Content-Type": "application/json" };
  }
  /** @type {Response} */
  let answer;
  try {
    answer = await fetch(path, request);
  } catch {
    throw new Refused("The balancer does not answer. Is it running?", { status: 0 });
  }
  const value = await answer.json().catch(() => null);
  if (answer.ok) return value;
  const error = value?.error ?? {};
  throw new Refused(error.message ?? `The balancer answered ${answer.status}.`, {
    status: answer.status,
    code: error.code,
    details: error.details,
    requestId: error.request_id,
  });
}

/** A name as part of a path. @param {string} name */
export function placed(name) {
  return encodeURIComponent(name);
}
