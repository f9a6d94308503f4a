import { html } from "../core/html.js";
import { Heading } from "../parts/bits.js";
export function Page() { return html`<${Heading} title="Agents" />`; }
