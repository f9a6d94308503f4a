// All that a page may try on an address: ({base, changes, reads, sockets}) => what it learned.
//
// `changes`: [{method, path, body}], `reads` and `sockets`: paths. The result has a line for each
// answer, element or message that the page was given, and for none that it was refused; `sent`
// counts the requests that need nobody's leave, and so reach the address from anywhere.
async ({ base, changes, reads, sockets }) => {
  const PATIENCE_MS = 10_000;
  const SIMPLE = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"];
  const JSON_TYPE = "application/json";
  const learned = new Set();
  let sent = 0;

  const within = (work) =>
    Promise.race([work, new Promise((done) => setTimeout(done, PATIENCE_MS))]);

  async function fetched(how, path, request) {
    try {
      const answer = await fetch(base + path, { signal: AbortSignal.timeout(3000), ...request });
      const text = answer.body ? await firstOf(answer) : "";
      if (answer.type !== "opaque" || text) learned.add(`${how} ${path} ${answer.status} ${text}`);
    } catch {
      // refused
    }
  }

  async function firstOf(answer) {
    const reader = answer.body.getReader();
    const { value } = await reader.read();
    void reader.cancel();
    return new TextDecoder().decode(value).slice(0, 40);
  }

  const xhr = (method, path, body, type) =>
    new Promise((done) => {
      const request = new XMLHttpRequest();
      request.open(method, base + path);
      request.timeout = 3000;
      if (type) request.setRequestHeader("Content-Type", type);
      request.onloadend = () => {
        if (request.status) learned.add(`xhr ${path} ${request.status}`);
        done();
      };
      request.send(body);
    });

  /** An element that fires `load` where it was given what it asked for. */
  const element = (how, path, make) =>
    new Promise((done) => {
      const made = make(base + path);
      made.onerror = done;
      made.onload = made.onloadedmetadata = () => {
        learned.add(`${how} ${path}`);
        done();
      };
      document.body.append(made);
      setTimeout(done, 1500); // some never tell
    });

  const made = (name, more) => (url) => Object.assign(document.createElement(name), more(url));
  const ELEMENTS = {
    img: made("img", (src) => ({ src })),
    script: made("script", (src) => ({ src })),
    module: made("script", (src) => ({ type: "module", src })),
    stylesheet: made("link", (href) => ({ rel: "stylesheet", href })),
    prefetch: made("link", (href) => ({ rel: "prefetch", href })),
    video: made("video", (src) => ({ src })),
  };

  const frame = (path) =>
    new Promise((done) => {
      const inner = document.createElement("iframe");
      inner.src = base + path;
      inner.onload = inner.onerror = () => {
        try {
          const text = inner.contentDocument.body.textContent;
          if (text) learned.add(`iframe ${path} ${text.slice(0, 40)}`);
        } catch {
          // another origin's
        }
        if (inner.contentWindow?.length) learned.add(`frames of ${path}`);
        inner.remove();
        done();
      };
      document.body.append(inner);
    });

  /** A form as any page may send it; one field's name and value make a body of JSON as text. */
  const form = (path, body, enctype) =>
    new Promise((done) => {
      const target = document.createElement("iframe");
      target.name = `sent${sent}`;
      const sender = document.createElement("form");
      Object.assign(sender, { action: base + path, method: "post", enctype, target: target.name });
      const field = document.createElement("input");
      field.name = `${body.slice(0, -1)}${body.length > 2 ? "," : ""}"x":"`;
      field.value = '"}';
      sender.append(field);
      document.body.append(target, sender);
      target.onload = () => {
        target.remove();
        sender.remove();
        done();
      };
      setTimeout(done, 1500); // a download never loads
      sent += 1;
      sender.submit();
    });

  const socket = (path) =>
    new Promise((done) => {
      const made = new WebSocket(base.replace("http", "ws") + path);
      made.onopen = () => {
        learned.add(`socket ${path}`);
        made.send('{"id": 1, "method": "agents.remove", "params": {"id": "one"}}');
        setTimeout(done, 500); // agents are asked to speak first
      };
      made.onmessage = (message) => {
        learned.add(`message ${path} ${String(message.data).slice(0, 40)}`);
        made.close();
      };
      made.onclose = made.onerror = done;
    });

  const events = (path) =>
    new Promise((done) => {
      const source = new EventSource(base + path);
      const end = () => {
        source.close();
        done();
      };
      source.onopen = source.onmessage = () => {
        learned.add(`events ${path}`);
        end();
      };
      source.onerror = end;
    });

  // the cheap ways for every path, of the others a few in turn
  function* everything() {
    for (const path of sockets) yield () => socket(path);
    for (const [index, path] of reads.entries()) {
      yield () => fetched("fetch", path, {});
      yield () => fetched("no-cors", path, { mode: "no-cors" });
      if (path.startsWith("/v1/streams/")) yield () => events(path);
      const elements = Object.entries(ELEMENTS).map(
        ([how, make]) => () => element(how, path, make),
      );
      if (path.startsWith("/assets/")) yield* elements;
      const others = [
        () => fetched("credentials", path, { credentials: "include" }),
        () => fetched("head", path, { method: "HEAD" }),
        () => xhr("GET", path),
        () => frame(path),
        ...elements,
      ];
      yield* inTurn(others, index);
      yield* inTurn(others, index + 5);
    }
    for (const [index, { method, path, body }] of changes.entries()) {
      yield () => fetched(method, path, { method, body, headers: { "Content-Type": JSON_TYPE } });
      if (method === "POST") yield* simplePosts(path, body, index);
      else yield () => xhr(method, path, body, JSON_TYPE);
    }
  }

  function* simplePosts(path, body, index) {
    const method = "POST";
    sent += 3; // the form counts itself
    yield () => fetched("simple", path, { method, mode: "no-cors", body });
    yield () => form(path, body, SIMPLE[index % 3]);
    yield () => navigator.sendBeacon(base + path, body);
    const others = [
      ...SIMPLE.map((type) => {
        const data = new Blob([body], { type });
        return () => fetched("credentials", path, { method, body: data, credentials: "include" });
      }),
      () => xhr(method, path, body, "text/plain"),
      () => fetched("plain", path, { method, body, keepalive: true }),
    ];
    yield* inTurn(others, index);
  }

  const inTurn = (all, index) => [all[index % all.length]];

  const waiting = everything();
  const worker = async () => {
    for (const attack of waiting) await within(attack());
  };
  await Promise.all(Array.from({ length: 12 }, worker));
  for (const seen of performance.getEntriesByType("resource")) {
    if (seen.responseStatus && seen.name.startsWith(base)) learned.add(`timing ${seen.name} ${seen.responseStatus}`);
  }
  return { learned: [...learned], sent };
};
