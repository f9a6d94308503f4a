// The pages, in the order of the navigation: a row each. How one is added stands in the docstring
// of the package.

import { plotsLoaded } from "./core/plots.js";

/**
 * @typedef {object} PageRow
 * @property {string} path its first part of the address; "" is where one arrives
 * @property {string} title
 * @property {import("./parts/icon.js").IconName} icon
 * @property {() => Promise<{Page: import("preact").ComponentType<{rest: string[]}>}>} load
 */

/** Its pictures need a library of their own. */
async function overview() {
  const [page] = await Promise.all([import("./pages/overview.js"), plotsLoaded()]);
  return page;
}

/** @type {readonly PageRow[]} */
export const PAGES = [
  { path: "", title: "Overview", icon: "overview", load: overview },
  { path: "agents", title: "Agents", icon: "agents", load: () => import("./pages/agents.js") },
  {
    path: "requests",
    title: "Requests",
    icon: "requests",
    load: () => import("./pages/requests.js"),
  },
  { path: "models", title: "Models", icon: "models", load: () => import("./pages/models.js") },
  {
    path: "playground",
    title: "Playground",
    icon: "playground",
    load: () => import("./pages/playground.js"),
  },
  { path: "logs", title: "Logs", icon: "logs", load: () => import("./pages/logs.js") },
  {
    path: "settings",
    title: "Settings",
    icon: "settings",
    load: () => import("./pages/settings.js"),
  },
];
