// Pure: server-sent events out of pieces of bytes, wherever these were cut. Only what our streams
// have: the data of each event (HTML standard, section 9.2.6).

/** An event longer than this is nothing that a model says. */
const MOST_CHARS = 4 * 1024 * 1024;

export class EventReader {
  #decoder = new TextDecoder();
  #rest = "";
  #endsInReturn = false;
  /** @type {string[]} */
  #data = [];
  #chars = 0;

  /**
   * The data of the events that are complete with these bytes.
   * @param {Uint8Array} bytes
   * @returns {string[]}
   * @throws {RangeError} when an event has no end
   */
  read(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (this.#endsInReturn && text.startsWith("\n")) text = text.slice(1);
    if (text) this.#endsInReturn = text.endsWith("\r");
    const lines = (this.#rest + text).split(/\r\n|\n|\r/);
    this.#rest = lines.pop() ?? "";
    /** @type {string[]} */
    const events = [];
    for (const line of lines) this.#take(line, events);
    if (this.#chars + this.#rest.length > MOST_CHARS) {
      throw new RangeError("The balancer sent an event without an end.");
    }
    return events;
  }

  /** @param {string} line @param {string[]} events */
  #take(line, events) {
    if (line === "") {
      if (this.#data.length) events.push(this.#data.join("\n"));
      this.#data = [];
      this.#chars = 0;
    } else if (line.startsWith("data:")) {
      const value = line.slice(line[5] === " " ? 6 : 5);
      this.#data.push(value);
      this.#chars += value.length;
    }
  }
}
