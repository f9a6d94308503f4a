// Whether what is shown is what is: said in a corner, and in a banner while it is not.

import { useEffect, useState } from "preact/hooks";
import { html } from "../core/html.js";
import { control, isKnown, isLost, isOutdated, link, retryAt, retryNow } from "../core/live.js";

const WORDS = { live: "Live", connecting: "Connecting", waiting: "Disconnected" };

export function LinkState() {
  return html`<p class="link-state" data-state=${link.value} role="status">
    <span class="dot" aria-hidden="true"></span><span class="link-word">${WORDS[link.value]}</span>
  </p>`;
}

export function LinkBanner() {
  if (isLost.value) return html`<${Lost} />`;
  return isOutdated.value ? html`<${NewVersion} />` : null;
}

/** It stays while an attempt is made: nothing moves until the connection is back. */
function Lost() {
  return html`<div class="banner">
    <p>
      ${isKnown.value
        ? "The balancer does not answer; what you see is the last that it said."
        : "The balancer does not answer."}${" "}
      <span class="numeral">${link.value === "waiting" ? html`<${Countdown} />` : "Connecting…"}</span>
    </p>
    <button type="button" onClick=${retryNow}>Connect now</button>
  </div>`;
}

function NewVersion() {
  return html`<div class="banner" role="status">
    <p>The balancer is version ${control.value?.balancer.version} now, this page is of another.</p>
    <button type="button" onClick=${() => location.reload()}>Load the new page</button>
  </div>`;
}

function Countdown() {
  const [, redraw] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => redraw((before) => before + 1), 500);
    return () => clearInterval(timer);
  }, []);
  const seconds = Math.max(0, Math.ceil((retryAt.value - Date.now()) / 1000));
  return `Next attempt in ${seconds} s.`;
}
