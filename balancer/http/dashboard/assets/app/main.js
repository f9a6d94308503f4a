// Begins everything: the sockets, the address, the first drawing.

import { render } from "preact";
import { drawByFrames } from "./core/frames.js";
import { html } from "./core/html.js";
import { start } from "./core/live.js";
import { forgetOldNodes } from "./core/old_nodes.js";
import { follow } from "./core/router.js";
import { Layout } from "./parts/layout.js";

drawByFrames();
forgetOldNodes();
follow();
start();
render(html`<${Layout} />`, /** @type {Element} */ (document.getElementById("app")));
