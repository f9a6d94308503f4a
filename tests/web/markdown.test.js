import assert from "node:assert/strict";
import { test } from "node:test";
import { nodesOf, safeAddress } from "../../balancer/http/dashboard/assets/app/playground/markdown.js";

const kindsIn = (nodes) => nodes.flatMap((node) => (typeof node === "string" ? [] : [node.kind, ...kindsIn(node.children ?? [])]));
const textOf = (nodes) => nodes.map((node) => (typeof node === "string" ? node : (node.text ?? textOf(node.children ?? [])))).join("");
const linksIn = (nodes) => nodes.flatMap((node) => (typeof node === "string" ? [] : [...(node.kind === "link" ? [node.href] : []), ...linksIn(node.children ?? [])]));

test("what models write becomes nodes", () => {
  const text = "# Title\n\nSome **bold *and* ~~struck~~** `code`.\n\n1. one\n2. two\n   - [x] done\n\n> quote\n\n---\n\n```python\nprint(1)\n```\n\n|a|b|\n|-|-:|\n|1|2|";
  const kinds = new Set(kindsIn(nodesOf(text)));
  for (const kind of ["heading", "strong", "emphasis", "deleted", "codespan", "ordered", "item", "task", "quote", "rule", "code", "table", "headcell", "cell"]) {
    assert.ok(kinds.has(kind), kind);
  }
  const code = nodesOf(text).find((node) => node.kind === "code");
  assert.deepEqual(code, { kind: "code", text: "print(1)", language: "python" });
});

test("HTML stays the text that it is", () => {
  const hostile = ["<script>alert(1)</script>", "x <img src=x onerror=alert(1)> <b>y</b>"];
  for (const text of hostile) {
    assert.ok(!kindsIn(nodesOf(text)).some((kind) => kind !== "paragraph"), text);
    assert.equal(textOf(nodesOf(text)), text);
  }
});

test("links lead to web and mail, and nowhere else", () => {
  for (const address of ["javascript:alert(1)", "JaVaScRiPt:alert(1)", "java\nscript:alert(1)", " javascript:alert(1)", "data:text/html,x", "vbscript:x", "file:///etc/passwd", "//evil.example", "/agents", "#/settings", "blob:http://x/y"]) {
    assert.equal(safeAddress(address), "", address);
    assert.deepEqual(linksIn(nodesOf(`[go](<${address.replace("\n", "")}>)`)), [], address);
  }
  assert.deepEqual(linksIn(nodesOf("[go](&#106;avascript:alert(1)) [a](javascript&colon;alert(1)) [b](https://x.example/?a=1&amp;b=2) <mailto:a@b.example>")), ["https://x.example/?a=1&b=2", "mailto:a@b.example"]);
});

test("a picture is named and nothing loads it", () => {
  const [paragraph] = nodesOf("![alt text](http://evil.example/track.png)");
  assert.deepEqual(paragraph.children, [{ kind: "picture", text: "alt text", href: "http://evil.example/track.png" }]);
});

test("references to characters are read, unknown ones stay", () => {
  assert.equal(textOf(nodesOf("&lt;b&gt; &amp; &#65;&#x42; &nope; &constructor;")), "<b> & AB &nope; &constructor;");
});

test("what cannot be taken apart is shown as it is", () => {
  for (const hostile of [">".repeat(20_000), "x".repeat(300_000), "*a_".repeat(50_000), "[".repeat(50_000)]) {
    assert.equal(textOf(nodesOf(hostile)).length, hostile.length);
  }
});

test("names of objects are no kinds of nodes", () => {
  assert.equal(textOf(nodesOf("constructor __proto__ toString")), "constructor proto toString");
});

test("what is made to be slow stays text past a budget", () => {
  const blocks = nodesOf(`${"**b** ".repeat(140)}\n\n`.repeat(50));
  const parsed = blocks.filter((block) => kindsIn([block]).includes("strong"));
  assert.ok(parsed.length > 0 && parsed.length < 15, String(parsed.length));
});
