// A picture of the last ten minutes of a few figures, with what they are now in its heading.
//
// All charts of a page share one cursor: while it is over any of them, each heading says what was
// then. The picture itself is a canvas; what it shows is also said in words for screen readers.

import { signal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { html } from "../core/html.js";
import { pastFigures, pastVersion } from "../core/live.js";
import { clock } from "../core/format.js";
import { inTurn } from "../core/frames.js";
import { colour, coloursVersion } from "../core/theme.js";

/** @typedef {import("uplot")} Plot */
/**
 * @typedef {object} Line
 * @property {string} path of the tree of figures
 * @property {string} [name] where there is more than one
 * @property {"main" | "other"} [tone]
 */
/**
 * @typedef {object} ChartProperties
 * @property {string} title
 * @property {Line[]} lines the first one is drawn as an area
 * @property {(value: number | null) => string} format
 * @property {number} [top] the least that the axis reaches
 */

const SPAN_S = 600;
const SYNC = "past";
/** The index that all charts' cursors are at; null: none is anywhere. */
const pointed = signal(/** @type {number | null} */ (null));

/** @param {ChartProperties} properties */
export function Chart({ title, lines, format, top = 1 }) {
  const past = pastFigures();
  const at = pointed.value;
  const index = at !== null && at < past.times.length ? at : null;
  const shown = lines.map((line) => readingOf(past.read(line.path), index));
  const summary = lines
    .map((line, number) => `${line.name ?? "now"} ${format(shown[number] ?? null)}`)
    .join(", ");
  const isKeyed = lines[0]?.name !== undefined;
  return html`<section class="chart" aria-label=${title}>
    <header>
      <h2>${title}</h2>
      <p class="chart-at numeral" aria-hidden="true">
        ${index === null ? "" : clock(/** @type {number} */ (past.times[index]))}
      </p>
    </header>
    <p class="chart-now">
      ${lines.map(
        (line, number) => html`<span key=${line.path} data-tone=${line.tone ?? "main"}>
          ${line.name ? html`<span class="chart-name" data-keyed=${isKeyed}>${line.name}</span>` : null}
          <span class="numeral">${format(shown[number] ?? null)}</span>
        </span>`,
      )}
    </p>
    <${Canvas} lines=${lines} format=${format} top=${top} label=${`${title}, last ten minutes: ${summary}`} />
  </section>`;
}

/** @param {(number | null)[]} numbers @param {number | null} index */
function readingOf(numbers, index) {
  if (index !== null) return numbers[index] ?? null;
  return numbers[numbers.length - 1] ?? null;
}

/** @param {{lines: Line[], format: (value: number | null) => string, top: number, label: string}} properties */
function Canvas({ lines, format, top, label }) {
  const box = useRef(/** @type {HTMLDivElement | null} */ (null));
  const paths = useMemo(() => lines.map((line) => line.path), []);
  useEffect(() => {
    /** @type {() => void} */
    let end = () => {};
    const node = /** @type {HTMLDivElement} */ (box.current);
    const stopWaiting = inTurn(() => {
      end = kept(node, made(node, lines, format, top), paths);
    });
    return () => {
      stopWaiting();
      end();
    };
  }, []);
  return html`<div class="chart-canvas" ref=${box} role="img" aria-label=${label}></div>`;
}

/**
 * Keep a picture as new and as wide as it should be; ends with what this gives back.
 * @param {HTMLElement} node
 * @param {Plot} plot
 * @param {string[]} paths
 */
function kept(node, plot, paths) {
  const observer = new ResizeObserver(() => {
    const { clientWidth: width, clientHeight: height } = node;
    if (plot.width !== width || plot.height !== height) plot.setSize({ width, height });
  });
  observer.observe(node);
  const draw = () => {
    const past = pastFigures();
    const end = past.times[past.times.length - 1] ?? Date.now() / 1000;
    plot.setData(/** @type {any} */ ([past.times, ...paths.map((path) => past.read(path))]), false);
    plot.setScale("x", { min: end - SPAN_S, max: end });
  };
  let stopWaiting = () => {};
  const stopData = pastVersion.subscribe(() => {
    stopWaiting = inTurn(draw);
  });
  const stopColours = coloursVersion.subscribe(() => plot.redraw(false, true));
  return () => {
    observer.disconnect();
    stopData();
    stopColours();
    stopWaiting();
    plot.destroy();
  };
}

/**
 * @param {HTMLElement} node
 * @param {Line[]} lines
 * @param {(value: number | null) => string} format
 * @param {number} top
 * @returns {Plot}
 */
function made(node, lines, format, top) {
  const uPlot = /** @type {any} */ (globalThis).uPlot;
  const font = `11px ${getComputedStyle(document.body).fontFamily}`;
  const muted = () => colour("--text-quiet");
  const faint = () => colour("--line-faint");
  return new uPlot(
    {
      width: node.clientWidth || 300,
      height: node.clientHeight || 132,
      padding: [6, 14, 0, 0],
      legend: { show: false },
      cursor: {
        y: false,
        points: { size: 6, width: 0, fill: () => colour("--accent") },
        drag: { x: false, y: false },
        sync: { key: SYNC, setSeries: false },
      },
      scales: {
        x: { time: false, auto: false },
        y: {
          range: (/** @type {Plot} */ _, /** @type {number} */ _min, /** @type {number} */ max) => [
            0,
            Math.max(top, (max ?? 0) * 1.15),
          ],
        },
      },
      axes: [
        {
          font,
          stroke: muted,
          size: 24,
          gap: 6,
          grid: { show: false },
          ticks: { show: false },
          splits: (/** @type {Plot} */ plot) => {
            const end = plot.scales.x?.max ?? 0;
            return [end - SPAN_S, end - SPAN_S / 2, end];
          },
          values: () => ["−10 min", "−5 min", "now"],
        },
        {
          font,
          stroke: muted,
          size: 52,
          gap: 8,
          space: 40,
          grid: { stroke: faint, width: 1 },
          ticks: { show: false },
          values: (/** @type {Plot} */ _, /** @type {number[]} */ splits) => splits.map((split) => short(format(split))),
        },
      ],
      series: [{}, ...lines.map(drawn)],
      hooks: {
        setCursor: [
          (/** @type {Plot} */ plot) => {
            pointed.value = plot.cursor.idx ?? null;
          },
        ],
      },
    },
    [[], ...lines.map(() => [])],
    node,
  );
}

/** A round number as axes have it. @param {string} text */
function short(text) {
  return text.replace(/\.0\b/, "").replace(/^0 \D+$/, "0");
}

/** @param {Line} line @param {number} index */
function drawn(line, index) {
  const name = line.tone === "other" ? "--line-other" : "--accent";
  return {
    stroke: () => colour(name),
    width: 1.5,
    fill: index === 0 && line.tone !== "other" ? () => colour("--accent-wash") : undefined,
    points: { show: false },
    spanGaps: false,
  };
}
