// One request: what became of each of its choices, followed while it runs.

import { useEffect, useState } from "preact/hooks";
import { html } from "../core/html.js";
import { ask, placed } from "../core/calls.js";
import { counted, milliseconds, shortId } from "../core/format.js";
import { now, requests } from "../core/live.js";
import { Badge, Copy, Facts, Heading } from "../parts/bits.js";
import { barOf, isOver, lengthOf, stateOf, storiesOf } from "./timeline.js";

/** @typedef {import("./timeline.js").Phase} Phase */
/** @typedef {import("./timeline.js").Story} Story */
/** @typedef {import("./timeline.js").Timeline} Timeline */
/** @typedef {import("../core/shapes.js").RequestRow} RequestRow */

const LIST = { address: "#/requests", title: "Requests" };
const POLL_MS = 1000;
const PHASE_WORDS = /** @type {{[phase: string]: string}} */ ({
  waited: "Waited",
  prefilled: "Prompt computed",
  decoded: "Tokens generated",
  moved: "Moved to another agent",
});

/** @param {{id: string}} properties */
export function One({ id }) {
  const rows = requests.value.map(([, row]) => row).filter((row) => row.id === id);
  const isLive = rows.length > 0;
  const { timeline, failure } = useTimeline(id, isLive);
  const stories = timeline ? storiesOf(timeline) : [];
  return html`
    <${Heading} title=${shortId(id)} list=${LIST}
      about=${html`<span class="request-id"><code>${id}</code><${Copy} text=${id} what="the id" /></span>`} />
    ${failure ? html`<p class="failure">${failure}</p>` : null}
    ${stories.map(
      (story) => html`<${Choice} key=${story.choice} story=${story} many=${stories.length}
        row=${rows.find((row) => row.choice === story.choice)} />`,
    )}
  `;
}

/**
 * Read anew each second until it is over.
 * @param {string} id
 * @param {boolean} isLive
 */
function useTimeline(id, isLive) {
  const [read, setRead] = useState({ timeline: /** @type {Timeline | null} */ (null), failure: "" });
  useEffect(() => {
    let isOld = false;
    let timer = 0;
    const follow = async () => {
      const answer = await readOf(id);
      if (isOld) return;
      setRead((before) => ({ ...before, ...answer }));
      const isOpen = isLive || (answer.timeline !== undefined && !isOver(answer.timeline));
      if (isOpen) timer = setTimeout(follow, POLL_MS);
    };
    follow();
    return () => {
      isOld = true;
      clearTimeout(timer);
    };
  }, [id, isLive]);
  return read;
}

/** @param {string} id @returns {Promise<{timeline?: Timeline, failure: string}>} */
async function readOf(id) {
  try {
    return { timeline: await ask("GET", `/requests/${placed(id)}/timeline`), failure: "" };
  } catch (error) {
    return { failure: error instanceof Error ? error.message : String(error) };
  }
}

/** @param {{story: Story, many: number, row: RequestRow | undefined}} properties */
function Choice({ story, many, row }) {
  const state = stateOf(story, row);
  const length = lengthOf(story, now.value);
  const title = story.outcome === null ? "So far" : "What became of it";
  return html`
    ${many > 1 ? html`<h2 class="section">Choice ${story.choice + 1} of ${many}</h2>` : null}
    <div class="panel story">
      <${Facts}
        rows=${[
          ["Outcome", html`<${Badge} tone=${state.tone}>${state.word}<//>`],
          ["Agent", story.agent ?? "–"],
          ["Prompt", counted(story.prompt_tokens, "token")],
          ["Answer", counted(story.completion_tokens, "token")],
          ["Took", milliseconds(story.total_ms)],
        ]}
      />
    </div>
    <section class="section" aria-label=${many > 1 ? `${title}, choice ${story.choice + 1}` : title}>
      ${many > 1 ? null : html`<h2>${title}</h2>`}
      <ol class="panel timeline">
        ${story.phases.map((phase, index) => html`<${Stretch} key=${index} phase=${phase} length=${length} />`)}
        ${story.phases.length
          ? html`<li class="timeline-scale quiet-text" aria-hidden="true">
              <span class="timeline-ends numeral"><span>0</span><span>${milliseconds(length)}</span></span>
            </li>`
          : null}
      </ol>
      ${story.phases.length ? null : html`<p class="quiet-text">Nothing has happened yet.</p>`}
    </section>
  `;
}

/** @param {{phase: Phase, length: number}} properties */
function Stretch({ phase, length }) {
  const { left, width } = barOf(phase, length);
  return html`<li data-phase=${phase.phase}>
    <span>
      ${PHASE_WORDS[phase.phase] ?? phase.phase}
      ${phase.reason
        ? html`<span class="quiet-text timeline-reason">because: ${phase.reason.replaceAll("_", " ")}</span>`
        : null}
    </span>
    <span class="quiet-text timeline-agent">${phase.agent ?? ""}</span>
    <span class="timeline-track"><i style=${{ left: `${100 * left}%`, width: `${100 * width}%` }}></i></span>
    <span class="numeral end">
      ${phase.end_ms === null ? "now" : milliseconds(phase.end_ms - phase.start_ms)}
    </span>
  </li>`;
}
