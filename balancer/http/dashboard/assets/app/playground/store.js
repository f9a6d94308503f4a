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
      const database = await opened();
      database.onclose = () => (this.#database = null);
      const rows = await done(database.transaction(TABLE).objectStore(TABLE).getAll());
      this.#database = database;
      for (const row of rows) if (isRow(row)) this.#rows.set(row.id, row);
    } catch {
      // this page's memory it is
    }
    return this.all();
  }

  /** @returns {Conversation[]} the latest first */
  all() {
    return sorted([...this.#rows.values()]).kept.map((row) => row.conversation);
  }

  /**
   * Keep it, at the cost of the oldest ones.
   * @param {Conversation} conversation
   * @throws {Error} where the browser does not; this page has it nevertheless
   */
  async keep(conversation) {
    const { id, changed } = conversation;
    const row = { id, changed, chars: JSON.stringify(conversation).length, conversation };
    this.#rows.set(id, row);
    const { gone } = sorted([...this.#rows.values()]);
    for (const old of gone) this.#rows.delete(old.id);
    await this.#write((table) => {
      for (const old of gone) table.delete(old.id);
      table.put(row);
    });
  }

  /** @param {string} id */
  async drop(id) {
    this.#rows.delete(id);
    await this.#write((table) => table.delete(id));
  }

  /**
   * A change is kept once it is committed: a full disk shows no earlier.
   * @param {(table: IDBObjectStore) => void} change
   */
  async #write(change) {
    if (!this.#database) return;
    try {
      const transaction = this.#database.transaction(TABLE, "readwrite");
      change(transaction.objectStore(TABLE));
      await committed(transaction);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new Error(`This browser did not keep the conversation: ${reason}`, { cause: error });
    }
  }
}

/** Whether it is what this version of the page writes. @param {any} row @returns {row is Row} */
function isRow(row) {
  const { models, settings, system, turns } = row.conversation ?? {};
  return (
    [row.changed, row.chars].every(Number.isFinite) &&
    [row.id, system].every((text) => typeof text === "string") &&
    Array.isArray(models) &&
    typeof settings === "object" &&
    settings !== null &&
    Array.isArray(turns) &&
    turns.every(isTurn)
  );
}

/** @param {any} turn */
function isTurn(turn) {
  return (
    typeof turn?.text === "string" &&
    Array.isArray(turn.pictures) &&
    Array.isArray(turn.answers) &&
    turn.answers.every((/** @type {any} */ answer) => answer === null || Array.isArray(answer?.steps))
  );
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

/** @param {IDBTransaction} transaction @returns {Promise<void>} */
function committed(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error ?? new Error("it was given up"));
  });
}
