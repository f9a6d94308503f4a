// What the live sockets and the API send, for the type checker; the API's document says more.

/**
 * @typedef {object} Issue
 * @property {string} code
 * @property {string} message
 * @property {"warning" | "error"} severity
 */
/**
 * @typedef {object} ServedModel
 * @property {string} name
 * @property {string[]} aliases
 * @property {string} version
 * @property {number} context_tokens
 * @property {number} size_bytes
 * @property {number} parameters
 * @property {string} architecture
 */
/**
 * @typedef {object} GpuUse
 * @property {string} name
 * @property {number | null} busy_percent
 * @property {number | null} memory_used_bytes
 * @property {number | null} memory_total_bytes
 * @property {number | null} temperature_c
 * @property {number | null} power_w
 */
/**
 * @typedef {object} HostUse
 * @property {number | null} cpu_percent
 * @property {number | null} memory_used_bytes
 * @property {GpuUse[]} gpus
 */
/**
 * @typedef {object} AgentRow
 * @property {string} id
 * @property {string} name
 * @property {"ready" | "busy" | "draining" | "not_ready"} state
 * @property {ServedModel | null} model
 * @property {{total: number, used: number, free: number, running: number, waiting: number,
 *   paused: number}} slots
 * @property {number} kv_cells_used
 * @property {number} kv_cells_total
 * @property {number} engine_steps
 * @property {number | null} load_progress
 * @property {Issue[]} issues
 * @property {{[name: string]: string}} labels
 * @property {{hostname: string, cpu: string, cores: number, memory_bytes: number}} hardware
 * @property {HostUse | null} host
 * @property {string} version
 * @property {string} llama_cpp_version
 * @property {number} connected unix seconds
 * @property {number} last_heard unix seconds
 * @property {number} heartbeat_interval_s how often it was told to report
 */
/**
 * @typedef {object} RequestRow
 * @property {string} id
 * @property {number} choice
 * @property {string} model
 * @property {string} tenant
 * @property {"waiting" | "running" | "paused" | "moving"} state
 * @property {string | null} agent
 * @property {number} attempts
 * @property {number} arrived unix seconds
 * @property {number} completion_tokens
 * @property {number | null} position
 * @property {number | null} estimated_start_s
 */
/**
 * @typedef {object} FinishedRow
 * @property {string} id
 * @property {number} choice
 * @property {string | null} model
 * @property {string | null} agent
 * @property {string} outcome a finish reason, an error's code, or `cancelled`
 * @property {number} attempts
 * @property {number} arrived unix seconds
 * @property {number} total_ms
 * @property {number} prompt_tokens
 * @property {number} completion_tokens
 */
/**
 * @typedef {object} ModelRow
 * @property {string[]} aliases
 * @property {string[]} agents
 * @property {number} slots_total 0: it makes vectors only
 * @property {number} slots_used
 */
/**
 * @typedef {object} Control
 * @property {{[id: string]: AgentRow}} agents
 * @property {{[name: string]: ModelRow}} models
 * @property {{[key: string]: RequestRow}} requests
 * @property {{[key: string]: FinishedRow}} finished the latest to end
 * @property {{status: string, version: string, started: number, draining: boolean}} balancer
 */

export {};
