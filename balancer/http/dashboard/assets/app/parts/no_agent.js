// What to do where there is no agent yet.

import { html } from "../core/html.js";
import { Command, Empty } from "./bits.js";

export function NoAgent() {
  const host = location.hostname.includes(":") ? `[${location.hostname}]` : location.hostname;
  const port = location.port || (location.protocol === "https:" ? "443" : "80");
  return html`<${Empty} title="No agent yet">
    <p>
      An agent brings a model to this balancer. On a GPU host, start one; it appears here as soon as
      it connects.
    </p>
    <${Command} text=${`paddler-py agent --balancer ${host}:${port} --model /models/your-model.gguf`} />
  <//>`;
}
