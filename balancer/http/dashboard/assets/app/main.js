// Begins everything: the sockets, the address, the first drawing.

import { effect } from "@preact/signals";
import { render } from "preact";
import { look, mustSignIn } from "./core/calls.js";
import { drawByFrames } from "./core/frames.js";
import { html } from "./core/html.js";
import { link, retryNow, start } from "./core/live.js";
import { forgetOldNodes } from "./core/old_nodes.js";
import { follow } from "./core/router.js";
import { Layout } from "./parts/layout.js";

drawByFrames();
forgetOldNodes();
follow();
render(html`<${Layout} />`, /** @type {Element} */ (document.getElementById("app")));
await look();
let hasStarted = false;
effect(() => {
  if (mustSignIn.value) return;
  if (hasStarted) retryNow();
  else start();
  hasStarted = true;
});
// a socket cannot say that it was refused for want of a key
effect(() => {
  if (link.value === "waiting") look();
});
