// Pure: a request as code that can be run elsewhere.

/** The places where OpenAI's package for Python takes no other names. */
const OF_OPENAI = new Set([
  "model", "messages", "temperature", "top_p", "max_tokens", "seed", "presence_penalty",
  "frequency_penalty", "stop", "reasoning_effort", "response_format", "tools", "tool_choice",
  "stream", "stream_options",
]);

/** @typedef {{[name: string]: unknown}} Body */

/** More than this goes through standard input: Linux takes 128 KiB as one argument. */
const MOST_ARGUMENT_BYTES = 100_000;

/** For a POSIX shell. @param {string} url @param {Body} body */
export function curlOf(url, body) {
  const data = printable(JSON.stringify(body, null, 2));
  const quoted = quotedForShell(data);
  const isLong = new TextEncoder().encode(quoted).length > MOST_ARGUMENT_BYTES;
  return [
    `curl -N ${quotedForShell(url)} \\`,
    "  -H 'Content-Type: application/json' \\",
    // no line of JSON is this word alone
    isLong ? `  --data-binary @- <<'END'\n${data}\nEND` : `  -d ${quoted}`,
  ].join("\n");
}

/** Between single quotes nothing means anything but their end. @param {string} text */
function quotedForShell(text) {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

/** What JSON leaves as it is, and a terminal or Python does not. @param {string} json */
function printable(json) {
  return json.replace(/[\u007f-\u009f\u2028\u2029]/g, escaped);
}

/** @param {string} character */
function escaped(character) {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** With OpenAI's package. @param {string} origin @param {Body} body */
export function pythonOf(origin, body) {
  const { model = "", ...rest } = body;
  const known = Object.entries({ model, ...rest }).filter(([name]) => OF_OPENAI.has(name));
  const others = Object.entries(rest).filter(([name]) => !OF_OPENAI.has(name));
  const rows = known.map(([name, value]) => `    ${name}=${pythonValue(value, 1)},`);
  if (others.length) rows.push(`    extra_body=${pythonValue(Object.fromEntries(others), 1)},`);
  return [
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${pythonValue(`${origin}/v1`, 0)}, api_key="none")`,
    "stream = client.chat.completions.create(",
    ...rows,
    ")",
    "for chunk in stream:",
    "    if chunk.choices and chunk.choices[0].delta.content:",
    '        print(chunk.choices[0].delta.content, end="", flush=True)',
    "",
  ].join("\n");
}

/** @param {unknown} value @param {number} depth @returns {string} */
function pythonValue(value, depth) {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value === "string") return pythonText(value);
  if (typeof value !== "object") return String(value);
  const inner = "    ".repeat(depth + 1);
  const outer = "    ".repeat(depth);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const rows = Array.isArray(value)
    ? value.map((one) => pythonValue(one, depth + 1))
    : Object.entries(value).map(([name, one]) => `${pythonText(name)}: ${pythonValue(one, depth + 1)}`);
  if (!rows.length) return `${open}${close}`;
  return `${open}\n${rows.map((row) => `${inner}${row},\n`).join("")}${outer}${close}`;
}

/** JSON's escapes are Python's. @param {string} text */
function pythonText(text) {
  return printable(JSON.stringify(text));
}

/** For browsers and Node alike. @param {string} url @param {Body} body */
export function javascriptOf(url, body) {
  return [
    `const answer = await fetch(${JSON.stringify(url)}, {`,
    '  method: "POST",',
    '  headers: { "Content-Type": "application/json" },',
    `  body: JSON.stringify(${javascriptValue(body)}),`,
    "});",
    "const decoder = new TextDecoder();",
    "for await (const piece of answer.body) {",
    "  console.log(decoder.decode(piece, { stream: true }));",
    "}",
    "",
  ].join("\n");
}

/** @param {Body} body */
function javascriptValue(body) {
  const text = JSON.stringify(body, null, 2).replaceAll("\n", "\n  ");
  // as a property of a literal this name would set the prototype
  return text.replaceAll('"__proto__":', '["__proto__"]:');
}
