"use strict";

/* Shows /openapi.json of the port that served this page, and sends its examples. Text only ever
   becomes text: nothing here sets HTML. */

const shownDepth = 6;

function element(name, text, attributes) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  return made;
}

function resolved(whole, schema) {
  if (!schema || !schema.$ref) return schema;
  return schema.$ref.replace(/^#\//, "").split("/").reduce((found, part) => found[part], whole);
}

/* A schema in a few words: a line for each field. */
function described(whole, schema, depth) {
  const name = schema && schema.$ref ? schema.$ref.split("/").pop() : "";
  const found = resolved(whole, schema) || {};
  if (found.anyOf) {
    return found.anyOf.map((one) => described(whole, one, depth)).join(" | ");
  }
  if (found.const !== undefined) return JSON.stringify(found.const);
  if (found.enum) return found.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (found.type === "array") {
    return "[" + described(whole, found.items || {}, depth) + ", …]";
  }
  if (found.type === "object" && found.properties) {
    if (depth >= shownDepth) return name || "object";
    const indent = "  ".repeat(depth + 1);
    const required = new Set(found.required || []);
    const lines = Object.entries(found.properties).map(([key, value]) =>
      indent + key + (required.has(key) ? "" : "?") + ": " + described(whole, value, depth + 1));
    return "{\n" + lines.join("\n") + "\n" + "  ".repeat(depth) + "}";
  }
  const bounds = ["minimum", "exclusiveMinimum", "maximum", "minLength", "maxLength", "minItems",
    "maxItems", "pattern"].filter((key) => found[key] !== undefined)
    .map((key) => key + " " + found[key]);
  return (found.type || "anything") + (bounds.length ? " (" + bounds.join(", ") + ")" : "");
}

function fields(whole, operation) {
  const inputs = new Map();
  const box = element("div");
  for (const given of operation.parameters || []) {
    const parameter = resolved(whole, given);
    const label = element("label", parameter.name + " (" + parameter.in + ") ");
    const input = element("input", undefined, { value: parameter.example || "" });
    label.append(input, element("span", " " + (parameter.description || ""), { class: "quiet" }));
    inputs.set(parameter, input);
    box.append(label);
  }
  return { box, inputs };
}

function bodyEditor(body) {
  const media = body.content["application/json"];
  const examples = Object.entries(media.examples || {});
  const editor = element("textarea", undefined, { "aria-label": "Body", spellcheck: "false" });
  const show = (value) => { editor.value = JSON.stringify(value, null, 2); };
  const box = element("div");
  for (const [name, example] of examples) {
    const button = element("button", "Example: " + name, { type: "button" });
    button.addEventListener("click", () => show(example.value));
    box.append(button);
  }
  if (examples.length) show(examples[0][1].value);
  box.append(editor);
  return { box, editor };
}

function request(path, method, inputs, editor) {
  const headers = new Headers();
  const query = new URLSearchParams();
  let target = path;
  for (const [parameter, input] of inputs) {
    if (parameter.in === "path") {
      target = target.replace("{" + parameter.name + "}", encodeURIComponent(input.value));
    } else if (input.value && parameter.in === "query") {
      query.set(parameter.name, input.value);
    } else if (input.value && parameter.in === "header") {
      headers.set(parameter.name, input.value);
    }
  }
  const authorization = document.getElementById("authorization").value;
  if (authorization) headers.set("Authorization", authorization);
  if (editor) headers.set("Content-Type", "application/json");
  const asked = query.toString();
  return [asked ? target + "?" + asked : target, { method, headers, body: editor ? editor.value : undefined }];
}

async function send(path, method, inputs, editor, output, signal) {
  const [url, options] = request(path, method, inputs, editor);
  output.textContent = "…";
  try {
    const answer = await fetch(url, { ...options, signal });
    output.textContent = answer.status + " " + answer.statusText + "\n\n";
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      output.append(value);
    }
  } catch (error) {
    output.append("\n" + error);
  }
}

function shownOperation(whole, path, method, operation) {
  const box = element("details", undefined, { class: "operation" });
  const head = element("summary");
  head.append(element("span", method.toUpperCase(), { class: "method" }), element("code", path),
    " " + (operation.summary || "") + (operation.deprecated ? " (deprecated)" : ""));
  box.append(head);
  box.addEventListener("toggle", () => {
    if (box.open && !box.dataset.filled) {
      box.dataset.filled = "yes";
      fill(box, whole, path, method, operation);
    }
  });
  return box;
}

function fill(box, whole, path, method, operation) {
  if (operation.description) box.append(element("p", operation.description));
  const { box: parameters, inputs } = fields(whole, operation);
  box.append(element("h3", "Request"), parameters);
  let editor = null;
  if (operation.requestBody) {
    const made = bodyEditor(operation.requestBody);
    editor = made.editor;
    box.append(made.box);
  }
  const output = element("pre", "");
  const button = element("button", "Send", { type: "button" });
  let running = null;
  button.addEventListener("click", () => {
    if (running) running.abort();
    running = new AbortController();
    send(path, method.toUpperCase(), inputs, editor, output, running.signal);
  });
  box.append(button, output);
  if (operation.requestBody) {
    const schema = operation.requestBody.content["application/json"].schema;
    box.append(element("h3", "Body"), element("pre", described(whole, schema, 0)));
  }
  for (const [status, answer] of Object.entries(operation.responses)) {
    box.append(element("h3", status + ": " + answer.description));
    for (const [type, media] of Object.entries(answer.content || {})) {
      const schema = media["x-events"] || media.schema;
      const kind = media["x-events"] ? type + ", of events" : type;
      box.append(folded(kind, described(whole, schema, 0)));
    }
  }
}

function folded(title, text) {
  const box = element("details");
  box.append(element("summary", title), element("pre", text));
  return box;
}

async function start() {
  const place = document.getElementById("operations");
  try {
    const whole = await (await fetch("openapi.json")).json();
    document.getElementById("title").textContent = whole.info.title;
    document.getElementById("description").textContent = whole.info.description;
    place.replaceChildren();
    for (const { name } of whole.tags) {
      place.append(element("h2", name));
      for (const [path, methods] of Object.entries(whole.paths)) {
        for (const [method, operation] of Object.entries(methods)) {
          if (operation.tags.includes(name)) {
            place.append(shownOperation(whole, path, method, operation));
          }
        }
      }
    }
  } catch (error) {
    document.getElementById("state").textContent = "openapi.json did not come: " + error;
  }
}

start();
