// Pure: a tree of plain values and its changes, as the live sockets tell them.

/** @typedef {{[name: string]: unknown}} Tree */

/**
 * The names along a dotted path; `~1` stands for a dot in a name, `~0` for a tilde.
 * @param {string} path
 */
export function namesOf(path) {
  return path
    .split(".")
    .map((name) => (name.includes("~") ? name.replaceAll("~1", ".").replaceAll("~0", "~") : name));
}

/**
 * What nodes are made of: nothing but a constructor. What has none the framework takes for a piece
 * of the page, though it came from elsewhere.
 */
const BARE = Object.create(null, { constructor: { value: Object, writable: true } });

/** @param {unknown} value @returns {value is Tree} */
function isTree(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * The tree after a change. What did not change is the same object as before, so that `===` tells
 * rows that need not be drawn again. Nodes inherit no names: a model may be called `__proto__`.
 * @param {Tree} tree
 * @param {{[path: string]: unknown}} set
 * @param {string[]} gone
 * @returns {Tree}
 */
export function changed(tree, set, gone) {
  /** @type {Set<Tree>} */
  const copies = new Set();
  const copy = (/** @type {unknown} */ node) => {
    if (isTree(node) && copies.has(node)) return node;
    const made = /** @type {Tree} */ (Object.assign(Object.create(BARE), isTree(node) ? node : {}));
    copies.add(made);
    return made;
  };
  const root = copy(tree);
  for (const path of gone) {
    const names = namesOf(path);
    const last = /** @type {string} */ (names.pop());
    if (!isTree(found(root, names))) continue;
    delete parent(root, names, copy)[last];
  }
  for (const [path, value] of Object.entries(set)) {
    const names = namesOf(path);
    const last = /** @type {string} */ (names.pop());
    parent(root, names, copy)[last] = value;
  }
  return root;
}

/** @param {Tree} root @param {string[]} names @param {(node: unknown) => Tree} copy */
function parent(root, names, copy) {
  let node = root;
  for (const name of names) {
    const child = copy(Object.hasOwn(node, name) ? node[name] : undefined);
    node[name] = child;
    node = child;
  }
  return node;
}

/**
 * What stands at the end of these names; undefined: nothing does.
 * @param {unknown} tree
 * @param {string[]} names
 */
export function found(tree, names) {
  let node = tree;
  for (const name of names) {
    if (!isTree(node) || !Object.hasOwn(node, name)) return undefined;
    node = node[name];
  }
  return node;
}

/**
 * The number at a dotted path, or null where nothing is known.
 * @param {unknown} tree
 * @param {string} path
 * @returns {number | null}
 */
export function numberAt(tree, path) {
  const value = found(tree, namesOf(path));
  return typeof value === "number" ? value : null;
}
