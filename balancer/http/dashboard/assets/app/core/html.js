// What components are written with. `html` makes nodes: a value is always text, never markup.

import { Component, h } from "preact";
import htm from "htm";

/** @typedef {import("preact").ComponentChildren} Children */
/** @typedef {import("preact").VNode} Node */

export const html =
  /** @type {(strings: TemplateStringsArray, ...values: unknown[]) => Node} */ (
    /** @type {unknown} */ (htm.bind(/** @type {any} */ (made)))
  );

/**
 * A node that is made anew each time. What never changes would else be kept by htm and used again;
 * Preact leaves the children of such a node with the parent they had first, and so holds on to
 * every tree that was ever drawn.
 * @this {number[]}
 * @param {Parameters<typeof h>} given
 */
function made(...given) {
  this[0] = 3;
  return h(...given);
}

/**
 * A component that is drawn again only when one of its properties is another value, or a signal
 * that it reads changes. Of rows: the store keeps the identity of those that did not change.
 * @template {object} Properties
 * @param {(properties: Properties) => Children} draw
 * @returns {import("preact").ComponentClass<Properties>}
 */
export function pure(draw) {
  return class extends Component {
    /** @override @param {Properties} next @param {object} state */
    shouldComponentUpdate(next, state) {
      return state !== this.state || differs(this.props, next);
    }

    /** @override */
    render() {
      return draw(/** @type {Properties} */ (/** @type {unknown} */ (this.props)));
    }
  };
}

/** @param {object} before @param {object} after */
function differs(before, after) {
  const old = /** @type {Record<string, unknown>} */ (before);
  const fresh = /** @type {Record<string, unknown>} */ (after);
  return (
    Object.keys(fresh).some((name) => fresh[name] !== old[name]) ||
    Object.keys(old).some((name) => !(name in fresh))
  );
}
