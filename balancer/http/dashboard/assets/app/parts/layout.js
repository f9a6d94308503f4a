// The frame around every page: navigation, connection, colour scheme, and the page itself.

import { useEffect, useErrorBoundary, useRef, useState } from "preact/hooks";
import { mustSignIn, session, signOut } from "../core/calls.js";
import { html } from "../core/html.js";
import { control, isKnown } from "../core/live.js";
import { place } from "../core/router.js";
import { PAGES } from "../pages.js";
import { LinkBanner, LinkState } from "./link_state.js";
import { Icon } from "./icon.js";
import { Notes, complain } from "./notes.js";
import { ThemeSwitch } from "./theme_switch.js";

/** @typedef {import("../pages.js").PageRow} PageRow */

export function Layout() {
  const row = PAGES.find((one) => one.path === place.value.page);
  useEffect(() => {
    document.title = row ? `${row.title} · paddler-py` : "paddler-py";
  }, [row]);
  useArrival([place.value.page, ...place.value.rest].join("/"));
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to the page</a>
    <header class="bar">
      <a class="brand" href="#/"><img src="/assets/icon.svg" alt="" width="22" height="22" />paddler-py</a>
      <nav class="navigation" aria-label="Pages">
        ${PAGES.map((one) => html`<${PageLink} key=${one.path} row=${one} isHere=${one === row} />`)}
      </nav>
      <div class="bar-end">
        <${LinkState} />
        <${ThemeSwitch} />
        ${session.value?.is_open ? html`<${SignOut} />` : null}
        <p class="version">${versionOf(control.value)}</p>
      </div>
    </header>
    <main id="main" tabindex="-1">
      ${mustSignIn.value ? html`<${Door} />` : html`<${Opened} row=${row} />`}
    </main>
    <${Notes} />
  `;
}

/** Another page begins at its top, and with the focus, for those who cannot see it. @param {string} path */
function useArrival(path) {
  const shown = useRef(path);
  useEffect(() => {
    if (shown.current === path) return;
    shown.current = path;
    document.getElementById("main")?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }, [path]);
}

/** @param {import("../core/shapes.js").Control | null} known */
function versionOf(known) {
  return known?.balancer.version ? `Version ${known.balancer.version}` : "";
}

/** @param {{row: PageRow | undefined}} properties */
function Opened({ row }) {
  return html`<${LinkBanner} />
    ${row ? html`<${LoadedPage} key=${row.path} row=${row} />` : html`<${NoSuchPage} />`}`;
}

/** Few need it: it is loaded when it is shown. */
function Door() {
  const [Form, setForm] = useState(/** @type {import("preact").ComponentType | null} */ (null));
  useEffect(() => void import("./sign_in.js").then(({ SignIn }) => setForm(() => SignIn)), []);
  return Form && html`<${Form} />`;
}

function SignOut() {
  const name = session.value?.key;
  return html`<button type="button" class="quiet" title=${`Signed in as ${name}`} onClick=${() => signOut().catch(complain)}>
    Sign out
  </button>`;
}

/** @param {MouseEvent} event */
function skip(event) {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

/** @param {{row: PageRow, isHere: boolean}} properties */
function PageLink({ row, isHere }) {
  return html`<a href=${`#/${row.path}`} aria-current=${isHere ? "page" : undefined}>
    <${Icon} name=${row.icon} /><span>${row.title}</span>
  </a>`;
}

/** Loads a page when it is first shown. @param {{row: PageRow}} properties */
function LoadedPage({ row }) {
  const [loaded, setLoaded] = useState(
    /** @type {{Page: import("preact").ComponentType<{rest: string[]}>} | null} */ (null),
  );
  const [failure, setFailure] = useState("");
  const [error, reset] = useErrorBoundary();
  useEffect(() => {
    row.load().then(setLoaded, () => setFailure("This page could not be loaded."));
  }, [row]);
  if (error || failure) {
    const text = failure || "This page met an error of its own.";
    return html`<div class="page">
      <h1>${row.title}</h1>
      <p class="failure">${text} ${error ? String(error.message ?? error) : ""}</p>
      <p><button type="button" onClick=${() => (error ? reset() : location.reload())}>Try again</button></p>
    </div>`;
  }
  if (!loaded || !isKnown.value) {
    return html`<div class="page" aria-busy="true"><h1>${row.title}</h1></div>`;
  }
  return html`<div class="page"><${loaded.Page} rest=${place.value.rest} /></div>`;
}

function NoSuchPage() {
  return html`<div class="page">
    <h1>There is no such page</h1>
    <p>The address names none of this dashboard's pages. <a href="#/">Go to the overview</a>.</p>
  </div>`;
}
