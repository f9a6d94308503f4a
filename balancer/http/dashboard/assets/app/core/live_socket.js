// One live socket: connects, takes what it is told in order, and connects again when it is lost.
//
// A message whose number is not the next one means that something was missed: the socket is taken for
// lost, and the one after it begins with everything. Attempts are spread by chance, so that the pages of
// a whole team do not come back in the same instant.

import { signal } from "@preact/signals";
import { parsed } from "./text.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
/** The server breaks its silence every 30 s. */
const LONGEST_SILENCE_MS = 75_000;

/** @typedef {"connecting" | "live" | "waiting"} LinkState */
/**
 * @typedef {object} Message
 * @property {string} type
 * @property {number} [seq]
 */

export class LiveSocket {
  /**
   * @param {string} path
   * @param {(message: any) => void} onMessage hears snapshots and everything that follows, in order
   */
  constructor(path, onMessage) {
    this.path = path;
    this.onMessage = onMessage;
    this.state = signal(/** @type {LinkState} */ ("connecting"));
    /** Whether what was heard last may be old: from a loss until there is a snapshot again. */
    this.isLost = signal(false);
    /** When the next attempt is, in milliseconds of `Date.now`. */
    this.retryAt = signal(0);
    /** @type {WebSocket | null} */
    this.socket = null;
    /** The number of the last message; null: any may be next. @type {number | null} */
    this.sequence = null;
    this.attempts = 0;
    this.timer = 0;
    this.silence = 0;
  }

  open() {
    this.#end();
    this.state.value = "connecting";
    const url = new URL(this.path, location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
    this.socket = socket;
    this.sequence = null;
    this.#listen();
    socket.onmessage = (event) => this.#hear(String(event.data));
    socket.onclose = () => {
      if (this.socket === socket) this.#lost();
    };
  }

  /** End it, and stay so until `open`. */
  close() {
    this.#end();
    this.state.value = "waiting";
  }

  /** Do not wait any longer. */
  retryNow() {
    if (this.state.value === "waiting") this.open();
  }

  #end() {
    clearTimeout(this.timer);
    clearTimeout(this.silence);
    const socket = this.socket;
    this.socket = null;
    if (socket) {
      socket.onmessage = socket.onclose = null;
      socket.close();
    }
  }

  #lost() {
    this.#end();
    const longest = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.attempts);
    const wait = longest * (0.5 + Math.random() / 2);
    this.attempts += 1;
    this.isLost.value = true;
    this.retryAt.value = Date.now() + wait;
    this.state.value = "waiting";
    this.timer = setTimeout(() => this.open(), wait);
  }

  #listen() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.#lost(), LONGEST_SILENCE_MS);
  }

  /** @param {string} text */
  #hear(text) {
    this.#listen();
    const message = messageOf(text);
    if (message === null || this.#isGap(message)) {
      this.#lost();
      return;
    }
    if (message.type === "ping") {
      this.socket?.send('{"type":"pong"}');
      return;
    }
    if (message.type === "snapshot") {
      this.attempts = 0;
      this.isLost.value = false;
      this.state.value = "live";
    }
    // lines that the server left out, and said so, leave a gap in its numbers
    if (message.type === "missed") this.sequence = null;
    else this.sequence = message.seq ?? this.sequence;
    this.onMessage(message);
  }

  /** Whether there was a message between the last one and this. @param {Message} message */
  #isGap({ type, seq }) {
    if (type === "snapshot" || seq === undefined || this.sequence === null) return false;
    return seq !== this.sequence + 1;
  }
}

/** @param {string} text @returns {Message | null} */
function messageOf(text) {
  try {
    return parsed(text);
  } catch {
    return null;
  }
}
