// The conversations that this browser keeps, and nobody else: IndexedDB, or this page's memory where
// the browser has none for us.

/** @typedef {import("./conversation.js").Conversation} Conversation */

export const MOST_CONVERSATIONS = 100;
export const MOST_CHARS = 48 * 1024 * 1024;
const DATABASE = "paddler-playground";
const TABLE = "conversations";

/**
 * Pure: which are kept: the latest, until there are too many or they take too much.
 * @template {{id: string, changed: number, chars: number}} Row
 * @param {Row[]} rows
 * @returns {{kept: Row[], gone: Row[]}} the latest first
 */
export function sorted(rows) {
  const latest = [...rows].sort((a, b) => b.changed - a.changed);
  let chars = 0;
  const end = latest.findIndex((row, index) => {
    chars += row.chars;
    return index >= MOST_CONVERSATIONS || (index > 0 && chars > MOST_CHARS);
  });
  return end < 0 ? { kept: latest, gone: [] } : { kept: latest.slice(0, end), gone: latest.slice(end) };
}

/** @typedef {{id: string, changed: number, chars: number, conversation: Conversation}} Row */

export class ConversationStore {
  /** @type {Map<string, Row>} */
  #rows = new Map();
  /** @type {IDBDatabase | null} */
  #database = null;

  /** What was kept, the latest first. @returns {Promise<Conversation[]>} */
  async load() {
    try {
      this.#database = await opened();
      const rows = await done(this.#table("readonly").getAll());
      for (const row of rows) if (isRow(row)) this.#rows.set(row.id, row);
    } catch {
      this.#database = null;
    }
    return this.all();
  }

  /** @returns {Conversation[]} the latest first */
  all() {
    return sorted([...this.#rows.values()]).kept.map((row) => row.conversation);
  }

  /** Keep it, at the cost of the oldest ones. @param {Conversation} conversation */
  async keep(conversation) {
    const { id, changed } = conversation;
    const row = { id, changed, chars: JSON.stringify(conversation).length, conversation };
    this.#rows.set(id, row);
    const { gone } = sorted([...this.#rows.values()]);
    for (const old of gone) this.#rows.delete(old.id);
    if (!this.#database) return;
    const table = this.#table("readwrite");
    for (const old of gone) table.delete(old.id);
    await done(table.put(row));
  }

  /** @param {string} id */
  async drop(id) {
    this.#rows.delete(id);
    if (this.#database) await done(this.#table("readwrite").delete(id));
  }

  /** @param {IDBTransactionMode} mode */
  #table(mode) {
    const database = /** @type {IDBDatabase} */ (this.#database);
    return database.transaction(TABLE, mode).objectStore(TABLE);
  }
}

/** @param {any} row @returns {row is Row} */
function isRow(row) {
  return typeof row?.id === "string" && Array.isArray(row.conversation?.turns);
}

/** @returns {Promise<IDBDatabase>} */
function opened() {
  const request = indexedDB.open(DATABASE, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(TABLE, { keyPath: "id" });
  return done(request);
}

/** @template T @param {IDBRequest<T>} request @returns {Promise<T>} */
function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
