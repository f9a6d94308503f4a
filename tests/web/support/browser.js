// What modules of the dashboard find where there is no browser: the names of the page's import map,
// and stand-ins for what they touch. Import this first, then the modules with `await import`.

import { webcrypto } from "node:crypto";
import { readFileSync } from "node:fs";
import { register } from "node:module";
import { promisify } from "node:util";

const ASSETS = new URL("../../../balancer/http/dashboard/assets/", import.meta.url);
const [, map] = readFileSync(new URL("index.html", ASSETS), "utf8").match(/"importmap">(.*?)<\/script>/s);
const names = Object.fromEntries(
  Object.entries(JSON.parse(map).imports).map(([name, path]) => [
    name,
    new URL(path.replace("/assets/", ""), ASSETS).href,
  ]),
);
const hooks = `
  let names;
  export const initialize = (given) => { names = given; };
  export const resolve = (name, context, next) =>
    Object.hasOwn(names, name) ? { url: names[name], shortCircuit: true } : next(name, context);
`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`, { data: names });

/** A module of the dashboard. @param {string} path below `app/` */
export const app = (path) => import(new URL(`app/${path}`, ASSETS).href);

/** What waits for the next frame. @type {(() => void)[]} */
let drawings = [];

/** Let the browser draw once. */
export function frame() {
  const due = drawings;
  drawings = [];
  for (const draw of due) draw();
}

/** Let everything that is ready happen. */
export const settled = promisify(setImmediate);

/** Sockets that were opened and not closed, in their order. @type {FakeSocket[]} */
export const sockets = [];

class FakeSocket {
  constructor(url) {
    this.url = new URL(url);
    this.sent = [];
    this.onmessage = this.onclose = null;
    sockets.push(this);
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {
    const at = sockets.indexOf(this);
    if (at >= 0) sockets.splice(at, 1);
  }

  /** The server says this. @param {...object} messages */
  say(...messages) {
    for (const message of messages) this.onmessage?.({ data: JSON.stringify(message) });
  }

  /** The connection ends. */
  drop() {
    const { onclose } = this;
    this.close();
    onclose?.();
  }
}

globalThis.crypto ??= webcrypto;
Object.assign(globalThis, {
  WebSocket: FakeSocket,
  document: Object.assign(new EventTarget(), { hidden: false, documentElement: { dataset: {} } }),
  location: new URL("http://127.0.0.1:8081/"),
  requestAnimationFrame: (draw) => drawings.push(draw),
  matchMedia: () => new EventTarget(),
});
const page = new EventTarget();
for (const name of ["addEventListener", "removeEventListener", "dispatchEvent"]) {
  globalThis[name] = page[name].bind(page);
}
