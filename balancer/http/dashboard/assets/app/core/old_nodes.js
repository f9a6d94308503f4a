// Lets go of what is not shown any more.
//
// Preact makes a new node of a component each time it is drawn. The old node is often kept by the
// properties of the one around it, and what it held knows the later nodes that it was handed on to:
// as long as a page is open, every tree that it ever drew would stay in memory.

import { options } from "preact";

/** Take from a component's node what it holds, once there is a newer one. */
export function forgetOldNodes() {
  // names that Preact gives its own fields are the same in all its builds (its mangle.json)
  const hooks = /** @type {{diffed?: (node: any) => void}} */ (options);
  const before = hooks.diffed;
  /** @type {WeakMap<object, any>} */
  const latest = new WeakMap();
  hooks.diffed = (node) => {
    before?.(node);
    const component = node.__c;
    if (!component) return;
    const old = latest.get(component);
    if (old && old !== node) old.__k = [];
    latest.set(component, node);
  };
}
