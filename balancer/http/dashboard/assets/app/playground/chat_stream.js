// Sends a chat completion and hands on what comes back, piece by piece.

import { changeHeaders, errorIn, wordsOf } from "../core/calls.js";
import { EventReader } from "./event_stream.js";

export const CHAT_PATH = "/v1/chat/completions";

/** What went wrong with one answer. */
export class ChatFailed extends Error {}

/**
 * Resolves when the answer has ended. Aborting the signal ends it with the signal's `AbortError`.
 * @param {object} body
 * @param {{signal: AbortSignal, onChunk: (chunk: any) => void, fetch?: typeof fetch}} how
 * @throws {ChatFailed} with what the balancer said
 */
export async function streamChat(body, { signal, onChunk, fetch: send = fetch }) {
  const answer = await sent(body, signal, send);
  if (!answer.ok || !answer.body) {
    throw new ChatFailed(wordsOf(answer.status, await errorIn(answer)));
  }
  const events = new EventReader();
  const reader = answer.body.getReader();
  try {
    for (;;) {
      const { done, value } = await piece(reader, signal);
      if (done) break;
      for (const data of events.read(value)) {
        if (data === "[DONE]") return;
        onChunk(chunkOf(data));
      }
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
  throw new ChatFailed("The answer broke off before its end.");
}

/** @param {object} body @param {AbortSignal} signal @param {typeof fetch} send */
async function sent(body, signal, send) {
  try {
    return await send(CHAT_PATH, {
      method: "POST",
      headers: { ...changeHeaders(), "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal,
    });
  } catch {
    signal.throwIfAborted();
    throw new ChatFailed("The balancer does not answer. Is it running?");
  }
}

/** @param {ReadableStreamDefaultReader<Uint8Array>} reader @param {AbortSignal} signal */
async function piece(reader, signal) {
  try {
    return await reader.read();
  } catch {
    signal.throwIfAborted();
    throw new ChatFailed("The connection to the balancer broke off.");
  }
}

/** @param {string} data */
function chunkOf(data) {
  let chunk;
  try {
    chunk = JSON.parse(data);
  } catch {
    throw new ChatFailed("The balancer sent something that is not JSON.");
  }
  if (chunk?.error) throw new ChatFailed(wordsOf(500, chunk.error));
  return chunk;
}
