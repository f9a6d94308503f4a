// Requests: what runs and waits now, and what became of one.

import { useState } from "preact/hooks";
import { html, pure } from "../core/html.js";
import { ask, placed } from "../core/calls.js";
import { count, duration, milliseconds, shortId } from "../core/format.js";
import { endOf, finished, now, requests } from "../core/live.js";
import { address } from "../core/router.js";
import { Badge, Empty, Heading, Search } from "../parts/bits.js";
import { Confirm } from "../parts/confirm.js";
import { usePart, useRowsInSight } from "../parts/long_list.js";
import { say } from "../parts/notes.js";
import { REQUEST_STATES, outcomeOf } from "../parts/states.js";
import { One } from "../requests/story.js";

/** @typedef {import("../core/shapes.js").RequestRow} RequestRow */
/** @typedef {import("../core/shapes.js").FinishedRow} FinishedRow */

const SHOWN_AT_FIRST = 100;

/** @param {{rest: string[]}} properties */
export function Page({ rest }) {
  return rest[0] ? html`<${One} key=${rest[0]} id=${rest[0]} />` : html`<${All} />`;
}

function All() {
  const [sought, setSought] = useState("");
  const [most, setMost] = useState(SHOWN_AT_FIRST);
  const [asked, setAsked] = useState(/** @type {RequestRow | null} */ (null));
  const rows = requests.value;
  const fitting = rows.filter(([, row]) => textOf(row).includes(sought.toLowerCase()));
  const waiting = rows.filter(([, row]) => row.state === "waiting").length;
  return html`
    <${Heading} title="Requests" about=${`${count(rows.length - waiting)} running · ${count(waiting)} waiting`}>
      <${Search} label="Find by id, model, agent" value=${sought} onInput=${setSought} />
    <//>
    ${rows.length || finished.value.length
      ? html`<${Table} rows=${fitting.slice(0, most)} onCancel=${setAsked}
          none=${rows.length ? "Nothing that runs or waits fits." : "Nothing runs or waits now."} />`
      : html`<${Empty} title="Nothing runs or waits">
          <p>Requests appear here as soon as they arrive. Send one to the inference port.</p>
        <//>`}
    ${fitting.length > most
      ? html`<p class="more"><button type="button" onClick=${() => setMost(most + SHOWN_AT_FIRST)}>
          Show more of ${count(fitting.length)}
        </button></p>`
      : null}
    <${Finished} sought=${sought} />
    ${asked
      ? html`<${Confirm}
          title="Cancel this request?" action="Cancel it" isDanger=${true}
          onConfirm=${async () => {
            await ask("DELETE", `/requests/${placed(asked.id)}`);
            say("The request was cancelled.");
          }}
          onClose=${() => setAsked(null)}
        ><p>Its client is told so and gets no more tokens.</p><//>`
      : null}
  `;
}

/** @param {RequestRow} row */
function textOf(row) {
  return `${row.id} ${row.model} ${row.agent ?? ""} ${row.state}`.toLowerCase();
}

/** The latest that are over. @param {{sought: string}} properties */
function Finished({ sought }) {
  const rows = finished.value;
  const fitting = rows.filter(([, row]) =>
    `${row.id} ${row.model ?? ""} ${row.agent ?? ""} ${row.outcome}`.toLowerCase().includes(sought.toLowerCase()),
  );
  const part = usePart(fitting.length);
  if (!rows.length) return null;
  return html`<section class="section">
    <h2>Finished lately</h2>
    <div class="panel scrolled" tabindex="0" role="region" aria-label="Finished requests">
      <table class="requests">
        <thead>
          <tr>
            <th>Outcome</th><th>Request</th><th>Model</th><th>Agent</th>
            <th class="end">Prompt</th><th class="end">Tokens</th><th class="end">Attempts</th>
            <th class="end">Took</th><th class="end">Ended</th>
          </tr>
        </thead>
        <tbody>
          ${fitting.slice(0, part.end).map(([key, row]) => html`<${FinishedLine} key=${key} row=${row} />`)}
        </tbody>
      </table>
    </div>
  </section>`;
}

const FinishedLine = pure((/** @type {{row: FinishedRow}} */ { row }) => {
  const outcome = outcomeOf(row.outcome);
  return html`<tr>
    <td class="of-state"><${Badge} tone=${outcome.tone}>${outcome.word}<//></td>
    <td class="of-id"><a class="mono" href=${address("requests", row.id)} title=${row.id}>${shortId(row.id)}</a></td>
    <td class="of-model">${row.model ?? "–"}</td>
    <td class="of-agent">${row.agent ?? "–"}</td>
    <td class="of-prompt end">${count(row.prompt_tokens)}</td>
    <td class="of-tokens end">${count(row.completion_tokens)}</td>
    <td class="of-attempts end" data-many=${row.attempts > 1}>${count(row.attempts)}</td>
    <td class="of-took end">${milliseconds(row.total_ms)}</td>
    <td class="of-age end"><${Age} since=${endOf(row)} /> ago</td>
  </tr>`;
});

/** @param {{rows: [string, RequestRow][], none: string, onCancel: (row: RequestRow) => void}} properties */
function Table({ rows, none, onCancel }) {
  const sight = useRowsInSight(rows.length);
  return html`<div class="panel scrolled" tabindex="0" role="region" aria-label="Requests">
    <table class="requests">
      <thead>
        <tr>
          <th>State</th><th>Request</th><th>Model</th><th>Agent</th><th class="end">Tokens</th>
          <th class="end">Attempts</th><th class="end">Age</th>
          <th><span class="unseen">Actions</span></th>
        </tr>
      </thead>
      <tbody ref=${sight.body}>
        ${sight.before}
        ${rows
          .slice(sight.first, sight.end)
          .map(([key, row]) => html`<${Row} key=${key} row=${row} onCancel=${onCancel} />`)}
        ${sight.behind}
        ${rows.length ? null : html`<tr><td class="quiet-text" colspan="8">${none}</td></tr>`}
      </tbody>
    </table>
  </div>`;
}

const Row = pure(
  (/** @type {{row: RequestRow, onCancel: (row: RequestRow) => void}} */ { row, onCancel }) => {
    const state = REQUEST_STATES[row.state];
    return html`<tr>
      <td class="of-state"><${Badge} tone=${state.tone}>${state.word}${placeOf(row)}<//></td>
      <td class="of-id"><a class="mono" href=${address("requests", row.id)} title=${row.id}>${shortId(row.id)}</a></td>
      <td class="of-model">${row.model}</td>
      <td class="of-agent">${row.agent ?? "–"}</td>
      <td class="of-tokens end">${count(row.completion_tokens)}</td>
      <td class="of-attempts end" data-many=${row.attempts > 1}>${count(row.attempts)}</td>
      <td class="of-age end"><${Age} since=${row.arrived} /></td>
      <td class="of-deed end">
        <button type="button" class="quiet word" aria-label=${`Cancel ${row.id}`} onClick=${() => onCancel(row)}>Cancel</button>
      </td>
    </tr>`;
  },
);

/** @param {RequestRow} row */
function placeOf(row) {
  if (row.position === null) return "";
  const estimate = row.estimated_start_s;
  return ` · no. ${row.position}${estimate === null ? "" : `, in about ${duration(estimate)}`}`;
}

/** @param {{since: number}} properties */
function Age({ since }) {
  return html`${duration(now.value - since)}`;
}
