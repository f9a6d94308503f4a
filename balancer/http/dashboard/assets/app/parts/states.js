// Pure: the words and tones for what agents and requests are.

/** @typedef {import("./bits.js").Tone} Tone */
/** @typedef {import("../core/shapes.js").AgentRow} AgentRow */
/** @typedef {import("../core/shapes.js").RequestRow} RequestRow */

/** An agent that was not heard for so long is in trouble: three heartbeats and a little. */
export const SILENT_AFTER_S = 4;

/**
 * @param {AgentRow} agent
 * @param {number} now unix seconds
 * @returns {{tone: Tone, word: string}}
 */
export function agentState(agent, now) {
  if (now - agent.last_heard > SILENT_AFTER_S) return { tone: "bad", word: "Silent" };
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
