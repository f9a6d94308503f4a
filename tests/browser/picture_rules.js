// What is wrong with a page as it stands, rule by rule. It is put into the page before all else.

(() => {
  const FINGER_PX = 44;
  const TOLERANCE_PX = 1.5;
  const SHIFTED = 0.01;

  const shifts = [];
  new PerformanceObserver((list) => {
    shifts.push(...list.getEntries().filter((entry) => !entry.hadRecentInput && !isOfRows(entry)));
  }).observe({ type: "layout-shift", buffered: true });

  window.pageShifts = shifted;
  window.pictureFaults = () => [
    ...stickingOut(),
    ...overlapping(),
    ...cutWithoutTitle(),
    ...(navigator.maxTouchPoints ? tooSmallForFingers() : []),
  ];

  function shifted() {
    const sum = shifts.reduce((total, entry) => total + entry.value, 0);
    const named = shifts.flatMap((entry) => entry.sources.map((source) => nameOf(source.node)));
    return sum < SHIFTED ? [] : [`moved by ${sum.toFixed(3)}: ${[...new Set(named)].join(", ")}`];
  }

  /** Rows of a live list come and go: those below one that went move up, and nothing else may. */
  function isOfRows(entry) {
    return entry.sources.every(({ node }) => !node || elementOf(node)?.closest("tbody"));
  }

  function stickingOut() {
    const page = document.documentElement;
    const sideways = [...document.querySelectorAll("#app *")]
      .filter((node) => ["auto", "scroll"].includes(getComputedStyle(node).overflowX))
      .filter((node) => node.scrollWidth > node.clientWidth && node.tabIndex < 0)
      .map((node) => `scrolls sideways, and not by keyboard: ${nameOf(node)}`);
    if (page.scrollWidth <= innerWidth) return sideways;
    return [`the page is ${page.scrollWidth} px wide`, ...sideways];
  }

  function overlapping() {
    const texts = seenTexts();
    const found = [];
    for (let one = 0; one < texts.length; one += 1) {
      for (let other = one + 1; other < texts.length; other += 1) {
        const a = texts[one];
        const b = texts[other];
        if (b.box.top > a.box.bottom) break;
        if (a.layer !== b.layer || a.node === b.node || !doMeet(a.box, b.box)) continue;
        found.push(`"${a.node.data.trim()}" lies on "${b.node.data.trim()}"`);
      }
    }
    return found;
  }

  function cutWithoutTitle() {
    return [...document.querySelectorAll("#app *")]
      .filter((node) => getComputedStyle(node).textOverflow === "ellipsis")
      .filter((node) => node.scrollWidth > node.clientWidth + 1 && !node.closest("[title]"))
      .map((node) => `cut, without a title: ${node.textContent.trim().slice(0, 80)}`);
  }

  function tooSmallForFingers() {
    return [...document.querySelectorAll("button, select, input, textarea, nav a, summary")]
      .filter((node) => node.checkVisibility() && node.getBoundingClientRect().height < FINGER_PX)
      .map((node) => `${Math.round(node.getBoundingClientRect().height)} px high: ${nameOf(node)}`);
  }

  /** Pieces of text with the box that is seen of each, from the top. */
  function seenTexts() {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const found = [];
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const parent = node.parentElement;
      if (!node.data.trim() || parent.closest(".unseen, noscript, script, option, canvas")) continue;
      if (!parent.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
      const range = document.createRange();
      range.selectNodeContents(node);
      for (const rect of range.getClientRects()) {
        const box = clipped(rect, parent);
        if (box) found.push({ node, box, layer: layerOf(parent) });
      }
    }
    return found.sort((a, b) => a.box.top - b.box.top);
  }

  /** What scrolls past what stands still may lie under it: each of these is judged by itself. */
  function layerOf(node) {
    for (let at = node; at; at = at.parentElement) {
      if (["fixed", "sticky"].includes(getComputedStyle(at).position)) return at;
    }
    return null;
  }

  function clipped(rect, node) {
    const box = { left: rect.left, top: rect.top, right: rect.right, bottom: rect.bottom };
    for (let at = node; at; at = at.parentElement) {
      if (getComputedStyle(at).overflow === "visible") continue;
      const edge = at.getBoundingClientRect();
      box.left = Math.max(box.left, edge.left);
      box.top = Math.max(box.top, edge.top);
      box.right = Math.min(box.right, edge.right);
      box.bottom = Math.min(box.bottom, edge.bottom);
    }
    return box.right > box.left && box.bottom > box.top ? box : null;
  }

  function doMeet(a, b) {
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    // lines of text have room above and below their letters
    return wide > TOLERANCE_PX && high > 0.4 * Math.min(a.bottom - a.top, b.bottom - b.top);
  }

  function elementOf(node) {
    return node?.nodeType === Node.TEXT_NODE ? node.parentElement : node;
  }

  function nameOf(node) {
    const element = elementOf(node);
    if (!element?.tagName) return "a node that is gone";
    const name = element.getAttribute("aria-label") ?? element.textContent.trim().slice(0, 40);
    return `${element.tagName.toLowerCase()}.${element.className} ${name}`.trim();
  }
})();
