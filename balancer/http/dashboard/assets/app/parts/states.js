// Pure: the words and tones for what agents and requests are.

/** @typedef {import("./bits.js").Tone} Tone */
/** @typedef {import("../core/shapes.js").AgentRow} AgentRow */
/** @typedef {import("../core/shapes.js").RequestRow} RequestRow */

/** What a report may be late by, and clocks may differ. */
const LENIENCE_S = 2;

/**
 * Whether a report of the agent's is overdue, long before the balancer takes it for dead.
 * @param {AgentRow} agent
 * @param {number} now unix seconds
 */
function isSilent(agent, now) {
  return now - agent.last_heard > 1.5 * agent.heartbeat_interval_s + LENIENCE_S;
}

/**
 * @param {AgentRow} agent
 * @param {number} now unix seconds
 * @returns {{tone: Tone, word: string}}
 */
export function agentState(agent, now) {
  if (isSilent(agent, now)) return { tone: "bad", word: "Silent" };
  if (agent.state === "draining") return { tone: "idle", word: "Draining" };
  if (agent.state === "not_ready") {
    const part = agent.load_progress;
    if (part !== null) return { tone: "warn", word: `Loading ${Math.round(part * 100)} %` };
    return { tone: "bad", word: "Not ready" };
  }
  if (agent.issues.some((issue) => issue.severity === "error")) return { tone: "bad", word: "Failing" };
  if (agent.issues.length) return { tone: "warn", word: "Has issues" };
  return agent.state === "busy" ? { tone: "busy", word: "Full" } : { tone: "good", word: "Ready" };
}

/** @type {{[state in RequestRow["state"]]: {tone: Tone, word: string}}} */
export const REQUEST_STATES = {
  running: { tone: "good", word: "Running" },
  waiting: { tone: "idle", word: "Waiting" },
  paused: { tone: "warn", word: "Paused" },
  moving: { tone: "busy", word: "Moving" },
};

/** Finish reasons that are as they should be; anything else went wrong, or was ended. */
const GOOD_OUTCOMES = /** @type {{[outcome: string]: string}} */ ({
  stop: "Done",
  length: "Length reached",
  tool_calls: "Called a tool",
});

/** @param {string} outcome a finish reason, an error's code, or `cancelled` @returns {{tone: Tone, word: string}} */
export function outcomeOf(outcome) {
  const good = Object.hasOwn(GOOD_OUTCOMES, outcome) ? GOOD_OUTCOMES[outcome] : undefined;
  if (good) return { tone: "good", word: good };
  if (outcome === "cancelled" || outcome === "request_cancelled") return { tone: "idle", word: "Cancelled" };
  return { tone: "bad", word: outcome.replaceAll("_", " ") };
}
