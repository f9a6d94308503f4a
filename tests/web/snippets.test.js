import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { curlOf, javascriptOf, pythonOf } from "../../balancer/http/dashboard/assets/app/playground/snippets.js";

const AWKWARD = `it's "$HOME" \`id\` $(id) \\n \\\\ 'quoted''twice'\nnew line\t%s {x} \u2028 \u007f \u0000 é 👋 </script>`;
const BODY = {
  model: "demo",
  messages: [{ role: "user", content: AWKWARD }, { role: "assistant", content: null }],
  temperature: 0.5,
  top_k: 40,
  stop: [],
  tools: [{ type: "function", function: { name: "f", parameters: JSON.parse('{"__proto__": {"a": true}}') } }],
  stream: true,
};

/** What a shell gives curl: its arguments, and what stands on its input. @param {string} command */
function givenToCurl(command) {
  const standIn = [
    "curl() {",
    '  env true "$@" || exit 1', // where an argument is too long for the system
    '  for one in "$@"; do printf "%s\\0" "$one"; done',
    '  [ "$one" != @- ] || cat',
    "}",
    "",
  ].join("\n");
  const output = execFileSync("sh", ["-s"], { encoding: "utf8", input: `${standIn}${command}\n` });
  const parts = output.split("\0");
  return { parts, input: parts.at(-1) };
}

test("a shell passes curl exactly the body", () => {
  const { parts } = givenToCurl(curlOf("http://127.0.0.1:8081/v1/x'y", BODY));
  assert.equal(parts[1], "http://127.0.0.1:8081/v1/x'y");
  assert.deepEqual(JSON.parse(parts[parts.indexOf("-d") + 1]), JSON.parse(JSON.stringify(BODY)));
});

test("a body that is too long for an argument, as one with a picture, goes through the input", () => {
  const body = { ...BODY, messages: [...BODY.messages, { role: "user", content: "é".repeat(60_000) }] };
  const { parts, input } = givenToCurl(curlOf("http://127.0.0.1:8081/v1/x", body));
  assert.ok(parts.includes("--data-binary"));
  assert.deepEqual(JSON.parse(input), JSON.parse(JSON.stringify(body)));
});

test("a terminal takes no part of a command for a key", () => {
  assert.doesNotMatch(curlOf("http://127.0.0.1:8081/v1/x", BODY), /[^\P{Cc}\n]/u);
});

test("Python calls OpenAI's client with exactly the body", () => {
  const standIn = [
    "import json, sys, types",
    "class Completions:",
    "    def create(self, *, extra_body=None, **given):",
    "        print(json.dumps({**given, **(extra_body or {})}))",
    "        return []",
    "class OpenAI:",
    "    def __init__(self, *, base_url, api_key):",
    "        assert base_url == 'http://127.0.0.1:8081/v1'",
    "        self.chat = types.SimpleNamespace(completions=Completions())",
    "module = types.ModuleType('openai')",
    "module.OpenAI = OpenAI",
    "sys.modules['openai'] = module",
    "exec(compile(sys.stdin.read(), 'snippet', 'exec'))",
  ].join("\n");
  const input = pythonOf("http://127.0.0.1:8081", BODY);
  const output = execFileSync("python3", ["-c", standIn], { encoding: "utf8", input });
  assert.deepEqual(JSON.parse(output), JSON.parse(JSON.stringify(BODY)));
});

test("Node sends exactly the body", () => {
  const standIn = "globalThis.fetch = async (url, {body}) => { console.log(body); return {body: []}; };\n";
  const program = standIn + javascriptOf("http://127.0.0.1:8081/v1/chat/completions", BODY);
  const output = execFileSync(process.execPath, ["--input-type=module", "-"], { encoding: "utf8", input: program });
  assert.deepEqual(JSON.parse(output), JSON.parse(JSON.stringify(BODY)));
});
