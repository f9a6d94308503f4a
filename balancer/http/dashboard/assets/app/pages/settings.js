// Settings: what is in force, where it comes from, and reading the files again.

import { useEffect, useState } from "preact/hooks";
import { html } from "../core/html.js";
import { ask } from "../core/calls.js";
import { Empty, Heading, Search } from "../parts/bits.js";
import { complain, say } from "../parts/notes.js";

/** @typedef {{name: string, value: unknown, default: unknown, description: string, origin: string, applies: string}} Setting */
/** @typedef {{message: string}} Fault */

export function Page() {
  const [config, setConfig] = useState(/** @type {any} */ (null));
  const [faults, setFaults] = useState(/** @type {Fault[]} */ ([]));
  const [failure, setFailure] = useState("");
  const [sought, setSought] = useState("");
  const read = async () => {
    try {
      setConfig(await ask("GET", "/config"));
      setFailure("");
      setFaults((await ask("GET", "/config/status")).validation_errors ?? []);
    } catch (error) {
      setFailure(error instanceof Error ? error.message : String(error));
    }
  };
  useEffect(() => void read(), []);
  const reload = async () => {
    try {
      say((await ask("POST", "/config/reload")).message);
    } catch (error) {
      complain(error);
    }
    await read();
  };
  const rows = /** @type {Setting[]} */ (config?.details ?? []).filter((row) =>
    `${row.name} ${row.description}`.toLowerCase().includes(sought.toLowerCase()),
  );
  const files = config?.files?.length ? config.files.join(", ") : "No file: defaults, environment and flags";
  return html`
    <${Heading} title="Settings" about=${config ? files : ""}>
      <${Search} label="Find a setting" value=${sought} onInput=${setSought} />
      <button type="button" onClick=${reload}>Reload</button>
    <//>
    <p class="quiet-text">
      The API is described at <a href="/docs">/docs</a> and, for programs, at
      ${" "}<a href="/openapi.json">/openapi.json</a>.
    </p>
    ${faults.map((fault) => html`<p class="issue" data-severity="error" key=${fault.message}>${fault.message}</p>`)}
    ${failure ? html`<${Empty} title="The settings cannot be shown"><p>${failure}</p><//>` : null}
    ${config
      ? html`<div class="panel scrolled section" tabindex="0" role="region" aria-label="Settings in force">
          <table class="settings">
            <thead><tr><th>Setting</th><th>Value</th><th>From</th><th>A change needs</th></tr></thead>
            <tbody>
              ${rows.map(
                (row) => html`<tr key=${row.name} data-given=${row.origin !== "default"}>
                  <td><code>${row.name}</code><p class="quiet-text">${row.description}</p></td>
                  <td class="of-value"><code>${shown(row.value)}</code></td>
                  <td class="of-origin">${row.origin}</td>
                  <td class="of-applies">a ${row.applies}</td>
                </tr>`,
              )}
            </tbody>
          </table>
        </div>`
      : null}
  `;
}

/** @param {unknown} value */
function shown(value) {
  return typeof value === "string" ? value || "–" : JSON.stringify(value);
}
