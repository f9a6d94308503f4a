// Overview: how the cluster does, in one look.

import { html, pure } from "../core/html.js";
import { agents, control, figures, lost, now, ownModels } from "../core/live.js";
import { address } from "../core/router.js";
import { numberAt } from "../core/tree.js";
import { count, counted, duration, milliseconds, percent, rate } from "../core/format.js";
import { AgentBadge } from "../parts/agent_bits.js";
import { Badge, Heading, Meter } from "../parts/bits.js";
import { Chart } from "../parts/chart.js";
import { usePart } from "../parts/long_list.js";
import { NoAgent } from "../parts/no_agent.js";
import { Slots } from "../parts/slots.js";

/** @typedef {import("../core/shapes.js").AgentRow} AgentRow */

/** @type {import("../parts/chart.js").ChartProperties[]} */
const CHARTS = [
  { title: "Requests per second", lines: [{ path: "requests.per_second" }], format: rate },
  { title: "Tokens per second", lines: [{ path: "tokens.per_second" }], format: rate, top: 10 },
  {
    title: "Time to first token",
    lines: [
      { path: "latency.ttft_p50_ms", name: "p50" },
      { path: "latency.ttft_p95_ms", name: "p95", tone: "other" },
    ],
    format: milliseconds,
    top: 10,
  },
  {
    title: "Slots used",
    lines: [
      { path: "slots.used" },
      { path: "slots.total", name: "of", tone: "other" },
    ],
    format: count,
    top: 4,
  },
  { title: "Waiting requests", lines: [{ path: "requests.waiting" }], format: count, top: 4 },
  {
    title: "Time in the queue",
    lines: [
      { path: "queue.wait_p50_ms", name: "p50" },
      { path: "queue.wait_p95_ms", name: "p95", tone: "other" },
    ],
    format: milliseconds,
    top: 10,
  },
  {
    title: "Prompt tokens from the cache",
    lines: [{ path: "cache.hit_rate" }],
    format: percent,
    top: 1,
  },
  { title: "Failovers per minute", lines: [{ path: "failovers.per_minute" }], format: count, top: 4 },
];

export function Page() {
  return html`
    <${Heading} title="Overview" about=${html`<${Sentence} />`} />
    ${agents.value.length || lost.value.length ? null : html`<${NoAgent} />`}
    <div class="charts">${CHARTS.map((chart) => html`<${Chart} key=${chart.title} ...${chart} />`)}</div>
    <div class="glances">
      <${AgentsGlance} />
      <${ModelsGlance} />
    </div>
  `;
}

function Sentence() {
  const balancer = control.value?.balancer;
  if (!balancer) return null;
  const well = agents.value.filter((agent) => agent.state === "ready" || agent.state === "busy");
  const running = numberAt(figures.value, "requests.in_flight");
  const parts = [
    balancer.draining ? "The balancer is draining: it takes nothing new." : null,
    `${counted(well.length, "agent")} ${well.length === 1 ? "serves" : "serve"} ${counted(ownModels.value.length, "model")}`,
    `${running === null ? "– requests" : counted(running, "request")} in flight`,
    `up for ${duration(now.value - balancer.started)}`,
  ];
  return html`${parts.filter((part) => part !== null).join(" · ")}`;
}

function AgentsGlance() {
  const part = usePart(agents.value.length);
  if (!agents.value.length && !lost.value.length) return null;
  return html`<section class="section">
    <h2>Agents</h2>
    <ul class="panel glance">
      ${lost.value.map(
        ({ agent, at, isRemoved }) => html`<li key=${`lost ${agent.id}`}>
          <a href=${address("agents", agent.id)} title=${agent.id}>${agent.id}</a>
          <${Badge} tone=${isRemoved ? "idle" : "bad"}>${isRemoved ? "Removed" : "Lost"}<//>
          <span class="quiet-text numeral">${duration(now.value - at)} ago</span>
        </li>`,
      )}
      ${agents.value.slice(0, part.end).map((agent) => html`<${AgentLine} key=${agent.id} agent=${agent} />`)}
    </ul>
    ${part.more}
  </section>`;
}

const AgentLine = pure(
  (/** @type {{agent: AgentRow}} */ { agent }) => html`<li>
    <a href=${address("agents", agent.id)} title=${agent.id}>${agent.id}</a>
    <${AgentBadge} agent=${agent} />
    ${agent.model && !agent.slots.total
      ? html`<span class="quiet-text">Embeddings, no slots</span>`
      : html`<${Slots} slots=${agent.slots} />`}
  </li>`,
);

function ModelsGlance() {
  const part = usePart(ownModels.value.length);
  if (!ownModels.value.length) return null;
  return html`<section class="section">
    <h2>Models</h2>
    <ul class="panel glance">
      ${ownModels.value
        .slice(0, part.end)
        .map(([name, row]) => html`<${ModelLine} key=${name} name=${name} row=${row} />`)}
    </ul>
    ${part.more}
  </section>`;
}

/** @param {{name: string, row: import("../core/shapes.js").ModelRow}} properties */
function ModelLine({ name, row }) {
  const { agents: serving, slots_used: used, slots_total: total } = row;
  return html`<li>
    <a href=${address("models", name)} title=${name}>${name}</a>
    <span class="quiet-text numeral">${counted(serving.length, "agent")}</span>
    ${total
      ? html`<${Meter} part=${used / total} label=${`Slots of ${name}`} word="">
          ${count(used)} of ${counted(total, "slot")}
        <//>`
      : html`<span class="quiet-text">Embeddings, no slots</span>`}
  </li>`;
}
