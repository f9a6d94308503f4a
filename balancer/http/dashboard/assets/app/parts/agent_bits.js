// What changes of an agent as time goes by. Each is drawn again when its words change, so that a card
// is not drawn anew each second.

import { computed } from "@preact/signals";
import { useMemo } from "preact/hooks";
import { duration, rate } from "../core/format.js";
import { html } from "../core/html.js";
import { figures, now } from "../core/live.js";
import { found } from "../core/tree.js";
import { Badge } from "./bits.js";
import { agentState } from "./states.js";

/** @typedef {import("../core/shapes.js").AgentRow} AgentRow */

/**
 * What signals come to; whoever reads it is drawn again only when that is another value.
 * @template {string} Value
 * @param {() => Value} read
 * @param {unknown[]} of what `read` knows besides signals
 */
function useWords(read, of) {
  return useMemo(() => computed(read), of).value;
}

/** How it does, in a word. @param {{agent: AgentRow}} properties */
export function AgentBadge({ agent }) {
  const tone = useWords(() => agentState(agent, now.value).tone, [agent]);
  const word = useWords(() => agentState(agent, now.value).word, [agent]);
  return html`<${Badge} tone=${tone}>${word}<//>`;
}

/** How long ago it reported. @param {{agent: AgentRow}} properties */
export function Heard({ agent }) {
  return html`${useWords(() => `${duration(now.value - agent.last_heard)} ago`, [agent.last_heard])}`;
}

/** Tokens per second. @param {{id: string}} properties */
export function Speed({ id }) {
  return html`${useWords(() => {
    const speed = found(figures.value, ["providers", id, "tokens_per_second"]);
    return rate(typeof speed === "number" ? speed : null);
  }, [id])}`;
}
