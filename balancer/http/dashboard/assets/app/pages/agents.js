// Agents: who serves, how full each is, what is wrong and what to do about it.

import { useState } from "preact/hooks";
import { html, pure } from "../core/html.js";
import { ask, placed } from "../core/calls.js";
import { bytes, count, counted, duration, percent } from "../core/format.js";
import { agents, dismiss, lost, now, removing } from "../core/live.js";
import { AgentBadge, Heard, Speed } from "../parts/agent_bits.js";
import { Badge, Heading, Meter, Search } from "../parts/bits.js";
import { Confirm } from "../parts/confirm.js";
import { usePart } from "../parts/long_list.js";
import { NoAgent } from "../parts/no_agent.js";
import { complain, say } from "../parts/notes.js";
import { Slots } from "../parts/slots.js";

/** @typedef {import("../core/shapes.js").AgentRow} AgentRow */
/** @typedef {import("../core/shapes.js").HostUse} HostUse */
/** @typedef {"drain" | "remove"} Deed */

const SEARCHED_FROM = 8;
const SHOWN_GPUS = 8;

/** @param {{rest: string[]}} properties */
export function Page({ rest }) {
  const [sought, setSought] = useState("");
  const [asked, setAsked] = useState(
    /** @type {{agent: AgentRow, deed: Deed} | null} */ (null),
  );
  const only = rest[0];
  const shown = agents.value.filter((agent) =>
    only ? agent.id === only : textOf(agent).includes(sought.toLowerCase()),
  );
  const part = usePart(shown.length);
  const gone = lost.value.filter(({ agent }) => !only || agent.id === only);
  const list = only ? { address: "#/agents", title: "Agents" } : undefined;
  return html`
    <${Heading} title=${only ?? "Agents"} list=${list} about=${only ? null : counted(agents.value.length, "agent")}>
      ${!only && (sought || agents.value.length >= SEARCHED_FROM)
        ? html`<${Search} label="Find an agent or a model" value=${sought} onInput=${setSought} />`
        : null}
    <//>
    ${agents.value.length || gone.length ? null : html`<${NoAgent} />`}
    ${only && !shown.length && !gone.length
      ? html`<p class="quiet-text">No agent of this name is connected.</p>`
      : null}
    ${!only && sought && !shown.length ? html`<p class="quiet-text">None of these agents fits.</p>` : null}
    <div class="agents" data-one=${Boolean(only)}>
      ${gone.map((one) => html`<${LostCard} key=${`lost ${one.agent.id}`} ...${one} />`)}
      ${shown.slice(0, part.end).map(
        (agent) => html`<${AgentCard} key=${agent.id} agent=${agent} onAsk=${setAsked} />`,
      )}
    </div>
    ${part.more}
    ${asked ? html`<${Question} ...${asked} onClose=${() => setAsked(null)} />` : null}
  `;
}

/** @param {AgentRow} agent */
function textOf(agent) {
  return `${agent.id} ${agent.model?.name ?? ""} ${agent.hardware.hostname}`.toLowerCase();
}

/** @param {import("../core/live.js").Lost} properties */
function LostCard({ agent, at, isRemoved }) {
  const ago = duration(now.value - at);
  if (isRemoved) {
    return html`<article class="panel agent">
      <header><h2>${agent.id}</h2><${Badge} tone="idle">Removed<//></header>
      <p class="quiet-text">It was removed ${ago} ago and is kept out until it is let in again.</p>
      <footer>
        <button type="button" onClick=${() => letIn(agent.id)}>Let it in</button>
        <button type="button" onClick=${() => dismiss(agent.id)}>Dismiss</button>
      </footer>
    </article>`;
  }
  return html`<article class="panel agent" data-lost="true">
    <header><h2>${agent.id}</h2><${Badge} tone="bad">Lost<//></header>
    <p class="quiet-text">
      Its connection ended ${ago} ago. What ran there goes on elsewhere, if
      another agent serves ${agent.model?.name ?? "its model"}. Look at the agent's log on
      ${agent.hardware.hostname || "its host"}; it connects again by itself once it runs.
    </p>
    <footer><button type="button" onClick=${() => dismiss(agent.id)}>Dismiss</button></footer>
  </article>`;
}

const AgentCard = pure(
  (/** @type {{agent: AgentRow, onAsk: (asked: {agent: AgentRow, deed: Deed}) => void}} */ {
    agent,
    onAsk,
  }) => {
    const kv = agent.kv_cells_total ? agent.kv_cells_used / agent.kv_cells_total : null;
    const { hardware, slots } = agent;
    return html`<article class="panel agent">
      <header><h2>${agent.id}</h2><${AgentBadge} agent=${agent} /></header>
      <p class="quiet-text agent-model">
        <span>${agent.model?.name ?? "No model loaded yet"}</span>
        ${slots.total
          ? html`<span class="numeral"><${Speed} id=${agent.id} /> tokens/s</span>`
          : null}
      </p>
      ${agent.model && !slots.total
        ? html`<p class="quiet-text agent-vectors">Makes embeddings only: it needs no slots.</p>`
        : html`<div class="host">
            <div>
              <div class="meter-words">
                <span>Slots</span><span class="numeral">${slots.used} of ${slots.total}</span>
              </div>
              <${Slots} slots=${slots} />
            </div>
            <${Meter} part=${kv} label="KV cache">${kvWords(agent)}<//>
          </div>`}
      ${agent.host ? html`<${Host} host=${agent.host} hardware=${hardware} />` : null}
      ${agent.issues.map(
        (issue, index) => html`<p key=${index} class="issue" data-severity=${issue.severity}>
          <strong>${issue.code}</strong> ${issue.message}
        </p>`,
      )}
      <footer>
        <p class="quiet-text agent-about">
          <span>${hardware.hostname || "–"} · ${counted(hardware.cores, "core")} · ${bytes(hardware.memory_bytes)}</span>
          <span>Version ${agent.version || "–"} · llama.cpp ${agent.llama_cpp_version || "–"}</span>
          <span>Heard <${Heard} agent=${agent} /></span>
        </p>
        ${agent.state === "draining"
          ? html`<button type="button" onClick=${() => resume(agent.id)}>Resume</button>`
          : html`<button type="button" onClick=${() => onAsk({ agent, deed: "drain" })}>Drain</button>`}
        <button type="button" class="danger" onClick=${() => onAsk({ agent, deed: "remove" })}>
          Remove
        </button>
      </footer>
    </article>`;
  },
);

/** @param {AgentRow} agent */
function kvWords({ kv_cells_used: taken, kv_cells_total: total }) {
  return total ? `${count(taken)} of ${count(total)}` : "–";
}

/** How busy its host is. @param {{host: HostUse, hardware: AgentRow["hardware"]}} properties */
function Host({ host, hardware }) {
  const total = hardware.memory_bytes;
  return html`<div class="host">
    <${Meter} part=${ofHundred(host.cpu_percent)} label="Processor" tone="other">
      ${percent(ofHundred(host.cpu_percent))}
    <//>
    <${Meter} part=${share(host.memory_used_bytes, total)} label="Memory" tone="other">
      ${bytes(host.memory_used_bytes)}
    <//>
    ${host.gpus.slice(0, SHOWN_GPUS).map((gpu, index) => html`<${Gpu} key=${index} gpu=${gpu} />`)}
    ${host.gpus.length > SHOWN_GPUS
      ? html`<p class="quiet-text gpus-more">and ${counted(host.gpus.length - SHOWN_GPUS, "GPU")} more</p>`
      : null}
  </div>`;
}

/** @param {{gpu: import("../core/shapes.js").GpuUse}} properties */
function Gpu({ gpu }) {
  const name = gpu.name || "GPU";
  const short = name.replace(/^NVIDIA /, "");
  const heat = gpu.temperature_c === null ? "" : ` · ${count(gpu.temperature_c)} °C`;
  return html`
    <${Meter} part=${ofHundred(gpu.busy_percent)} label=${name} word=${short} tone="other">
      ${percent(ofHundred(gpu.busy_percent))}${heat}
    <//>
    <${Meter} part=${share(gpu.memory_used_bytes, gpu.memory_total_bytes)} label="GPU memory" tone="other">
      ${used(gpu.memory_used_bytes, gpu.memory_total_bytes)}
    <//>
  `;
}

/** @param {number | null} value */
function ofHundred(value) {
  return value === null ? null : value / 100;
}

/** @param {number | null} part @param {number | null} whole */
function share(part, whole) {
  return part === null || !whole ? null : part / whole;
}

/** @param {number | null} part @param {number | null} whole */
function used(part, whole) {
  if (!whole) return bytes(part);
  const all = bytes(whole).replace(".0 ", " ");
  const unit = all.slice(all.indexOf(" "));
  return `${bytes(part).replace(unit, "")} of ${all}`;
}

/** @param {string} id */
const resume = (id) => undrain(id, `${id} takes requests again.`);

/** @param {string} id */
async function letIn(id) {
  if (await undrain(id, `${id} may connect again.`)) dismiss(id);
}

/** Whether it was done. @param {string} id @param {string} done what to say then */
async function undrain(id, done) {
  try {
    await ask("POST", `/agents/${placed(id)}/undrain`);
    say(done);
    return true;
  } catch (error) {
    complain(error);
    return false;
  }
}

/** @param {{agent: AgentRow, deed: Deed, onClose: () => void}} properties */
function Question({ agent, deed, onClose }) {
  if (deed === "remove") {
    const remove = async () => {
      await removing(agent.id, () => ask("DELETE", `/agents/${placed(agent.id)}`));
      say(`${agent.id} was removed.`);
    };
    return html`<${Confirm}
      title=${`Remove ${agent.id}?`} action="Remove" isDanger=${true}
      onConfirm=${remove} onClose=${onClose}
    >
      <p>
        Its connection ends now, and it is kept out until it is let in again. What runs there goes on
        with another agent that serves the model; where there is none, it fails.
      </p>
    <//>`;
  }
  const drain = async (/** @type {FormData} */ form) => {
    const query = form.get("end") === "move" ? `?deadline_s=${Number(form.get("seconds"))}` : "";
    await ask("POST", `/agents/${placed(agent.id)}/drain${query}`);
    say(`${agent.id} takes nothing new.`);
  };
  return html`<${Confirm} title=${`Drain ${agent.id}?`} action="Drain" onConfirm=${drain} onClose=${onClose}>
    <p>It gets nothing new. ${counted(agent.slots.running, "request")} ${agent.slots.running === 1 ? "runs" : "run"} there now.</p>
    <fieldset>
      <legend class="unseen">What becomes of those</legend>
      <label><input type="radio" name="end" value="wait" checked /> They run to their end</label>
      <label>
        <input type="radio" name="end" value="move" /> What still runs goes on elsewhere after
        <input type="number" name="seconds" aria-label="Seconds" required min="0" max="86400" value="60" /> s
      </label>
    </fieldset>
  <//>`;
}
