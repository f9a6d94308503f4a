// The log as it is written.

import { signal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { clock } from "../core/format.js";
import { soon } from "../core/frames.js";
import { html, pure } from "../core/html.js";
import { now } from "../core/live.js";
import { LiveSocket } from "../core/live_socket.js";
import { go, place } from "../core/router.js";
import { windowOf } from "../core/window.js";
import { LogLines, factsOf, holding, textOf } from "../logs/lines.js";
import { Copy, Facts, Heading, Search } from "../parts/bits.js";
import { Icon } from "../parts/icon.js";

/** @typedef {import("../logs/lines.js").NumberedLine} NumberedLine */

const narrow = matchMedia("(max-width: 48rem)");
const rowPx = signal(rowHeight());
narrow.addEventListener("change", () => {
  rowPx.value = rowHeight();
});

/** As the style sheet has it. */
function rowHeight() {
  return narrow.matches ? 72 : 28;
}

const TYPING_MS = 300;
const LEVELS = ["debug", "info", "warning", "error"];

const log = new LogLines();
/** Grows when `log` has other lines. */
const version = signal(0);

/** Address: `#/logs?level=&component=&request_id=`. */
export function Page() {
  const { query } = place.value;
  const level = LEVELS.includes(query.get("level") ?? "") ? String(query.get("level")) : "info";
  const [component, setComponent] = useState(query.get("component") ?? "");
  const [requestId, setRequestId] = useState(query.get("request_id") ?? "");
  const [word, setWord] = useState("");
  const [shownLevel, setLevel] = useState(level);
  const [frozen, setFrozen] = useState(/** @type {NumberedLine[] | null} */ (null));
  const [picked, pick] = useState(/** @type {NumberedLine | null} */ (null));
  const isLive = useTail(shownLevel, component.trim(), requestId.trim());
  useEffect(() => {
    setComponent(query.get("component") ?? "");
    setRequestId(query.get("request_id") ?? "");
  }, [query]);

  version.value;
  const lines = holding(frozen ?? log.lines, word);
  const isPaused = frozen !== null;
  return html`<div class="logs">
    <${Heading} title="Logs" about=${isPaused ? "Paused: what is new waits." : isLive ? "As they are written." : "Connecting…"}>
      <button type="button" aria-pressed=${isPaused} onClick=${() => setFrozen(isPaused ? null : log.lines)}>
        ${isPaused ? "Go on" : "Pause"}
      </button>
      <button type="button" onClick=${() => {
        log.clear();
        setFrozen(null);
        version.value += 1;
      }}>Clear</button>
    <//>
    <div class="logs-filters">
      <div class="segments" role="group" aria-label="Least level">
        ${LEVELS.map((one) => html`<button key=${one} type="button" aria-pressed=${one === shownLevel} onClick=${() => setLevel(one)}>${one}</button>`)}
      </div>
      <${Search} label="Component" value=${component} onInput=${setComponent} />
      <${Search} label="Request id" value=${requestId} onInput=${setRequestId} />
      <${Search} label="Words in these lines" value=${word} onInput=${setWord} />
    </div>
    <${Lines} lines=${lines} isPaused=${isPaused} picked=${picked} onPick=${pick} />
    <p class="logs-count">${lines.length} of the latest lines. No prompt, answer or credential is ever logged.</p>
    ${picked ? html`<${Picked} line=${picked} onClose=${() => pick(null)} onRequest=${(/** @type {string} */ id) => setRequestId(id)} />` : null}
  </div>`;
}

/**
 * Read along; whether it is connected.
 * @param {string} level
 * @param {string} component
 * @param {string} requestId
 */
function useTail(level, component, requestId) {
  const [socket, setSocket] = useState(/** @type {LiveSocket | null} */ (null));
  useEffect(() => {
    const query = new URLSearchParams({ level, component, request_id: requestId });
    for (const [name, value] of [...query]) if (!value) query.delete(name);
    const opened = new LiveSocket(`/ws/logs?${query}`, hear);
    const timer = setTimeout(() => {
      opened.open();
      setSocket(opened);
    }, TYPING_MS);
    return () => {
      clearTimeout(timer);
      opened.close();
    };
  }, [level, component, requestId]);
  return socket?.state.value === "live";
}

let isWaiting = false;

/** @param {any} message */
function hear(message) {
  if (message.type === "snapshot") {
    log.clear();
    log.add(message.data.lines);
  } else if (message.type === "lines") log.add(message.lines);
  else if (message.type === "missed") log.miss(message.count, now.peek());
  if (isWaiting) return;
  isWaiting = true;
  soon(() => {
    isWaiting = false;
    version.value += 1;
  });
}

/**
 * Only the rows near what is seen are there. It stays at its end until somebody scrolls up.
 * @param {{lines: NumberedLine[], isPaused: boolean, picked: NumberedLine | null, onPick: (line: NumberedLine) => void}} properties
 */
function Lines({ lines, isPaused, picked, onPick }) {
  const row = rowPx.value;
  const box = useRef(/** @type {HTMLDivElement | null} */ (null));
  const isAtEnd = useRef(true);
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(560);
  useEffect(() => {
    const seen = /** @type {HTMLDivElement} */ (box.current);
    const observer = new ResizeObserver(() => setHeight(seen.clientHeight));
    observer.observe(seen);
    return () => observer.disconnect();
  }, []);
  useLayoutEffect(() => {
    if (box.current && isAtEnd.current && !isPaused) box.current.scrollTop = box.current.scrollHeight;
  }, [lines, height, isPaused]);
  const onScroll = () => {
    const seen = /** @type {HTMLDivElement} */ (box.current);
    isAtEnd.current = seen.scrollHeight - seen.scrollTop - seen.clientHeight < row * 2;
    setTop(seen.scrollTop);
  };
  const { first, end } = windowOf(lines.length, top / row, height / row);
  return html`<div class="log-lines panel" ref=${box} onScroll=${onScroll} tabindex="0" role="region" aria-label="Lines of the log">
    ${lines.length ? null : html`<p class="log-none">No lines yet of this kind.</p>`}
    <ul style=${{ height: `${lines.length * row}px` }}>
      ${lines.slice(first, end).map(
        (line, at) => html`<${Line} key=${line.number} line=${line} top=${(first + at) * row}
          isPicked=${picked?.number === line.number} onPick=${onPick} />`,
      )}
    </ul>
  </div>`;
}

const Line = pure(
  /** @param {{line: NumberedLine, top: number, isPicked: boolean, onPick: (line: NumberedLine) => void}} properties */
  ({ line, top, isPicked, onPick }) => html`<li style=${{ transform: `translateY(${top}px)` }}>
    <button type="button" class="log-line" data-level=${line.level} aria-expanded=${isPicked} title=${textOf(line)} onClick=${() => onPick(line)}>
      <time>${clock(line.at)}</time>
      <span class="log-level">${line.level}</span>
      <span class="log-component">${line.component}</span>
      <span class="log-event">${line.event}<span class="log-facts">${factsOf(line)}</span></span>
    </button>
  </li>`,
);

/** @param {{line: NumberedLine, onClose: () => void, onRequest: (id: string) => void}} properties */
function Picked({ line, onClose, onRequest }) {
  const id = line.request_id;
  /** @type {[string, unknown][]} */
  const facts = Object.entries(line.facts)
    .filter(([, value]) => value !== null)
    .map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]);
  return html`<section class="log-picked panel" aria-label="The line that was picked">
    <header>
      <h2>${line.event}</h2>
      <${Copy} text=${textOf(line)} what="the line" />
      <button type="button" class="quiet" aria-label="Close" onClick=${onClose}><${Icon} name="close" /></button>
    </header>
    <${Facts} rows=${[
      ["Time", new Date(line.at * 1000).toISOString()],
      ["Level", line.level],
      ["Component", line.component],
      ...facts,
    ]} />
    ${id
      ? html`<p class="log-request"><code>${id}</code>
          <button type="button" onClick=${() => onRequest(id)}>Lines of this request</button>
          <button type="button" onClick=${() => go("requests", id)}>Its timeline</button></p>`
      : null}
  </section>`;
}
